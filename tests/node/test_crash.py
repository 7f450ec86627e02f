"""SIGKILL at random moments, with publishers at work: what was acknowledged is there, in order, and nothing is torn."""

import contextlib
import random
import sqlite3
import threading
from collections import deque

import grpc
import pytest

from ensign_sync.ack import Ack
from ensign_sync.node import Node
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, methods
from tests.node import ledger
from tests.node.ledger import Account, Row
from tests.node.raw import Raw, RawStream, event, opening
from tests.size import by_size
from tests.waiting import eventually

#: Hardly depends on the Python below it.
pytestmark = pytest.mark.ends

KILLS = by_size(2, 1, 6, 50)
#: What a publisher has on its way at once.
WINDOW = 64
#: A node lives at most so long before it is killed, once it works.
LONGEST_LIFE = 0.5
TOPICS = ("one", "two")


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "friendly"])
def test_acknowledged_events_survive_kills(strict, tmp_path):
    """Two publishers that send again and two that never do, over SIGKILLs: every ack was true, nothing is invented."""
    seed = random.randrange(2**32)
    path, moments = str(tmp_path / "data.db"), random.Random(seed)
    kills, stop = Kills(), threading.Event()
    with Node(path=path, topics=TOPICS, strict=strict, process=True, faults=False) as node:
        publishers = [kind(node, topic, kills, stop) for kind in (Persistent, Careless) for topic in TOPICS]
        for publisher in publishers:
            publisher.thread.start()
        try:
            # A kill may strike while nothing is unanswered; one that does not has to be among them.
            while kills.done < KILLS or (not kills.in_the_middle and kills.done < KILLS + 20):
                strike(node, publishers, kills, moments)
                copy = ledger.copy_of(path, str(tmp_path))
                assert ledger.integrity(copy) == "ok"
                node.restart()
            wait_for_progress(publishers)
        finally:
            stop.set()
            for publisher in publishers:
                publisher.thread.join(60)
        check_on(publishers)
        assert not any(publisher.thread.is_alive() for publisher in publishers)
        with node.client() as client:
            served = {topic: [row.data for row in client.query(f"SELECT * FROM {topic}")] for topic in TOPICS}
    assert ledger.integrity(path) == "ok"
    stored = ledger.read(path)
    print(f"\n{'strict' if strict else 'friendly'}, seed {seed}: {figures(kills, publishers, stored)}")
    for topic in TOPICS:
        wrong = ledger.disagreements(stored[topic], [p.account for p in publishers if p.topic == topic])
        assert not wrong, wrong[:20]
        assert served[topic] == [b"%s %d" % (row.publisher.encode(), row.number) for row in stored[topic]]
    ids = [row.id for topic in TOPICS for row in stored[topic]]
    assert len(ids) == len(set(ids)), "no two events of the node have the same id"
    assert sum(map(ledger.count_copies, stored.values())) <= sum(publisher.resent for publisher in publishers)
    assert kills.in_the_middle > 0, "a kill that hits nothing proves nothing"


def figures(kills, publishers, stored):
    """Return what happened, in numbers."""
    acked = {(p.account.name, number) for p in publishers for number in p.account.acked}
    there = {(row.publisher, row.number) for rows in stored.values() for row in rows}
    return (
        f"{kills.done} kills, {kills.in_the_middle} of them with events unanswered; {len(acked)} events acknowledged,"
        f" {len(there - acked)} stored unacknowledged, {sum(map(ledger.count_copies, stored.values()))} stored twice"
        f" (of {sum(publisher.resent for publisher in publishers)} sent again)"
    )


def test_a_log_without_an_acknowledged_event_fails(tmp_path):
    """The control: one row that is taken out of a file, or out of its order, is found by the same look at it."""
    path = str(tmp_path / "data.db")
    account = Account("Careless-one")
    with Node(path=path, topics=TOPICS, process=True, faults=False) as node, node.client() as client:
        for number in range(20):
            account.most[number] = 1
            client.publish("one", account.data(number))
            account.acked.append(number)
        node.faults.kill()
        copy = ledger.copy_of(path, str(tmp_path))
    assert ledger.disagreements(ledger.read(copy)["one"], [account]) == []
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.execute("DELETE FROM events WHERE key = (SELECT max(key) FROM events)")
        connection.commit()
    found = ledger.disagreements(ledger.read(copy)["one"], [account])
    assert found == ["Careless-one 19 was acknowledged and is not there"]


def rows(*numbers):
    """Return the rows of a publisher p with these events."""
    return [Row(at, bytes([at]), "p", number) for at, number in enumerate(numbers)]


#: 0 to 5 were sent, 3 and 4 perhaps a second time; 0, 1, 3 and 4 were acknowledged.
GOOD = [
    rows(0, 1, 2, 3, 4, 5),
    rows(0, 1, 3, 4),
    rows(0, 1, 3, 4, 3, 4),
    rows(0, 1, 2, 3, 3, 4),
]
BAD = {
    "3 was acknowledged and is not there": rows(0, 1, 2, 4, 5),
    "4 was acknowledged and is not there": rows(0, 1, 2, 3),
    "the positions have a hole": [row for row in rows(0, 1, 2, 3, 4, 5) if row.number != 2],
    "positions have a hole": rows(0, 1, 3, 4)[::-1],
    "the ids do not rise": [row._replace(id=bytes([5])) if row.position == 1 else row for row in rows(0, 1, 3, 4)],
    "the ids do not": [row._replace(id=b"x") for row in rows(0, 1, 3, 4)],
    "p 0 is there 2 times, and may be 1": rows(0, 0, 1, 3, 4),
    "p 3 is there 3 times, and may be 2": rows(0, 1, 3, 3, 3, 4),
    "p 6 is there 1 times, and may be 0": rows(0, 1, 3, 4, 6),
    "the first copies of the events of p are not in order": rows(0, 1, 4, 3, 4),
    "the last copies of the events of p are not in order": rows(0, 1, 3, 4, 3),
    "q never published": [*rows(0, 1, 3, 4), Row(4, b"\x05", "q", 0)],
}


def sent():
    """Return the account of the publisher p."""
    account = Account("p")
    account.most = {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 5: 1}
    account.acked = [0, 1, 3, 4]
    return account


def test_the_check_passes_what_may_be():
    """Events without an ack may be there or not; those that were sent again may be there twice, in order."""
    assert [ledger.disagreements(log, [sent()]) for log in GOOD] == [[]] * len(GOOD)
    assert [ledger.count_copies(log) for log in GOOD] == [0, 0, 2, 1]


@pytest.mark.parametrize("what", BAD)
def test_the_check_finds(what):
    """Each sort of loss, disorder and invention is found."""
    found = ledger.disagreements(BAD[what], [sent()])
    assert any(what in text for text in found), found


def test_the_check_finds_answers_out_of_order():
    """Acks come in the order in which a publisher has sent."""
    account = sent()
    account.acked = [0, 1, 4, 3]
    assert ledger.disagreements(GOOD[0], [account]) == ["p was answered out of order"]


# the crowd


class Kills:
    """How often the node was killed: counted before and after, since an event may be sent in between."""

    def __init__(self):
        self.begun = self.done = self.in_the_middle = 0


class Publisher:
    """Publishes numbered events on a thread until it is told to stop, and keeps account."""

    def __init__(self, node, topic, kills, stop):
        self.node, self.topic, self.kills, self.stop = node, topic, kills, stop
        self.account = Account(f"{type(self).__name__}-{topic}")
        self.error = None
        self.resent = 0
        self.waiting = deque()  # what is on its way
        self.thread = threading.Thread(target=self._guarded, daemon=True)

    def _guarded(self):
        try:
            self.run()
        except BaseException as error:  # raised in the test, see check_on
            self.error = error


class Persistent(Publisher):
    """Publishes with our client, which sends again after a loss what was not acknowledged."""

    def run(self):
        with self.node.client(max_in_flight=WINDOW, timeout=60) as client:
            while not self.stop.is_set():
                number = len(self.account.most)
                before = self.kills.done
                # Until it is known better: any kill to come may find it on its way.
                self.account.most[number] = 1 << 30
                future = client.submit(self.topic, self.account.data(number))
                self.waiting.append((number, before, future))
                while self.waiting[0][2].done():
                    self.settle()
                    if not self.waiting:
                        break
            while self.waiting:
                self.settle()
            self.resent = client.stats()["resent"]

    def settle(self):
        """Note the answer to the oldest event; it may be there once more for each kill while it was on its way."""
        number, before, future = self.waiting[0]
        assert isinstance(future.result(60), Ack)
        self.account.most[number] = 1 + self.kills.begun - before
        self.account.acked.append(number)
        self.waiting.popleft()


class Careless(Publisher):
    """Publishes with raw gRPC, and never sends an event twice."""

    def __init__(self, node, *others):
        super().__init__(node, *others)
        self.raw = Raw(node)  # here, where the node still lives: it fetches a token

    def run(self):
        with self.raw as raw:
            while not self.stop.is_set():
                # A channel that was refused often waits long before it tries again.
                raw.channel.close()
                raw.channel = grpc.insecure_channel(self.node.endpoint)
                stream = RawStream(raw, methods.PUBLISH, codec.decode_publisher_reply)
                stream.send(opening(self.topic))
                ready = stream.take(60)
                if isinstance(ready, frames.Ready):
                    self.publish(stream, ready.topics[self.topic])
                else:
                    self.stop.wait(0.05)
                self.waiting.clear()
                stream.cancel()

    def publish(self, stream, topic_id):
        """Publish until the stream breaks, or until the stop and the last answer."""
        while True:
            while len(self.waiting) < WINDOW and not self.stop.is_set():
                number = len(self.account.most)
                self.account.most[number] = 1
                self.waiting.append(number)
                payload = ledger.encoded(self.account.data(number))
                stream.send(event(topic_id, number.to_bytes(16, "big"), payload))
            if not self.waiting:
                return
            reply = stream.take(60)
            if reply is None:
                return
            assert isinstance(reply, Ack) and reply.id == self.waiting[0].to_bytes(16, "big")
            self.account.acked.append(self.waiting.popleft())


def check_on(publishers):
    """Raise what went wrong in a publisher."""
    for publisher in publishers:
        if publisher.error is not None:
            raise publisher.error


def wait_for_progress(publishers):
    """Wait until every publisher was acknowledged an event."""
    before = [(publisher, len(publisher.account.acked)) for publisher in publishers]

    def all_went_on():
        check_on(publishers)
        return all(len(publisher.account.acked) > count for publisher, count in before)

    eventually(all_went_on, 60)


def strike(node, publishers, kills, moments):
    """Kill the node at a random moment: mostly while all publish, now and then while they still connect."""
    if moments.random() < 0.8:
        wait_for_progress(publishers)
    threading.Event().wait(moments.uniform(0, LONGEST_LIFE))  # the moment is what is random here
    kills.begun += 1
    node.faults.kill()
    kills.done += 1
    kills.in_the_middle += any(publisher.waiting for publisher in publishers)
