"""Copies of a node's data while it works: whole, private, and to nobody but who has the node's own key."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from ensign_sync import AuthenticationError, NodeError, NodeStorageError
from ensign_sync.node import Node, backup
from ensign_sync.settings import Credentials
from tests.node import ledger
from tests.node.ledger import Account
from tests.size import by_size
from tests.waiting import eventually

pytestmark = pytest.mark.ends

TOPICS = ("one", "two")
BACKUPS = by_size(2, 1, 5, 50)


@pytest.fixture
def environment():
    """An environment without any setting of Ensign."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ENSIGN_", "GRPC_"))}


@pytest.fixture
def command(environment):
    """Run ``ensign-sync`` with arguments; returns exit code, stdout and stderr."""

    def run(*arguments, env=None):
        program = [sys.executable, "-W", "error", "-m", "ensign_sync", *arguments]
        whole = {**environment, **(env or {})}
        ended = subprocess.run(program, env=whole, capture_output=True, timeout=60)
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    return run


@pytest.fixture
def call(monkeypatch, capfd):
    """Run ``ensign-sync`` as a function in this process; returns exit code, stdout and stderr."""
    from ensign_sync.cli import main

    for name in [name for name in os.environ if name.startswith("ENSIGN_")]:
        monkeypatch.delenv(name)

    def run(*arguments, env):
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            code = main(arguments)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def serve(environment):
    """Start ``ensign-sync serve`` on a data file; returns what it says about itself."""
    started = []

    def start(path):
        topics = [word for topic in TOPICS for word in ("--topic", topic)]
        program = [sys.executable, "-m", "ensign_sync", "serve", "--json", "--data", path, *topics]
        process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.append(process)
        return json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        assert process.wait(30) == 0


class Writer:
    """A thread that publishes numbered events to a topic, and keeps account of the acks."""

    def __init__(self, topic, stop, env):
        self.topic, self.account, self.error = topic, Account(f"writer-{topic}"), None
        self._stop, self._env = stop, env
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            with connect(self._env) as client:
                while not self._stop.is_set():
                    start = len(self.account.acked)
                    numbers = range(start, start + 20)
                    self.account.most.update(dict.fromkeys(numbers, 1))
                    client.publish(self.topic, [self.account.data(number) for number in numbers], timeout=60)
                    self.account.acked.extend(numbers)
        except Exception as error:
            self.error = error


def connect(env):
    """Return a client of a node by its environment variables."""
    from ensign_sync import Ensign

    return Ensign(
        env["ENSIGN_CLIENT_ID"],
        env["ENSIGN_CLIENT_SECRET"],
        endpoint=env["ENSIGN_ENDPOINT"],
        insecure=True,
        auth_url=env["ENSIGN_AUTH_URL"],
    )


def with_writers(env, copy_to, folder):
    """Make copies while two writers are at work; returns what was acknowledged before each, and the writers."""
    stop, before = threading.Event(), []
    writers = [Writer(topic, stop, env) for topic in TOPICS]
    try:
        for number in range(BACKUPS):
            counts = [len(writer.account.acked) for writer in writers]
            eventually(lambda then=counts: all(w.error or len(w.account.acked) > n for w, n in zip(writers, then)))
            before.append({writer.topic: list(writer.account.acked) for writer in writers})
            copy_to(str(folder / f"copy-{number}.db"))
    finally:
        stop.set()
        for writer in writers:
            writer.thread.join(60)
    assert [writer.error for writer in writers] == [None, None]
    return before, writers


def assert_good(path, before, writers, final):
    """A copy is one file, private, whole; of each topic it has the beginning, and what was acknowledged before it."""
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(path + "-wal") and not os.path.exists(path + "-journal")
    assert ledger.integrity(path) == "ok"
    copied = ledger.read(path)
    for writer in writers:
        rows = copied[writer.topic]
        assert rows == final[writer.topic][: len(rows)]
        then = Account(writer.account.name)
        then.most, then.acked = writer.account.most, before[writer.topic]
        assert ledger.disagreements(rows, [then]) == []
    return copied


def assert_opens(path, env, copied):
    """A copy is a node of its own: the same key, topics and events, and it goes on from there."""
    with Node(path, strict=False) as node, node.client() as client:
        assert (node.client_id, node.client_secret) == (env["ENSIGN_CLIENT_ID"], env["ENSIGN_CLIENT_SECRET"])
        assert node.topic_names() == sorted(TOPICS)
        for topic in TOPICS:
            assert [bytes(e.id) for e in node.events(topic)] == [row.id for row in copied[topic]]
        client.publish("one", "later 0")
        assert client.query(f"SELECT * FROM one OFFSET {len(copied['one'])}").fetchone().data == b"later 0"
    rows = ledger.read(path)["one"]
    assert rows[:-1] == copied["one"]
    assert rows[-1].id > copied["one"][-1].id


@pytest.mark.parametrize("how", ["key", "file"])
def test_backups_of_a_serving_node(how, serve, command, tmp_path):
    """``ensign-sync backup`` by key over HTTP, and from the data file, with publishers at work."""
    data = str(tmp_path / "data.db")
    env = serve(data)

    def copy_to(path):
        given = ["--data", data] if how == "file" else []
        code, out, err = command("backup", path, *given, env={} if given else env)
        assert (code, out) == (0, ""), err
        assert err == f"ensign-sync: {path}: {os.path.getsize(path)} bytes\n"

    before, writers = with_writers(env, copy_to, tmp_path)
    with connect(env) as client:
        served = {topic: [row.data for row in client.query(f"SELECT * FROM {topic}")] for topic in TOPICS}
    final = ledger.read(ledger.copy_of(data, str(tmp_path)))
    assert {topic: len(rows) for topic, rows in served.items()} == {topic: len(rows) for topic, rows in final.items()}
    sizes = []
    for number, acked in enumerate(before):
        path = str(tmp_path / f"copy-{number}.db")
        copied = assert_good(path, acked, writers, final)
        assert_opens(path, env, copied)
        sizes.append(sum(map(len, copied.values())))
    assert sizes == sorted(set(sizes)), "the node went on in between"
    print(f"\n{how}: copies with {', '.join(map(str, sizes))} of {sum(map(len, final.values()))} events")


@pytest.mark.parametrize("process", [False, True], ids=["here", "process"])
@pytest.mark.parametrize("where", ["file", "memory"])
def test_backups_by_the_node_object(where, process, tmp_path):
    """``Node.backup``, of a file or of a node in memory, in this process or in another."""
    given = str(tmp_path / "data.db") if where == "file" else ":memory:"
    with Node(given, topics=TOPICS, process=process) as node:
        before, writers = with_writers(node.env(), node.backup, tmp_path)
        last = str(tmp_path / "last.db")
        node.backup(last)
        for refused in (last, str(tmp_path / "nowhere" / "copy.db")):
            with pytest.raises(NodeStorageError, match="give the path of a new file"):
                node.backup(refused)
        env = node.env()
    final = ledger.read(last)
    assert [len(final[w.topic]) for w in writers] == [len(w.account.acked) for w in writers]
    for number, acked in enumerate(before):
        path = str(tmp_path / f"copy-{number}.db")
        assert_opens(path, env, assert_good(path, acked, writers, final))


def test_a_file_that_is_there_is_not_overwritten(call, tmp_path):
    """By key or from a file: a target that exists stays as it is, and the error says what to do."""
    data, target = str(tmp_path / "data.db"), tmp_path / "mine"
    target.write_text("precious")
    target.chmod(0o644)
    with Node(data) as node:
        for given, env in (((), node.env()), (("--data", data), {})):
            for path in (str(target), str(tmp_path), str(tmp_path / "nowhere" / "copy")):
                code, out, err = call("backup", path, *given, env=env)
                assert (code, out) == (1, "")
                assert path in err and "new file" in err and "Traceback" not in err
    assert target.read_text() == "precious"
    assert target.stat().st_mode & 0o777 == 0o644


def test_only_the_own_key_gets_a_copy(tmp_path, call):
    """A wrong secret, another key of the node with every permission, and no key at all are refused; nothing is left."""
    target = str(tmp_path / "copy.db")
    with Node(topics=TOPICS) as node:
        other = node.create_api_key()
        wrong = Credentials(node.client_id, "x" + node.client_secret[1:])
        for key in (other, wrong, Credentials("nobody", "nothing")):
            with pytest.raises(AuthenticationError, match="ensign-sync serve"):
                backup.fetch(node.auth_url, key, target)
            env = {**node.env(), "ENSIGN_CLIENT_ID": key.client_id, "ENSIGN_CLIENT_SECRET": key.client_secret}
            code, _, err = call("backup", target, env=env)
            assert code == 1 and "refused the key" in err and key.client_secret not in err
        without = {name: value for name, value in node.env().items() if "CLIENT" not in name}
        code, _, err = call("backup", target, env=without)
        assert code == 1 and "ENSIGN_CLIENT_SECRET" in err
        assert os.listdir(str(tmp_path)) == []
        assert backup.fetch(node.auth_url, Credentials(node.client_id, node.client_secret), target) > 0
    with pytest.raises(NodeError, match="is the node running"):
        backup.fetch(node.auth_url, other, target + ".2")
    assert os.listdir(str(tmp_path)) == ["copy.db"]


def test_a_node_without_room_for_a_copy(tmp_path):
    """Where a copy cannot be made, by the object or over HTTP, the error says so, and nothing is left of it."""
    target = str(tmp_path / "copy.db")
    with Node(topics=TOPICS, process=True) as node, node.client() as client:
        client.publish("one", [bytes(1000)] * 300)
        hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(NodeStorageError, match=r"copy\.db cannot be written: disk I/O error"):
            node.backup(target)
        with pytest.raises(NodeError, match="could not make a copy: .*disk I/O error"):
            backup.fetch(node.auth_url, Credentials(node.client_id, node.client_secret), target)
        assert os.listdir(str(tmp_path)) == []
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (hard, hard))
        node.backup(target)
    assert ledger.integrity(target) == "ok"


def test_copies_of_what_is_no_store(tmp_path):
    """A source that is not there, foreign or damaged is named, not changed, and leaves no target."""
    target = str(tmp_path / "copy.db")
    text, foreign = tmp_path / "text", str(tmp_path / "foreign")
    text.write_text("not a database\n" * 1000)
    subprocess.run([sys.executable, "-c", FOREIGN, foreign], timeout=60)
    contents = {path: open_bytes(path) for path in (str(text), foreign, foreign + "-wal")}
    for source in (str(text), foreign, str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(NodeStorageError, match=os.path.basename(source)):
            backup.copy_file(source, target)
        assert not os.path.exists(target)
    assert {path: open_bytes(path) for path in contents} == contents


def open_bytes(path):
    """Return what is in a file."""
    with open(path, "rb") as file:
        return file.read()


#: A program of somebody else that was killed: what it wrote is still in the write-ahead log.
FOREIGN = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE mine (a)")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_file_of_a_killed_node(tmp_path):
    """What stands in the write-ahead log only is in the copy; the files that the dead node left stay as they are."""
    data, target = str(tmp_path / "data.db"), str(tmp_path / "copy.db")
    with Node(data, topics=TOPICS, process=True) as node, node.client() as client:
        client.publish("one", [f"p {n}" for n in range(100)])
        node.faults.kill()
        left = {suffix: open_bytes(data + suffix) for suffix in ("", "-wal")}
        assert len(left["-wal"]) > 0
        assert backup.copy_file(data, target) == os.path.getsize(target)
        assert {suffix: open_bytes(data + suffix) for suffix in ("", "-wal")} == left
    assert [row.number for row in ledger.read(target)["one"]] == list(range(100))


def test_a_copy_restored_in_the_place_of_the_original(tmp_path):
    """Clients of a node whose file is replaced by a copy go on with their keys; what came after the copy is gone."""
    data, copy = str(tmp_path / "data.db"), str(tmp_path / "copy.db")
    with Node(data, topics=TOPICS) as node, node.client() as client:
        client.publish("one", ["p 0", "p 1"])
        node.backup(copy)
        client.publish("one", "p 2")
        key = node.client_id, node.client_secret
    shutil.copyfile(copy, data)
    with Node(data) as node, node.client(client_id=key[0], client_secret=key[1]) as client:
        client.publish("one", "p 3")
    assert [row.number for row in ledger.read(data)["one"]] == [0, 1, 3]
