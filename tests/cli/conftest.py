"""The command line as its users have it: processes, and calls of main() with an environment."""

import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
#: Generous: a machine that is busy with other things may take long to start Python.
LIMIT = 60.0


class Program:
    """A command in a process of its own; its lines are read as they come."""

    def __init__(self, *arguments, env, stdin=None, options=()):
        """Start ``python -m ensign_sync`` with the arguments; warnings are errors in it as well."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job, and a child would inherit it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "ensign_sync", *arguments],
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **dict(options),
        )
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def finish(self):
        """Wait for the end; returns the exit code."""
        code = self.process.wait(LIMIT)
        self.out.finish()
        self.err.finish()
        return code

    def interrupt(self):
        """Press Ctrl-C and wait for the end; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()


class Lines:
    """The lines of a pipe."""

    def __init__(self, pipe):
        self.seen = []
        self._pipe = pipe
        self._queue = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self._pipe:
            self._queue.put(line.decode("utf-8").rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text=""):
        """Return the next line that holds the text; fails when there is none."""
        while True:
            line = self._queue.get(timeout=LIMIT)
            assert line is not None, f"no line with {text!r} in {self.seen}"
            self.seen.append(line)
            if text in line:
                return line

    def finish(self):
        """Read the rest, up to the end of the pipe."""
        self._thread.join(LIMIT)
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.seen.append(line)
        self._pipe.close()


@pytest.fixture
def bare_env():
    """An environment without any setting of Ensign."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENSIGN_", "GRPC_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def start(bare_env):
    """Start commands, and end those that a failed test leaves."""
    started = []

    def start_one(*arguments, env=None, stdin=None, **options):
        program = Program(*arguments, env={**bare_env, **(env or {})}, stdin=stdin, options=options)
        started.append(program)
        return program

    yield start_one
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
        program.finish()
        if program.process.stdin is not None:
            program.process.stdin.close()


@pytest.fixture
def call(monkeypatch, capfdbinary):
    """Call main() in this process; returns exit code, stdout and stderr."""
    from ensign_sync.cli import main

    for name in [name for name in os.environ if name.startswith("ENSIGN_")]:
        monkeypatch.delenv(name)

    def call_main(*arguments, env=None):
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = main(arguments)
        out, err = capfdbinary.readouterr()
        return code, out.decode("utf-8"), err.decode("utf-8")

    return call_main
