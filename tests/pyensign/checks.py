"""The official asyncio client against the node: each program in a process of its own, the node in another.

Run by ``tox -e pyensign``, which installs both packages into one environment and names this file. Its name keeps it out
of other test runs: they do not have the official client.
"""

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from tests.pyensign.recorder import Recorder

HERE = pathlib.Path(__file__).parent
#: How long a process may take, in seconds. The programs have shorter limits of their own, and say what hangs.
LIMIT = 45.0
STRICT, FRIENDLY = "strict", "friendly"
OPTIONS = {STRICT: ["--strict"], FRIENDLY: []}


def environment(**more):
    """Return the variables for a process: no settings but those given, no proxy, and one time zone."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ENSIGN_", "GRPC_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "TZ": "UTC", **more}  # the official client tells times without their zone


class NodeProcess:
    """``ensign-sync serve`` as it is installed; a context manager that ends it, and fails if it did not end well.

    Attributes:
        env: The variables by which clients find it.
    """

    def __init__(self, folder, *options):
        """Start it, and wait until it is ready. What it says on stderr goes to a file in the folder."""
        self._notes = folder / "node.txt"
        with self._notes.open("wb") as notes:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", str(HERE / "serve.py"), *options],
                env=environment(),
                cwd=str(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=notes,
            )
        try:
            self.env = json.loads(self._first_line())
        except BaseException:  # Ctrl-C as well: nobody else would end it
            self._process.kill()
            self._end()
            raise

    def _first_line(self):
        patience = threading.Timer(LIMIT, self._process.kill)
        patience.start()
        try:
            line = self._process.stdout.readline()
        finally:
            patience.cancel()
        assert line, f"the node did not start:\n{self._notes.read_text()}"
        return line

    def _end(self):
        try:
            return self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(LIMIT)
        finally:
            self._process.stdin.close()
            self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        code = self._end()
        notes = self._notes.read_text()
        assert (code, "Traceback" in notes) == (0, False), f"the node ended with {code}:\n{notes}"


def run(program, env):
    """Run a program; fails with what it said unless it ends well and in time."""
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "programs.py"), program],
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as hung:
        pytest.fail(f"{program} hangs:\n{(hung.stdout or b'').decode()}", pytrace=False)
    if done.returncode:
        pytest.fail(f"{program} ended with {done.returncode}:\n{done.stdout.decode()}", pytrace=False)


@pytest.fixture(scope="module", params=OPTIONS)
def node(request, tmp_path_factory):
    """A node of each kind, for all programs in turn."""
    with NodeProcess(tmp_path_factory.mktemp(request.param), *OPTIONS[request.param]) as running:
        yield running


@pytest.mark.parametrize("program", "status topics pages publish subscribe query info".split())
def test_program(node, program):
    """The official client does what it is asked for, on both kinds of node."""
    run(program, node.env)


def test_counts(tmp_path):
    """The friendly node's counts follow what the official client publishes."""
    with NodeProcess(tmp_path, *OPTIONS[FRIENDLY]) as running:
        run("counts", running.env)


@pytest.mark.parametrize("kind", OPTIONS)
def test_refresh(kind, tmp_path):
    """The official client authenticates once; each later token it gets by the refresh token of the one before."""
    options = [*OPTIONS[kind], "--access-duration", "3"]
    with NodeProcess(tmp_path, *options) as running, Recorder(running.env["ENSIGN_AUTH_URL"]) as recorder:
        run("refresh", {**running.env, "ENSIGN_AUTH_URL": recorder.url})
    first, later = recorder.exchanges[0], recorder.exchanges[1:]
    assert first.path == "/v1/authenticate"
    assert len(later) >= 2  # one for each expiry, and another if the machine was held up until the next
    assert {said.path for said in later} == {"/v1/refresh"}
    assert {said.status for said in recorder.exchanges} == {200}
    for before, after in zip(recorder.exchanges, later):
        assert after.request == {"refresh_token": before.reply["refresh_token"]}
    assert len({said.reply["access_token"] for said in recorder.exchanges}) == len(recorder.exchanges)
