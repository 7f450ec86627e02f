"""Measures the embedded node against what its parts could do, in one interleaved run.

    python bench/node.py [--quick] [--runs N] [--json FILE] [--dir DIR] [--server direct|public|both] [--pin]

Every figure is taken once in each round, in a new order each time, and reported as minimum, median and maximum of all
rounds. Figures of different runs do not compare: a shared machine is not the same an hour later. Ratios do, somewhat.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from processes import Worker, on_cpu, resident_mib, span, start_up, together
from raw import authenticate
from report import Report, at_least, below

from ensign_sync.node import Node
from ensign_sync.node.serving import VARIABLE

SIZES = {"100 B": 100, "1 KiB": 1024}
PUBLISHERS = (1, 4)
WINDOW = 1000
SUBSCRIBER_PROCESSES = 2

#: The topics of the prepared file, with how many events they have.
ROWS, MANY = "rows", "many"
ROWS_EVENTS = 100_000


class Effort(NamedTuple):
    """How much is done in one run of each figure."""

    runs: int
    publish: int
    one_at_a_time: int
    append_singly: int
    fan_out: Dict[int, int]  # subscribers -> events, which are fewer than the node keeps for a slow subscriber
    lookups: int
    many: int


FULL = Effort(5, 24_000, 1_000, 1_000, {1: 12_000, 10: 6_000, 100: 1_200}, 50, 1_000_000)
QUICK = Effort(2, 6_000, 300, 300, {1: 4_000, 10: 1_500, 100: 300}, 20, 1_000_000)


class Target(NamedTuple):
    """A node that runs, and what a client needs."""

    node: Node
    server: str
    token: str

    def order(self, **arguments: Any) -> Dict[str, Any]:
        """Return the arguments of a task that talks to this node."""
        return {"endpoint": self.node.endpoint, "token": self.token, **arguments}


class Bench:
    """The processes of a run, and what was measured."""

    def __init__(self, effort: Effort, servers: List[str], folder: str, pin: bool, say: Callable[[str], None]) -> None:
        self.report = Report()
        self._effort, self._servers, self._folder, self._say = effort, servers, folder, say
        self._node_cpu: Optional[int] = 0 if pin else None
        client_cpu = 1 if pin else None
        self._prepared = os.path.join(folder, "prepared.db")
        self._files = 0
        self._stack = contextlib.ExitStack()
        self._clients = [self._worker(client_cpu) for _ in range(max(PUBLISHERS) + SUBSCRIBER_PROCESSES)]
        self._log_alone = self._worker(self._node_cpu)
        self._nothing = self._server("serve_nothing")
        self._nothing_directly = self._server("serve_nothing_directly")

    def close(self) -> None:
        """End the processes."""
        self._stack.close()

    def prepare(self) -> None:
        """Make the file whose events are queried, and with which a node starts."""
        self._say(f"preparing a file of {self._effort.many + ROWS_EVENTS:,} events")
        with self._start(self._prepared, (ROWS, MANY)):
            pass
        sizes = {ROWS: ROWS_EVENTS, MANY: self._effort.many}
        together((self._log_alone, "fill", {"path": self._prepared, "sizes": sizes}))

    def round(self) -> None:
        """Take every figure once."""
        with contextlib.ExitStack() as nodes:
            steps: List[Callable[[], None]] = [self._start_in_process]
            for server in self._servers:
                target = nodes.enter_context(self._fresh(server))
                steps += [_call(self._publish, target, size, n) for size in SIZES for n in PUBLISHERS]
                steps += [_call(self._fan_out, target, n) for n in self._effort.fan_out]
                steps += [_call(self._one_at_a_time, target), _call(self._start_prepared, server)]
            steps += [_call(self._append_batches_and_singly, size) for size in SIZES]
            random.shuffle(steps)
            for step in steps:
                step()

    # publishing and its limits

    def _publish(self, target: Target, size: str, publishers: int) -> None:
        """Publish to the node, then find out what its gRPC server and its log could do each without the other."""
        what = f"publish {size} x{publishers}"
        self._say(f"{what}, {target.server}")
        each = self._effort.publish // publishers
        work = {"size": SIZES[size], "number": each, "window": WINDOW}
        crew = self._clients[:publishers]
        answers = together(*((c, "publish", target.order(topic="bench", **work)) for c in crew))
        node = self.report.add(f"{what}: node, {target.server}", "events/s", each * publishers / span(answers))
        name = f"{what}: processor time of the clients in that, {target.server}"
        self.report.add(name, "s/s", sum(answer["cpu"] for answer in answers) / span(answers))
        commits = len({at for answer in answers for at in answer["committed"]})
        batch = each * publishers / commits
        self.report.add(f"{what}: node, {target.server}, events in a commit", "events", batch)

        name = f"{what}: limit a, public server that does nothing"
        limit_a = self._publish_to_nothing(name, self._nothing, work, crew)
        name = f"{what}: the node's fast server with nothing behind it"
        self._publish_to_nothing(name, self._nothing_directly, work, crew)
        limit_b = self._append(size, self._effort.publish, max(1, round(batch)))
        self.report.add(f"{what}: limit b, log alone in such batches", "events/s", limit_b)
        name = f"{what}: node, {target.server} / smaller limit"
        self.report.add(name, "", node / min(limit_a, limit_b), at_least(0.7))

    def _publish_to_nothing(self, name: str, endpoint: str, work: Dict[str, Any], crew: List[Worker]) -> float:
        idle = {"endpoint": endpoint, "token": "", "topic": ""}
        answers = together(*((client, "publish", {**idle, **work}) for client in crew))
        return self.report.add(name, "messages/s", work["number"] * len(crew) / span(answers))

    def _one_at_a_time(self, target: Target) -> None:
        self._say(f"publish one at a time, {target.server}")
        number = self._effort.one_at_a_time
        order = target.order(topic="bench", size=100, number=number, window=1, warm_up=10)
        answers = together((self._clients[0], "publish", order))
        name = f"publish 100 B, each after the ack of the one before: {target.server}"
        self.report.add(name, "events/s", number / span(answers))

    def _append_batches_and_singly(self, size: str) -> None:
        self._say(f"log alone {size}")
        batches = self._append(size, self._effort.publish, WINDOW)
        singly = self._append(size, self._effort.append_singly, 1)
        self.report.add(f"log {size}: {WINDOW} events in a commit", "events/s", batches)
        self.report.add(f"log {size}: each event in its own commit", "events/s", singly)
        self.report.add(f"log {size}: together / singly", "", batches / singly, at_least(5))

    def _append(self, size: str, number: int, batch: int) -> float:
        path = self._file()
        order = {"path": path, "size": SIZES[size], "number": number, "batch": batch}
        rate = number / span(together((self._log_alone, "append", order)))
        _remove(path)
        return rate

    # reading

    def _fan_out(self, target: Target, subscribers: int) -> None:
        self._say(f"fan-out to {subscribers}, {target.server}")
        number = self._effort.fan_out[subscribers]
        processes = self._clients[-SUBSCRIBER_PROCESSES:][:subscribers]
        share = subscribers // len(processes)
        order = target.order(topic="bench", number=number)
        publish = (self._clients[0], "publish", {**order, "size": 100, "window": WINDOW, "warm_up": 0})
        subscribe = [(process, "subscribe", {**order, "streams": share}) for process in processes]
        answers = together(publish, *subscribe)
        name = f"fan-out to {subscribers:>3}: {target.server}"
        self.report.add(name, "events/s, all subscribers together", number * share * len(processes) / span(answers))

    def _start_prepared(self, server: str) -> None:
        """Start a node with many events, and query it."""
        self._say(f"queries, {server}")
        begin = time.monotonic()
        with self._running(server, self._prepared, ()) as target:
            name = f"start: a process with {self._effort.many:,} stored events, {server}"
            self.report.add(name, "s", time.monotonic() - begin, below(2.0))
            order = target.order(text=f"SELECT * FROM {ROWS}", number=ROWS_EVENTS)
            answers = together((self._clients[0], "query", order))
            self.report.add(f"query of {ROWS_EVENTS:,} rows: {server}", "rows/s", ROWS_EVENTS / span(answers))
            offsets = (0, self._effort.many - 1)
            texts = [f"SELECT * FROM {MANY} OFFSET {offset} LIMIT 1" for offset in offsets]
            order = target.order(texts=texts, number=self._effort.lookups)
            seconds = together((self._clients[0], "lookups", order))[0]["seconds"]
            for offset, took in zip(offsets, seconds):
                self.report.add(f"query OFFSET {offset:,} LIMIT 1: {server}", "ms", took * 1e3)
            self.report.add(f"query OFFSET, far / near: {server}", "", seconds[1] / seconds[0], below(1.5))

    # starting

    def _start_in_process(self) -> None:
        self._say("start in a process")
        took = start_up(self._node_cpu)
        self.report.add("start: Node()", "ms", took["construction"] * 1e3, below(200))
        name = "start: Node() to the client's first ack"
        self.report.add(name, "ms", took["first_ack"] * 1e3, below(500))

    @contextlib.contextmanager
    def _fresh(self, server: str) -> Iterator[Target]:
        """Run a node on a new file; its idle memory is taken on the way."""
        path = self._file()
        with self._running(server, path, ("bench",)) as target:
            resident = resident_mib(target.node.pid)
            if resident is not None:
                self.report.add(f"memory of an idle process: {server}", "MiB", resident, below(60))
            yield target
            loaded = resident_mib(target.node.pid)
            if loaded is not None:
                self.report.add(f"memory of a process after the load: {server}", "MiB", loaded)
        _remove(path)

    @contextlib.contextmanager
    def _running(self, server: str, path: str, topics: Any) -> Iterator[Target]:
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = server
        try:
            node = self._start(path, topics)
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before
        with node:
            yield Target(node, server, authenticate(node.auth_url, node.client_id, node.client_secret))

    def _start(self, path: str, topics: Any) -> Node:
        with on_cpu(self._node_cpu):
            return Node(path, topics=topics, process=True, strict=False, faults=False)

    def _worker(self, cpu: Optional[int]) -> Worker:
        worker = Worker(cpu)
        self._stack.callback(worker.close)
        return worker

    def _server(self, task: str) -> str:
        """Start a process with a server that lives as long as the benchmark; returns its endpoint."""
        worker = self._worker(self._node_cpu)
        worker.say(json.dumps([task, {}]))
        return str(worker.hear()["endpoint"])

    def _file(self) -> str:
        self._files += 1
        return os.path.join(self._folder, f"{self._files}.db")


def _call(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _remove(path: str) -> None:
    for name in Path(path).parent.glob(Path(path).name + "*"):
        name.unlink()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="well under a minute, and rough")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds (default: 5, or 2 with --quick)")
    parser.add_argument("--json", metavar="FILE", help="also write everything there")
    parser.add_argument("--dir", metavar="DIR", help="where data files go: the disk matters (default: that of TMPDIR)")
    servers = ("direct", "public", "both")
    parser.add_argument("--server", choices=servers, default="direct", help="the gRPC server of the node")
    parser.add_argument("--pin", action="store_true", help="the node on processor 0, its clients on processor 1")
    return parser.parse_args()


def main() -> int:
    """Measure, and print the table."""
    args = _arguments()
    effort = QUICK if args.quick else FULL
    runs = args.runs or effort.runs
    servers = ["direct", "public"] if args.server == "both" else [args.server]
    folder = tempfile.mkdtemp(prefix="ensign-bench-", dir=args.dir)
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        bench = Bench(effort, servers, folder, args.pin, say)
        try:
            bench.prepare()
            for n in range(runs):
                say(f"round {n + 1} of {runs}")
                bench.round()
        finally:
            bench.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bench.report.publish(args.json, pinned=args.pin, runs=runs, seconds=round(time.monotonic() - begin, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
