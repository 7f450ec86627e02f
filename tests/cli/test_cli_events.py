"""The commands of a client, against a node in this process."""

import csv
import io
import json
import socket
import subprocess
import sys
import time

import pytest

from ensign_sync import Event
from ensign_sync.times import to_rfc3339


@pytest.fixture
def write(tmp_path):
    """Write a file of lines; returns its path."""

    def write_lines(*lines):
        path = tmp_path / "lines"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)

    return write_lines


def data_of(node, topic="weather"):
    """Return what a topic holds."""
    return [event.data for event in node.events(topic)]


def test_status(call, node):
    """Status prints what the server says, and the endpoint."""
    code, out, err = call("status", env=node.env())
    assert (code, err) == (0, "")
    assert out.startswith("status: 1\nversion: ")
    assert out.endswith(f"endpoint: {node.endpoint}\n")


def test_the_options_of_the_connection(call, node):
    """Everything the environment says can be said by options, and they win."""
    options = ["--endpoint", node.endpoint, "--auth-url", node.auth_url, "--insecure", "--timeout", "30"]
    options += ["--client-id", node.client_id, "--client-secret", node.client_secret]
    assert call("status", *options, env={"ENSIGN_ENDPOINT": "localhost:1", "ENSIGN_CLIENT_ID": "x"})[0] == 0


def test_credentials_from_a_file(call, node, tmp_path):
    """--cred-path takes the file that Ensign gives out; the endpoint may be in it."""
    keys = {"ClientID": node.client_id, "ClientSecret": node.client_secret}
    path = tmp_path / "key.json"
    path.write_text(json.dumps({**keys, "Endpoint": node.endpoint, "AuthURL": node.auth_url}))
    code, out, _ = call("status", "--insecure", "--cred-path", str(path))
    assert code == 0
    assert f"endpoint: {node.endpoint}" in out


def test_topics(call, node):
    """A topic is made, listed, archived and destroyed."""
    code, id, _ = call("topics", "create", "rain", env=node.env())
    assert code == 0
    _, out, _ = call("topics", "list", env=node.env())
    heads, first, second = (line.split() for line in out.splitlines())
    assert heads == ["ID", "NAME", "STATE"]
    assert (first[1:], second) == (["weather", "READY"], [id.strip(), "rain", "READY"])
    assert call("topics", "archive", "weather", env=node.env()) == (0, "READONLY\n", "")
    assert call("topics", "destroy", id.strip(), env=node.env()) == (0, "DELETING\n", "")
    assert call("topics", "destroy", "no-such", env=node.env()) == (1, "", "ensign-sync: topic not found: no-such\n")
    assert call("topics", "create", "weather", env=node.env())[0] == 1


def test_policy(call, node):
    """Which events of a topic count as the same; a word that is no strategy is one line."""
    assert call("topics", "policy", "weather", "strict", env=node.env())[0] == 0
    code, out, err = call("topics", "policy", "weather", "unique_key", "--key", "day", "--overwrite", env=node.env())
    assert (code, err) == (0, "") and out in ("READY\n", "PENDING\n")
    code, out, err = call("topics", "policy", "weather", "nonsense", env=node.env())
    assert (code, out) == (2, "")
    assert "nonsense" in err and "unique_key" in err


def test_info(call, node):
    """A line for each topic and the sums; or for the topics that are asked for."""
    with node.client() as client:
        client.create_topic("rain")
        client.publish("rain", b"x", b"y")
    code, out, err = call("info", env=node.env())
    heads, *topics, sums = (line.split() for line in out.splitlines())
    assert (code, err, heads) == (0, "", ["ID", "NAME", "EVENTS", "DUPLICATES", "BYTES"])
    assert {name: events for _, name, events, *_ in topics} == {"rain": "2", "weather": "0"}
    assert sums[:2] == ["2", "0"]
    assert len(call("info", "rain", env=node.env())[1].splitlines()) == 3
    assert call("info", "no-such", env=node.env()) == (1, "", "ensign-sync: topic not found: no-such\n")


def test_bench(call, node):
    """Each way has its line, and the topic that was made for it is gone; one that was named stays."""
    code, out, err = call("bench", "--count", "500", "--size", "10", env=node.env())
    heads, *lines, one = out.splitlines()
    assert (code, err, heads.split()[:2]) == (0, "", ["WHAT", "EVENTS"])
    words = ["published", "published and received", "read from the log", "published one by one"]
    assert [line[:22].strip() for line in lines] == words
    assert one.startswith("one takes ")
    with node.client() as client:
        assert all(topic.name == "weather" or topic.status.name != "READY" for topic in client.get_topics())
    assert call("bench", "--count", "1", "--topic", "weather", env=node.env())[0] == 0
    assert len(list(node.events("weather"))) == 2


def test_publish_lines(call, node, write):
    """A line is an event of text, whatever its newline; empty lines are none."""
    path = write(b"rain", b"", b"  sun ", b"fog\r", "caf\u00e9".encode())
    assert call("publish", "weather", path, env=node.env()) == (0, "", "ensign-sync: 4 events acknowledged\n")
    assert data_of(node) == [b"rain", b"  sun ", b"fog", "caf\u00e9".encode()]
    assert {(event.mimetype, str(event.type)) for event in node.events("weather")} == {(1, "Unknown v0.0.0")}


def test_publish_options(call, node, write):
    """Mimetype, schema and metadata are those of the options, and --create makes the topic."""
    options = ["--mimetype", "text/csv", "--schema", "Weather:1.2.3", "--meta", "city=Seattle", "--meta", "x=a=b"]
    assert call("publish", "new", write(b"a,b"), "--create", *options, env=node.env())[0] == 0
    (event,) = node.events("new")
    assert (event.mimetype, str(event.type), event.meta) == (2, "Weather v1.2.3", {"city": "Seattle", "x": "a=b"})


def test_publish_idempotently(call, node, write):
    """Each event has a key by which it would be found in the log."""
    assert call("publish", "weather", write(b"a", b"b"), "--idempotent", env=node.env())[0] == 0
    assert len({event.meta["ensign-sync-id"] for event in node.events("weather")}) == 2


NO_JSON = {"brace": b"{", "nan": b"NaN", "infinite": b'{"a": 1e999}', "binary": b"\xff", "deep": b"[" * 100_000}


@pytest.mark.parametrize("bad", NO_JSON.values(), ids=NO_JSON.keys())
def test_publish_bad_json(call, node, write, bad):
    """A line that is no JSON is an error that names its number; the lines before it are stored."""
    code, out, err = call("publish", "weather", "--jsonl", write(b'{"a": 1}', b"", b"2", bad, b"3"), env=node.env())
    assert (code, out) == (1, "")
    acknowledged, reason = err.splitlines()
    assert acknowledged == "ensign-sync: 2 events acknowledged"
    assert reason.startswith("ensign-sync: line 4 is not JSON: ")
    assert data_of(node) == [b'{"a": 1}', b"2"]
    assert {event.mimetype for event in node.events("weather")} == {50}


@pytest.mark.parametrize("command", ["publish", "subscribe"])
def test_unknown_topic(call, node, write, command):
    """A topic that does not exist is named in one line, exit code 1."""
    code, out, err = call(command, "no-such", *([write(b"x")] if command == "publish" else []), env=node.env())
    assert (code, out) == (1, "")
    assert "ensign-sync: unknown topic: no-such" in err
    assert "Traceback" not in err


def test_publish_no_file(call, node):
    """A file that does not exist is named in one line, exit code 1."""
    error = "ensign-sync: no-such-file: No such file or directory\n"
    assert call("publish", "weather", "no-such-file", env=node.env()) == (1, "", error)


@pytest.mark.parametrize("command", [["status"], ["query", "SELECT * FROM weather"], ["subscribe", "weather"]])
def test_no_server(call, node, command):
    """Where nobody listens, the command ends with exit code 1 within its timeout and names the address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{held.getsockname()[1]}"
        timeout = "--connect-timeout" if command[0] == "subscribe" else "--timeout"
        begun = time.monotonic()
        code, out, err = call(*command, "--endpoint", endpoint, timeout, "1", env=node.env())
        assert time.monotonic() - begun < 5
    assert (code, out) == (1, "")
    assert endpoint in err
    assert err.count("\n") == 1


def test_query_as_json(call, node, client):
    """A row is an object on a line: data decoded if it is JSON, text if it is UTF-8, else base64."""
    client.publish("weather", Event(b'{"rain": 4.7}', "application/json", "Weather", "1.0.0", {"city": "Seattle"}))
    client.publish("weather", "caf\u00e9", b"\xff\x00", Event(b"{broken", "application/json"))
    code, out, err = call("query", "SELECT * FROM weather", env=node.env())
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    fields = ["id", "topic", "mimetype", "schema", "meta", "created", "committed", "data"]
    assert list(rows[0]) == fields
    assert [row.get("data", row.get("data_base64")) for row in rows] == [{"rain": 4.7}, "caf\u00e9", "/wA=", "{broken"]
    assert list(rows[2]) == [*fields[:-1], "data_base64"]
    first = rows[0]
    assert (first["mimetype"], first["schema"]) == ("application/json", "Weather:1.0.0")
    assert first["meta"] == {"city": "Seattle"}
    assert first["created"].endswith("Z")
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)


def test_query_as_csv(call, node, client):
    """Rows survive the way through CSV, commas, quotes and newlines included."""
    client.publish("weather", 'a, "b"\nc', b"\xff", {"rain": 1})
    code, out, _ = call("query", "SELECT * FROM weather", "--format", "csv", env=node.env())
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0
    assert [(row["data"], row["data_base64"]) for row in rows] == [('a, "b"\nc', ""), ("", "/w=="), ('{"rain": 1}', "")]
    assert rows[2]["mimetype"] == "application/json"


def test_query_as_table(call, node, client, monkeypatch):
    """A row takes one line of the terminal: its data is cut, and nothing in it can play with the terminal."""
    monkeypatch.setenv("COLUMNS", "60")
    client.publish("weather", "x" * 200, "a\nb\x1b[2J", Event(b"1", "text/plain", "Weather", "1.0.0"))
    code, out, _ = call("query", "SELECT * FROM weather", "--format", "table", env=node.env())
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 4)
    assert [len(line) for line in lines[:2]] == [lines[0].index("DATA") + 4, 60]
    assert lines[2].endswith("a b\\x1b[2J")
    assert lines[3].split()[1:] == ["Weather:1.0.0", "1"]


def test_query_without_rows(call, node):
    """No rows are a message and no failure."""
    code, out, err = call("query", "SELECT * FROM weather", env=node.env())
    assert (code, out) == (0, "")
    assert err.startswith("ensign-sync: no rows")


@pytest.mark.parametrize("sql", ["SELECT", "SELECT * FROM weather WHERE a ? 1", ""])
def test_bad_query(call, node, sql):
    """A query that is not valid, or that the server would misunderstand, is one line and exit code 1."""
    code, out, err = call("query", sql, env=node.env())
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_subscribe_formats_and_ends(start, node, client):
    """Events are printed in each format, and the command ends after --count events."""
    formats = {name: start("subscribe", "weather", "--count", "2", "--format", name, env=node.env()) for name in
               ("raw", "json", "pretty")}  # fmt: skip
    for program in formats.values():
        assert program.err.wait_for() == "ensign-sync: subscribed to weather"
    client.publish("weather", "caf\u00e9", {"rain": 1}, "one too many")
    assert [program.finish() for program in formats.values()] == [0, 0, 0]
    assert formats["raw"].out.seen == ["caf\u00e9", '{"rain": 1}']
    assert [json.loads(line)["data"] for line in formats["json"].out.seen] == ["caf\u00e9", {"rain": 1}]
    assert json.loads(formats["json"].out.seen[0])["committed"]
    assert [line for line in formats["pretty"].out.seen if line == "Event:"] == ["Event:"] * 2


def test_subscribe_ends_when_nothing_comes(call, node):
    """--timeout seconds without an event end the command, and that is no failure."""
    assert call("subscribe", "weather", "--timeout", "0.1", env=node.env()) == (
        0,
        "",
        "ensign-sync: subscribed to weather\n",
    )


def test_subscribe_start(call, node, client):
    """From the beginning, from an event or a time; a start that is none is the library's clear error."""
    client.publish("weather", [b"1", b"2", b"3"])
    events = node.events("weather")
    for start, expected in (("earliest", "1"), (str(events[0].id), "2"), (to_rfc3339(events[0].id.time), "1")):
        code, out, _ = call("subscribe", "weather", "--start", start, "--count", "1", env=node.env())
        assert (code, out) == (0, f"{expected}\n")
    code, _, err = call("subscribe", "weather", "--start", "erliest", env=node.env())
    assert code == 1
    assert err.startswith("ensign-sync: start='erliest' is not understood")


def test_subscribe_checkpoint(call, node, client, tmp_path):
    """A second run with the same file goes on behind what the first one printed."""
    client.publish("weather", [b"1", b"2", b"3"])
    options = ("weather", "--start", "earliest", "--checkpoint", str(tmp_path / "place"), "--count")
    assert call("subscribe", *options, "2", env=node.env())[:2] == (0, "1\n2\n")
    assert call("subscribe", *options, "1", env=node.env())[:2] == (0, "3\n")


def test_publish_from_stdin_until_interrupted(start, node, client):
    """Lines of a pipe are published as they come; Ctrl-C ends it with 130, says how many, and shows no traceback."""
    with client.subscribe("weather") as events:
        program = start("publish", "weather", "-", env=node.env(), stdin=subprocess.PIPE)
        program.process.stdin.write(b"first\nsecond\n")
        program.process.stdin.flush()
        assert [events.get(60).data for _ in range(2)] == [b"first", b"second"]
        assert program.interrupt() == 130
    assert len(program.err.seen) == 1
    assert program.err.seen[0].endswith("events acknowledged")


def test_broken_pipe(bare_env, node, client):
    """When the reader of the results has enough, as ``head`` has, the command ends without a word."""
    client.publish("weather", *[Event(b"x" * 20_000, "text/plain") for _ in range(40)])
    command = [sys.executable, "-W", "error", "-m", "ensign_sync", "query", "SELECT * FROM weather"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env={**bare_env, **node.env()}, **pipes) as program:
        assert b"xxx" in program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 0
