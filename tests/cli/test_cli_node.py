"""The commands that start a node: serve and run."""

import json
import os
import shlex
import signal
import sys

from ensign_sync import Ensign

NAMES = "CLIENT_ID CLIENT_SECRET ENDPOINT INSECURE AUTH_URL NO_AUTHENTICATION".split()
VARIABLES = [f"ENSIGN_{name}" for name in NAMES]


def test_lines_through_separate_processes(start, tmp_path):
    """A node, a subscriber, a publisher and a query, each a process: every line arrives once and in order."""
    node = start("serve", "--json", "--topic", "weather")
    env = json.loads(node.out.wait_for("{"))
    assert sorted(env) == sorted(VARIABLES)
    subscriber = start("subscribe", "weather", env=env)
    subscriber.err.wait_for("subscribed to weather")
    lines = [f"line {number}" for number in range(300)]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines))
    publisher = start("publish", "weather", str(path), env=env)
    assert publisher.finish() == 0
    assert publisher.err.seen == ["ensign-sync: 300 events acknowledged"]
    subscriber.out.wait_for(lines[-1])
    assert subscriber.interrupt() == 130
    assert subscriber.out.seen == lines
    assert subscriber.err.seen == ["ensign-sync: subscribed to weather"]
    rows = start("query", "SELECT * FROM weather OFFSET 100 LIMIT 200", env=env)
    assert rows.finish() == 0
    assert [json.loads(row)["data"] for row in rows.out.seen] == lines[100:]
    assert node.interrupt() == 130
    assert not [line for line in node.err.seen if "Traceback" in line]


def test_serve_ends_on_sigterm(start, tmp_path):
    """SIGTERM is the orderly end: exit code 0, and what was stored in the data file is there the next time."""
    data = str(tmp_path / "events.db")
    for number in range(2):
        node = start("serve", "--json", "--data", data, "--topic", "weather")
        with client_of(json.loads(node.out.wait_for("{"))) as client:
            client.publish("weather", f"event {number}")
            assert len(client.query("SELECT * FROM weather").fetchall()) == number + 1
        node.process.send_signal(signal.SIGTERM)
        assert node.finish() == 0
        assert node.err.seen[-1] == "ensign-sync: SIGTERM: ending"


def test_a_second_ctrl_c_ends_serve_at_once(start):
    """The first Ctrl-C gives open streams some seconds to end; the second does not wait for them."""
    node = start("serve", "--json", "--topic", "weather", "--grace", "300")
    with client_of(json.loads(node.out.wait_for("{"))) as client, client.subscribe("weather"):
        node.process.send_signal(signal.SIGINT)
        node.err.wait_for("SIGINT: ending")
        assert node.interrupt() == -signal.SIGINT  # which a shell calls 130
    assert len(node.err.seen) == 3


def test_serve_prints_what_a_shell_can_read(start):
    """Without --json the variables are lines to be exported."""
    node = start("serve")
    words = [shlex.split(node.out.wait_for("export ")) for _ in VARIABLES]
    assert node.interrupt() == 130
    assert sorted(word.split("=")[0] for _, word in words) == sorted(VARIABLES)
    assert {first for first, _ in words} == {"export"}
    assert len(node.out.seen) == 6


def test_serve_refuses(call, tmp_path):
    """A file that is no data file, and a topic that cannot be one, are one line and exit code 1."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to look like none. " * 40)
    for options in (["--data", str(path)], ["--topic", "no spaces"]):
        code, out, err = call("serve", *options)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("ensign-sync: ")


CHILD = """
import sys
from ensign_sync import Ensign
with Ensign() as client:
    print(sorted(topic.name for topic in client.get_topics()), sys.argv[1:])
sys.exit(7)
"""


def test_run(start):
    """The command finds the node by its environment, gets its arguments, and its exit code is returned."""
    program = start("run", "--topic", "a", "--topic", "b", "--", sys.executable, "-c", CHILD, "--topic", "c", "--", "d")
    assert program.finish() == 7
    assert program.out.seen == ["['a', 'b'] ['--topic', 'c', '--', 'd']"]
    assert program.err.seen == []


def test_run_a_command_that_dies_by_a_signal(start):
    """The exit code is then 128 and the number of the signal, as in a shell."""
    program = start("run", sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert program.finish() == 128 + signal.SIGKILL


def test_run_without_such_a_command(call):
    """A command that does not exist is one line and exit code 1."""
    error = "ensign-sync: no-such-command: No such file or directory\n"
    assert call("run", "--", "no-such-command") == (1, "", error)


WAITS = """
import os, signal, sys
def tidy(*_):
    os.write(1, b"tidied up\\n")  # print() may be what was interrupted
    sys.exit(3)
signal.signal(signal.SIGINT, tidy)
print("ready", flush=True)
signal.pause()
"""


def test_ctrl_c_while_a_command_runs(start):
    """Ctrl-C goes to the whole group, as from a terminal; the command ends as it likes, and that is waited for."""
    program = start("run", "--", sys.executable, "-c", WAITS, start_new_session=True)
    program.out.wait_for("ready")
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.finish() == 3
    assert program.out.seen == ["ready", "tidied up"]
    assert program.err.seen == []


def test_sigterm_while_a_command_runs(start):
    """It comes to us alone, and is passed on; the command ends as it likes, and its node is there until then."""
    program = start("run", "--", sys.executable, "-c", WAITS.replace("SIGINT", "SIGTERM"))
    program.out.wait_for("ready")
    program.process.send_signal(signal.SIGTERM)
    assert program.finish() == 3
    assert program.out.seen == ["ready", "tidied up"]


def client_of(env):
    """Return a client of a node by what ``serve --json`` printed."""
    return Ensign(
        env["ENSIGN_CLIENT_ID"],
        env["ENSIGN_CLIENT_SECRET"],
        endpoint=env["ENSIGN_ENDPOINT"],
        auth_url=env["ENSIGN_AUTH_URL"],
        insecure=True,
    )
