"""Measures subscribing with this library against what it could be, in one interleaved run.

    python bench/subscribe.py --peer ADDRESS [--runs N] [--number N] [--rows N] [--cores 1|2] [--json FILE]
                              [--pyensign PYTHON]
    python bench/subscribe.py --node [--runs N]

Its peers do the same work: parse each message, make an event of it, hand it to another thread within a bound,
acknowledge it. They are loops on grpcio's completion queue, and for reading the log grpcio's public call. The peer
must need no authentication; for every subscriber to its topic ``feed_N`` it sends N events as fast as they are taken,
and its topic ``rows_N`` has N events. With ``--node`` what needs no such speed is measured on a node: the time from
publishing to the body of the loop, and what an idle subscription takes.
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
from report import Goal, Report, at_least, below

from ensign_sync.node import Node


class Bench:
    """One run against one server."""

    def __init__(self, endpoint: str, login: str, token: str, cores: Optional[int]) -> None:
        self.report = Report()
        self._endpoint, self._login, self._token = endpoint, login, token
        self._cpu = 1 if cores == 1 else None

    def feed(self, number: int, rows: int, pyensign: str) -> None:
        """Take the rates once, in a new order, then the ratios of this round."""
        rates: Dict[str, float] = {}
        live = {"topic": f"feed_{number}", "number": number}
        log = {"topic": f"rows_{rows}", "number": rows}
        orders: Dict[str, Dict[str, Any]] = {
            "receive: raw loop": {"task": "receive_raw", "ack": False, **live},
            "receive: subscription": {"task": "receive_library", "ack": False, **live},
            "receive: subscription, stub": {"task": "receive_library", "ack": False, "transport": "stub", **live},
            "receive and ack: raw loop": {"task": "receive_raw", "ack": True, **live},
            "receive and ack: subscription": {"task": "receive_library", "ack": True, **live},
            "catch up: raw query": {"task": "read_raw", **log},
            "catch up: subscription": {"task": "catch_up", **log},
        }
        steps: List[Callable[[], None]] = [_step(self._rate, rates, name, order) for name, order in orders.items()]
        if pyensign:
            steps.append(_step(self._official, rates, pyensign, number))
        random.shuffle(steps)
        for step in steps:
            step()
        for what in ("receive", "receive and ack"):
            ratio = rates[f"{what}: subscription"] / rates[f"{what}: raw loop"]
            self.report.add(f"{what}: subscription / raw loop", "", ratio, at_least(0.8))
        ratio = rates["receive: subscription, later half"] / rates["receive: raw loop, later half"]
        self.report.add("receive: subscription / raw loop, later half", "", ratio, at_least(0.8))
        ratio = rates["catch up: subscription"] / rates["catch up: raw query"]
        self.report.add("catch up: subscription / raw query", "", ratio, at_least(0.8))
        if pyensign:
            ratio = rates["receive and ack: subscription"] / rates["receive and ack: pyensign"]
            self.report.add("receive and ack: subscription / pyensign", "", ratio, at_least(8))

    def times(self, number: int) -> None:
        """Take the time of events on their way, and what an idle subscription takes."""
        took: Dict[str, Dict[str, Any]] = {}
        for how in random.sample(["raw", "subscription"], 2):
            took[how] = self._do({"task": "latency", "topic": "bench", "number": number, "how": how})
            for part in ("p50", "p99"):
                self.report.add(f"from publish to the loop: {how}, {part}", "us", took[how][part])
        for part in ("p50", "p99"):
            ratio = took["subscription"][part] / took["raw"][part]
            self.report.add(f"from publish to the loop: subscription / raw, {part}", "", ratio, Goal(1.25, False))
        answer = self._do({"task": "idle", "topic": "bench", "seconds": 20.0})
        self.report.add("idle: processor", "%", answer["share"] * 100, below(0.5))
        self.report.add("idle: queries after the two looks", "", answer["reads"], below(1))

    def _rate(self, rates: Dict[str, float], name: str, order: Dict[str, Any]) -> None:
        answer = self._do(order)
        rates[name] = self.report.add(name, "events/s", answer["rate"])
        rates[f"{name}, later half"] = self.report.add(f"{name}, later half", "events/s", answer["later"])
        self.report.add(f"{name}, processor", "us/event", answer["cpu"] * 1e6)
        self.report.add(f"{name}, most memory", "MiB", answer["rss"])
        if "live" in answer:
            self.report.add("catch up: from the last event to live", "ms", answer["live"] * 1e3)

    def _do(self, order: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {name: value for name, value in order.items() if name != "task"}
        worker = Worker(self._cpu)
        token = self._token if order["task"].endswith("raw") else self._login
        if order["task"] == "latency":
            arguments["token"] = self._token
        try:
            (answer,) = together((worker, order["task"], {"endpoint": self._endpoint, "login": token, **arguments}))
        finally:
            worker.close()
        return answer

    def _official(self, rates: Dict[str, float], pyensign: str, number: int) -> None:
        program = str(Path(__file__).resolve().parent / "pyensign_subscribe.py")
        command = [pyensign, program, self._endpoint, f"feed_{number}", str(number // 10)]
        with on_cpu(self._cpu):
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        name = "receive and ack: pyensign"
        rates[name] = self.report.add(name, "events/s", json.loads(done.stdout)["rate"])


def _step(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure subscribing.")
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--peer", metavar="ADDRESS", help="a server without authentication that feeds its subscribers")
    server.add_argument("--node", action="store_true", help="measure times on a node")
    parser.add_argument("--runs", type=int, default=5, help="how many rounds (default: %(default)s)")
    parser.add_argument("--number", type=int, default=100_000, help="how many events are fed (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many are stored (default: %(default)s)")
    parser.add_argument("--cores", type=int, choices=(1, 2), help="pin the clients to one processor, or not (2)")
    parser.add_argument("--json", metavar="FILE", help="write every value")
    parser.add_argument("--pyensign", metavar="PYTHON", default="", help="one that has the official client")
    return parser.parse_args()


def main() -> int:
    """Measure, and print the table."""
    args = _arguments()
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        endpoint, login, token = args.peer, "", ""
        if args.node:
            from raw import authenticate

            node = stack.enter_context(Node(topics=["bench"], faults=False, process=True))
            endpoint = node.endpoint
            token = authenticate(node.auth_url, node.client_id, node.client_secret)
            key = {"auth_url": node.auth_url, "client_id": node.client_id, "client_secret": node.client_secret}
            login = json.dumps(key)
        bench = Bench(endpoint, login, token, args.cores)
        for n in range(args.runs):
            print(f"[{time.monotonic() - begin:5.1f} s] round {n + 1} of {args.runs}", file=sys.stderr, flush=True)
            if args.node:
                bench.times(2_000)
            else:
                bench.feed(args.number, args.rows, args.pyensign)
    peer, seconds = "node" if args.node else "given", round(time.monotonic() - begin, 1)
    bench.report.publish(args.json, cores=args.cores, peer=peer, runs=args.runs, seconds=seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
