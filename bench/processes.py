"""The processes of a benchmark: started once, given one task after the other."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

_HERE = Path(__file__).resolve().parent
_TASKS = str(_HERE / "tasks.py")
_STARTUP = str(_HERE / "startup.py")

Order = Tuple["Worker", str, Dict[str, Any]]


def environment() -> Dict[str, str]:
    """Return the environment of the processes, which find the package beside this folder as we do."""
    path = os.pathsep.join([str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@contextlib.contextmanager
def on_cpu(cpu: Optional[int]) -> Iterator[None]:
    """Have the processes that are started meanwhile run on one processor; None means on any."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Worker:
    """A process that does the tasks of ``tasks.py``."""

    def __init__(self, cpu: Optional[int]) -> None:
        with on_cpu(cpu):
            self._process = subprocess.Popen(
                [sys.executable, _TASKS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                universal_newlines=True,
                env=environment(),
            )

    def say(self, line: str) -> None:
        """Send an order, or the word to go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> Dict[str, Any]:
        """Wait for an answer; RuntimeError says what failed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: Dict[str, Any] = json.loads(line) if line else {"error": "a process of the benchmark is gone"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def together(*orders: Order) -> List[Dict[str, Any]]:
    """Have tasks done at the same time: none begins before all are ready. Returns their answers."""
    for worker, task, arguments in orders:
        worker.say(json.dumps([task, arguments]))
    for worker, _, _ in orders:
        worker.hear()
    for worker, _, _ in orders:
        worker.say("go")
    return [worker.hear() for worker, _, _ in orders]


def start_up(cpu: Optional[int]) -> Dict[str, float]:
    """Start a node in a fresh process; returns what ``startup.py`` measured."""
    with on_cpu(cpu):
        done = subprocess.run([sys.executable, _STARTUP], stdout=subprocess.PIPE, env=environment(), check=True)
    measured: Dict[str, float] = json.loads(done.stdout)
    return measured


def resident_mib(pid: int) -> Optional[float]:
    """Return how much memory a process has, None where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
    return kib[0] / 1024 if kib else None


def span(answers: Sequence[Dict[str, Any]]) -> float:
    """Return the seconds from the first beginning to the last end."""
    begin: float = min(answer["begin"] for answer in answers if "begin" in answer)
    end: float = max(answer["end"] for answer in answers)
    return end - begin
