"""The first programs of a newcomer, as programs of their own."""

import json
import os
import subprocess
import sys

import pytest

TUTORIAL = '''
import json
from datetime import datetime
from ensign_sync.ensign import Ensign
from ensign_sync.events import Event

with Ensign({arguments}) as client:
    print(client.status())
    client.ensure_topic_exists("quality-lemon-time")
    events = client.subscribe("quality-lemon-time")
    data = {{"sender": "Twyla", "timestamp": datetime.now().isoformat(), "message": "Let's get this started!"}}
    event = Event(json.dumps(data).encode("utf-8"), mimetype="application/json", schema_name="Generic",
                  schema_version="1.0.0")
    client.publish("quality-lemon-time", event)
    for event in events:
        print(json.loads(event.data)["message"])
        event.ack()
        break

import threading
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
'''


def run(program, env=None):
    """Run a program in a process of its own, warnings being errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ENSIGN_", "GRPC_"))}
    clean.update(env or {})
    clean["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, env=clean, capture_output=True, timeout=60)


def check(result):
    """The message was printed, nothing was complained about, and all ended well."""
    assert result.stderr.decode() == ""
    assert result.returncode == 0
    lines = result.stdout.decode().splitlines()
    assert lines[0] == "status: 1"
    assert lines[1].startswith("version: ")
    assert lines[2].startswith("uptime: seconds: ")
    assert lines[3].startswith("nanos: ")
    assert lines[4:] == ["Let's get this started!"]


def test_embedded():
    """With an embedded node the program prints the message and ends with no thread left."""
    check(run(TUTORIAL.format(arguments='endpoint="embedded:"')))


def test_by_environment(node):
    """With the six variables of a node the same program needs no argument."""
    check(run(TUTORIAL.format(arguments=""), node.env()))


def test_by_credentials_file(node, tmp_path):
    """With a credentials file only the addresses are given."""
    path = tmp_path / "my_project_key.json"
    path.write_text(json.dumps({"ClientID": node.client_id, "ClientSecret": node.client_secret}))
    arguments = f'cred_path={str(path)!r}, endpoint={node.endpoint!r}, insecure=True, auth_url={node.auth_url!r}'
    check(run(TUTORIAL.format(arguments=arguments)))


def test_embedded_endpoint_of_the_environment():
    """ENSIGN_ENDPOINT=embedded: runs any program of one process."""
    check(run(TUTORIAL.format(arguments=""), {"ENSIGN_ENDPOINT": "embedded:"}))


ENDS = {
    "end of file": "",
    "sys.exit": "import sys; sys.exit(0)",
    "unclosed subscription in use": "it = iter(sub); threading.Thread(target=lambda: list(it), daemon=True).start()",
}


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_an_unclosed_client_does_not_hold_the_program_up(end):
    """A program that forgets close() ends, keeps what it submitted, and leaves no traceback."""
    program = f"""
import threading
from ensign_sync import Ensign
client = Ensign(endpoint="embedded:?topics=a")
sub = client.subscribe("a")
future = client.submit("a", b"x")
{ENDS[end]}
"""
    result = run(program)
    assert result.stderr.decode() == ""
    assert result.returncode == 0


def test_importing_imports_and_starts_nothing():
    """Importing the package loads neither gRPC nor requests nor protobuf, and starts no thread."""
    result = run(
        "import sys, threading, ensign_sync, ensign_sync.events, ensign_sync.exceptions, ensign_sync.settings\n"
        "assert not {'grpc', 'requests', 'google.protobuf', 'asyncio'} & set(sys.modules), 'too much'\n"
        "assert threading.active_count() == 1\n"
    )
    assert result.stderr.decode() == ""
    assert result.returncode == 0
