"""Measures publishing with this library against what it could be, in one interleaved run.

    python bench/publish.py [--peer ADDRESS] [--runs N] [--quick] [--cores 1|2] [--json FILE] [--pyensign PYTHON]

Its peers do the same work: build each event, serialise it, match its ack. They are a loop on grpcio's completion queue
(the limit), grpcio's public stub with a queue (what one writes by hand), and the official asyncio client, if a Python
is named that has it. Every figure is taken once in each round, in a new order each time.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from processes import Worker, on_cpu, together
from report import Goal, Report, at_least

from ensign_sync.node import Node

SIZES = {"100 B": 100, "1 KiB": 1024, "64 KiB": 65536}
WINDOW = 1000


class Bench:
    """One run against one server."""

    def __init__(self, endpoint: str, token: str, login: str, cores: Optional[int], number: int, pyensign: str) -> None:
        self.report = Report()
        self._endpoint, self._token, self._login, self._number = endpoint, token, login, number
        self._cpu = 1 if cores == 1 else None
        self._pyensign = pyensign

    def round(self) -> None:
        """Take every figure once, then the ratios of this round."""
        rates: Dict[str, float] = {}
        steps: List[Callable[[], None]] = []
        for name, size in SIZES.items():
            number = self._number // (1 if size < 10_000 else 10)
            order = {"size": size, "number": number, "window": WINDOW}
            peers: Dict[str, Dict[str, Any]] = {
                "raw loop": {"task": "work_raw"},
                "stub by hand": {"task": "work_stub"},
                "lists": {"task": "work_library", "how": "lists"},
                "lists, stub": {"task": "work_library", "how": "lists", "transport": "stub"},
                "submit": {"task": "work_library", "how": "submit"},
                "publish_from": {"task": "work_library", "how": "iterate"},
            }
            if size == 100:
                for threads in (4, 16):
                    peers[f"lists, {threads} threads"] = {"task": "work_library", "how": "lists", "threads": threads}
            steps += [_step(self._rate, rates, f"{name}: {peer}", {**order, **what}) for peer, what in peers.items()]
            if self._pyensign:
                steps.append(_step(self._official, rates, f"{name}: pyensign", size, number // 4))
        order = {"size": 100, "number": self._number // 10, "window": WINDOW}
        alone = {"raw loop": {"task": "work_raw_singly"}, "publish": {"task": "work_library", "how": "singly"}}
        for peer, what in alone.items():
            steps.append(_step(self._latency, rates, f"one at a time: {peer}", {**order, **what}))
        random.shuffle(steps)
        for step in steps:
            step()
        self._ratios(rates)

    def _rate(self, rates: Dict[str, float], name: str, order: Dict[str, Any]) -> None:
        answer = self._do(order)
        done = order["number"] // order.get("threads", 1) * order.get("threads", 1)
        rates[name] = self.report.add(name, "events/s", done / (answer["end"] - answer["begin"]))
        self.report.add(f"{name}, processor", "us/event", answer["cpu"] / done * 1e6)
        self.report.add(f"{name}, most memory", "MiB", answer["rss"])

    def _latency(self, rates: Dict[str, float], name: str, order: Dict[str, Any]) -> None:
        answer = self._do(order)
        rates[name] = self.report.add(f"{name}, p50", "us", answer["p50"])
        self.report.add(f"{name}, p99", "us", answer["p99"])

    def _do(self, order: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {name: value for name, value in order.items() if name != "task"}
        token = self._login if order["task"] == "work_library" else self._token
        worker = Worker(self._cpu)
        try:
            (answer,) = together((worker, order["task"], {"endpoint": self._endpoint, "token": token, **arguments}))
        finally:
            worker.close()
        return answer

    def _official(self, rates: Dict[str, float], name: str, size: int, number: int) -> None:
        program = str(Path(__file__).resolve().parent / "pyensign_publish.py")
        command = [self._pyensign, program, self._endpoint, str(size), str(number)]
        with on_cpu(self._cpu):
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        rates[name] = self.report.add(name, "events/s", number / json.loads(done.stdout)["seconds"])

    def _ratios(self, rates: Dict[str, float]) -> None:
        for name in SIZES:
            goals: Dict[str, Any] = {"lists": at_least(0.8), "submit": at_least(0.6), "publish_from": None}
            for how, goal in goals.items():
                ratio = rates[f"{name}: {how}"] / rates[f"{name}: raw loop"]
                self.report.add(f"{name}: {how} / raw loop", "", ratio, goal)
            ratio = rates[f"{name}: lists, stub"] / rates[f"{name}: stub by hand"]
            self.report.add(f"{name}: lists, stub / stub by hand", "", ratio, at_least(0.9))
            if self._pyensign:
                ratio = rates[f"{name}: lists"] / rates[f"{name}: pyensign"]
                self.report.add(f"{name}: lists / pyensign", "", ratio, at_least(8) if name == "100 B" else None)
        ratio = rates["one at a time: publish"] / rates["one at a time: raw loop"]
        self.report.add("one at a time: publish / raw loop, p50", "", ratio, Goal(1.25, False))


def _step(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure publishing.")
    parser.add_argument("--peer", metavar="ADDRESS", help="a server without authentication that has the topic bench")
    parser.add_argument("--runs", type=int, default=5, help="how many rounds (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer events: rough")
    parser.add_argument("--cores", type=int, choices=(1, 2), help="pin the clients to one processor, or not (2)")
    parser.add_argument("--json", metavar="FILE", help="write every value")
    parser.add_argument("--pyensign", metavar="PYTHON", default="", help="one that has the official client")
    args = parser.parse_args()
    if args.pyensign and not args.peer:
        parser.error("--pyensign needs --peer: the official client is measured without authentication")
    return args


def main() -> int:
    """Measure, and print the table."""
    args = _arguments()
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        endpoint, token, login = args.peer, "", ""
        if not endpoint:
            from raw import authenticate

            with on_cpu(0 if args.cores == 1 else None):
                node = stack.enter_context(Node(topics=["bench"], faults=False, process=True))
            endpoint = node.endpoint
            token = authenticate(node.auth_url, node.client_id, node.client_secret)
            key = {"auth_url": node.auth_url, "client_id": node.client_id, "client_secret": node.client_secret}
            login = json.dumps(key)
        bench = Bench(endpoint, token, login, args.cores, 4_000 if args.quick else 40_000, args.pyensign)
        for n in range(args.runs):
            print(f"[{time.monotonic() - begin:5.1f} s] round {n + 1} of {args.runs}", file=sys.stderr, flush=True)
            bench.round()
    peer, seconds = "given" if args.peer else "node", round(time.monotonic() - begin, 1)
    bench.report.publish(args.json, cores=args.cores, peer=peer, runs=args.runs, seconds=seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
