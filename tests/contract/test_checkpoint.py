"""Going on where a program ended: nothing is missed, and what was acknowledged does not come again."""

import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

from ensign_sync import CheckpointError, FileCheckpoint
from ensign_sync.nack import DELIVER_AGAIN_ANY, UNPROCESSED
from ensign_sync.node import Node
from tests.size import by_size
from tests.waiting import eventually

LIMIT = 60.0


def numbered(count, start=0):
    """Return so many events that can be told apart."""
    return [b"%d" % n for n in range(start, start + count)]


def take(subscription, count):
    """Return the next events."""
    return [subscription.get(LIMIT) for _ in range(count)]


def data(events):
    """Return what is in events."""
    return [event.data for event in events]


class TestResuming:
    """One subscription after the other with the same checkpoint."""

    def test_behind_the_last_acknowledgement(self, client, tmp_path):
        """What was acknowledged does not come again; what was only delivered does."""
        client.publish("weather", numbered(10))
        place = str(tmp_path / "place")
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            for event in take(sub, 6)[:4]:
                event.ack()
        with client.subscribe("weather", checkpoint=place) as sub:
            assert data(take(sub, 6)) == numbered(6, 4)

    def test_out_of_order(self, client, tmp_path):
        """Acknowledgements beyond one that is missing are remembered."""
        client.publish("weather", numbered(10))
        place = tmp_path / "place"
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            for n, event in enumerate(take(sub, 8)):
                if n not in (1, 5):
                    event.ack()
        for _ in range(2):
            with client.subscribe("weather", checkpoint=place) as sub:
                assert data(take(sub, 4)) == [b"1", b"5", b"8", b"9"]

    def test_latest_is_a_place_too(self, client, tmp_path):
        """What comes while nobody is there is delivered, although nothing was ever acknowledged."""
        client.publish("weather", numbered(3))
        place = str(tmp_path / "place")
        client.subscribe("weather", start="latest", checkpoint=place).close()
        client.publish("weather", numbered(3, 3))
        with client.subscribe("weather", start="latest", checkpoint=place) as sub:
            assert data(take(sub, 3)) == numbered(3, 3)

    def test_an_empty_topic(self, client, tmp_path):
        """The same where there was nothing at all."""
        place = str(tmp_path / "place")
        client.subscribe("weather", start="latest", checkpoint=place).close()
        client.publish("weather", numbered(3))
        with client.subscribe("weather", start="latest", checkpoint=place) as sub:
            assert data(take(sub, 3)) == numbered(3)

    def test_one_query_and_no_search(self, client, tmp_path):
        """Going on costs one read of the log."""
        client.publish("weather", numbered(1_000))
        place = str(tmp_path / "place")
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            for event in take(sub, 700):
                event.ack()
        with client.subscribe("weather", checkpoint=place) as sub:
            assert data(take(sub, 300)) == numbered(300, 700)
            assert sub.stats()["reads"] == 1

    def test_refused_for_good_is_done(self, client, tmp_path):
        """A nack that asks for nothing, and the end of redelivery, count as done; one that waits does not."""
        client.publish("weather", numbered(3))
        place = str(tmp_path / "place")
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            first, second, third = take(sub, 3)
            assert first.nack(UNPROCESSED) and second.nack(DELIVER_AGAIN_ANY) and third.ack()
        with client.subscribe("weather", checkpoint=place) as sub:
            assert data(take(sub, 1)) == [b"1"]
            assert sub.stats()["buffered"] == 0

    def test_iteration(self, client, tmp_path):
        """auto_ack: the event whose body was left is not acknowledged, those before it are."""
        client.publish("weather", numbered(5))
        place = str(tmp_path / "place")
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            for event in sub:
                if event.data == b"2":
                    break
        with client.subscribe("weather", checkpoint=place) as sub:
            assert data(take(sub, 3)) == numbered(3, 2)

    def test_several_topics(self, client, tmp_path):
        """Each has its place; a topic that is new to the checkpoint begins as start says."""
        client.create_topic("other")
        client.publish("weather", numbered(4))
        client.publish("other", numbered(4))
        place = str(tmp_path / "place")
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            for event in take(sub, 2):
                event.ack()
        with client.subscribe("weather", "other", start="earliest", checkpoint=place) as sub:
            had = take(sub, 6)
            assert data(e for e in had if e.topic == "weather") == numbered(2, 2)
            assert data(e for e in had if e.topic == "other") == numbered(4)

    def test_a_topic_made_anew_meanwhile(self, client, tmp_path):
        """The new one begins with its first event, and the gap is told."""
        client.publish("weather", numbered(4))
        place, gaps = str(tmp_path / "place"), []
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            take(sub, 1)[0].ack()
        client.destroy_topic("weather")
        client.create_topic("weather")
        client.publish("weather", numbered(2, 100))
        with client.subscribe("weather", checkpoint=place, on_gap=gaps.append) as sub:
            assert data(take(sub, 2)) == numbered(2, 100)
            eventually(lambda: gaps)
        assert gaps[0].certain

    def test_a_query_passes_over_what_it_does_not_want(self, client, tmp_path):
        """Events that the query leaves out are done with."""
        client.publish("weather", [{"n": n} for n in range(10)])
        place, query = str(tmp_path / "place"), "SELECT n FROM weather WHERE n >= 7"
        with client.subscribe("weather", query=query, start="earliest", checkpoint=place) as sub:
            first = sub.get(LIMIT)
            assert first.decode() == {"n": 7} and first.ack()
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            assert [event.decode() for event in take(sub, 2)] == [{"n": 8}, {"n": 9}]


    @pytest.mark.parametrize("start", ["latest", "recent"])
    def test_the_first_state_covers_nothing_that_is_delivered(self, node, client, tmp_path, start):
        """What a kill right after subscribe() leaves goes on before the first event, whoever publishes meanwhile."""
        stop = threading.Event()

        def publish():
            with node.client() as other:
                while not stop.is_set():
                    other.publish("weather", b"x")

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for n in range(by_size(5, 3, 10, 50)):
                place, left = tmp_path / f"place{n}", tmp_path / f"left{n}"
                with client.subscribe("weather", start=start, checkpoint=place) as sub:
                    left.write_bytes(place.read_bytes())
                    first = sub.get(LIMIT)
                with client.subscribe("weather", start=start, checkpoint=left) as sub:
                    assert sub.get(LIMIT).id <= first.id
        finally:
            stop.set()
            publisher.join(LIMIT)

    def test_topics_of_another_subscription_are_kept(self, client, tmp_path):
        """A checkpoint that is used for fewer topics forgets none."""
        client.create_topic("other")
        place = tmp_path / "place"
        client.subscribe("weather", "other", start="latest", checkpoint=place).close()
        client.publish("other", b"meanwhile")
        client.subscribe("weather", start="latest", checkpoint=place).close()
        with client.subscribe("weather", "other", start="latest", checkpoint=place) as sub:
            assert sub.get(LIMIT).data == b"meanwhile"

    @pytest.mark.parametrize("workers", [1, 4])
    def test_what_is_handled_while_it_is_closed(self, client, tmp_path, workers):
        """Its acknowledgement is saved, and ack() does not say so where it is not."""
        client.publish("weather", numbered(8))
        place, busy, go_on = tmp_path / "place", threading.Barrier(workers + 1), threading.Event()
        sub, done = client.subscribe("weather", start="earliest", checkpoint=place), []

        def handle(event):
            busy.wait(LIMIT)
            go_on.wait(LIMIT)
            assert event.ack()
            done.append(event.data)

        thread = threading.Thread(target=sub.run, args=(handle, workers))
        thread.start()
        busy.wait(LIMIT)
        closer = threading.Thread(target=sub.close)
        closer.start()
        eventually(lambda: sub._stream.inbox.closed)
        go_on.set()
        thread.join(LIMIT)
        closer.join(LIMIT)
        assert len(done) == workers
        with client.subscribe("weather", checkpoint=place) as again:
            late = take(again, 8 - workers)
            assert not set(data(late)) & set(done)
        assert not late[0].ack() and not late[0].acked()

    def test_a_limit(self, client, tmp_path):
        """What lies beyond the limit of a query is not done with, however it is taken."""
        client.publish("weather", [{"n": n} for n in range(9)])
        had = []
        for _ in range(3):
            query = "SELECT * FROM weather LIMIT 3"
            with client.subscribe(query=query, start="earliest", checkpoint=tmp_path / "place") as sub:
                while len(had) % 3 or not had or sub.stats()["delivered"] == 0:
                    for event in sub.get_batch(10, LIMIT):
                        had.append(event.decode()["n"])
                        event.ack()
        assert had == list(range(9))

    def test_a_save_that_closes_the_subscription(self, client):
        """It does not wait for itself."""
        kept = Kept(0.05)
        client.publish("weather", b"x")
        sub = client.subscribe("weather", start="earliest", checkpoint=kept)
        save = kept.save

        def close_and_save(mapping):
            sub.close()
            save(mapping)

        kept.save = close_and_save
        sub.get(LIMIT).ack()
        eventually(lambda: kept.times >= 2)
        client.close()


class Kept:
    """A checkpoint of the program's own."""

    def __init__(self, interval=None):
        self.saved, self.times = {}, 0
        if interval is not None:
            self.interval = interval

    def load(self):
        """Return what was saved."""
        return json.loads(json.dumps(self.saved))

    def save(self, mapping):
        """Save."""
        self.saved, self.times = json.loads(json.dumps(mapping)), self.times + 1


class TestOwnObjects:
    """Anything that has load and save."""

    @pytest.mark.parametrize("interval", [None, 0, 0.05])
    def test_it_is_saved(self, client, interval):
        """Now and then and at close, or with each acknowledgement; what JSON can hold."""
        client.publish("weather", numbered(6))
        kept = Kept(interval)
        with client.subscribe("weather", start="earliest", checkpoint=kept) as sub:
            for n, event in enumerate(take(sub, 4)):
                event.ack()
                if interval == 0:
                    assert kept.saved["topics"]["weather"]["row"] >= n
            if interval == 0.05:
                eventually(lambda: kept.times >= 2)
        assert kept.times <= 8
        with client.subscribe("weather", checkpoint=kept) as sub:
            assert data(take(sub, 2)) == numbered(2, 4)

    def test_saving_fails(self, client, caplog):
        """At an acknowledgement the program is told; by and by it is logged, and tried again."""
        client.publish("weather", numbered(2))
        kept = Kept(0)
        with client.subscribe("weather", start="earliest", checkpoint=kept) as sub:
            event = sub.get(LIMIT)
            kept.save = None
            with pytest.raises(TypeError):
                event.ack()
            del kept.save
        with client.subscribe("weather", checkpoint=kept) as sub:
            assert sub.get(LIMIT).data == b"1"

    def test_what_load_returns_is_looked_at(self, client):
        """Rubbish is an error that says so, not a new beginning."""
        for saved in ({"format": 7}, {"a": 1}, {"format": 1, "topics": {"weather": {"row": -7}}}, [1], "x"):
            kept = Kept()
            kept.saved = saved
            with pytest.raises(CheckpointError, match="checkpoint"):
                client.subscribe("weather", checkpoint=kept)


class TestFile:
    """The file itself."""

    def use(self, client, place, count=3):
        """Acknowledge some events."""
        with client.subscribe("weather", start="earliest", checkpoint=place) as sub:
            for event in take(sub, count):
                event.ack()

    def test_on_file_before_ack_returns(self, client, tmp_path):
        """Each acknowledgement, in text that can be read."""
        client.publish("weather", numbered(5))
        place = tmp_path / "place"
        with client.subscribe("weather", start="earliest", checkpoint=str(place)) as sub:
            events = take(sub, 5)
            for event, after in zip(events, events[1:]):
                event.ack()
                assert str(after.id) in place.read_text()
        assert place.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 2000, b"something else entirely\n"])
    def test_a_foreign_file(self, client, tmp_path, content):
        """It is refused and not touched."""
        place = tmp_path / "place"
        place.write_bytes(content)
        with pytest.raises(CheckpointError, match="no checkpoint"):
            client.subscribe("weather", checkpoint=str(place))
        assert place.read_bytes() == content

    def test_damage(self, client, tmp_path):
        """One slot may be torn; where none is whole the file is refused. Any byte may be the one that changed."""
        client.publish("weather", numbered(9))
        place = tmp_path / "place"
        self.use(client, place)
        whole = place.read_bytes()
        rng = random.Random(5)
        for _ in range(by_size(20, 20, 60, 400)):
            broken = bytearray(whole)
            broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            place.write_bytes(broken)
            checkpoint = FileCheckpoint(place)
            try:
                state = checkpoint.load()
            except CheckpointError:
                continue
            finally:
                checkpoint.release()
            assert state["topics"]["weather"]["row"] >= 1, "an older state than the last but one"
        lines = whole.split(b"\n")
        place.write_bytes(b"\n".join([lines[0], *(line.replace(b"floor", b"flour") for line in lines[1:])]))
        with pytest.raises(CheckpointError, match="damaged"):
            client.subscribe("weather", checkpoint=place)
        place.write_bytes(whole[: len(whole) // 4])
        with pytest.raises(CheckpointError):
            client.subscribe("weather", checkpoint=place)

    def test_one_at_a_time(self, client, tmp_path):
        """A second subscription is refused while the first has the file, here and in another process."""
        place = str(tmp_path / "place")
        with client.subscribe("weather", checkpoint=place):
            with pytest.raises(CheckpointError, match="in use"):
                client.subscribe("weather", checkpoint=place)
            program = "import sys; from ensign_sync import FileCheckpoint; FileCheckpoint(sys.argv[1]).load()"
            result = subprocess.run([sys.executable, "-c", program, place], stderr=subprocess.PIPE, timeout=LIMIT)
            assert b"in use" in result.stderr
        client.subscribe("weather", checkpoint=place).close()

    def test_it_grows(self, tmp_path):
        """A state that does not fit into its slot gets a larger one; the file is whole at every moment."""
        place = tmp_path / "place"
        checkpoint = FileCheckpoint(place, fsync=True)
        assert checkpoint.load() == {}
        for n in range(40):
            state = {"n": n, "ids": ["x" * 16] * (n * n)}
            checkpoint.save(state)
            checkpoint.release()
            checkpoint = FileCheckpoint(place)
            assert checkpoint.load() == state
        checkpoint.release()

    def test_old_slots_do_not_count(self, tmp_path):
        """Where both present slots are damaged, the file is, whatever it held before it grew."""
        place = tmp_path / "place"
        checkpoint = FileCheckpoint(place)
        for n in range(40):
            checkpoint.save({"n": n, "ids": ["x" * 16] * n})
        checkpoint.release()
        content = bytearray(place.read_bytes())
        for offset in (n for n in range(len(content)) if content[n : n + 1] == b"#"):
            content[offset + 40] ^= 1
        place.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            FileCheckpoint(place).load()

    def test_a_forked_child_does_not_keep_it(self, tmp_path):
        """The file is free when the parent lets go of it, although a child lives on."""
        place = tmp_path / "place"
        program = (
            "import os, sys, time\n"
            "from ensign_sync import FileCheckpoint\n"
            "mine = FileCheckpoint(sys.argv[1]); mine.save({'a': 1})\n"
            "child = os.fork()\n"
            "if not child: time.sleep(60)\n"
            "mine.release(); print(FileCheckpoint(sys.argv[1]).load()); os.kill(child, 9); os.wait()\n"
        )
        result = subprocess.run([sys.executable, "-c", program, str(place)], stdout=subprocess.PIPE, timeout=LIMIT)
        assert result.stdout == b"{'a': 1}\n"

    def test_it_cannot_be_written(self, client, tmp_path):
        """The error names the file."""
        with pytest.raises(CheckpointError, match="cannot be written"):
            client.subscribe("weather", checkpoint=str(tmp_path / "no folder" / "place"))


PROGRAM = """
import sys
from ensign_sync import Ensign
client = Ensign()
for event in client.subscribe("weather", start="earliest", checkpoint=sys.argv[1], max_buffered=64):
    print(event.data.decode(), flush=True)  # the body: what is printed is done
"""


def test_killed_at_any_moment(tmp_path):
    """A program that is killed with SIGKILL misses nothing; at most the event that was in its hands comes again."""
    kills, rng = by_size(5, 2, 8, 50), random.Random(17)
    place, done, again = str(tmp_path / "place"), [], 0
    with Node(topics=["weather"], process=True) as node, node.client() as client:
        stop = threading.Event()

        def publish():
            n = 0
            while not stop.is_set():
                client.publish("weather", numbered(20, n))
                n += 20

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for kill in range(kills + 1):
                program = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, place],
                    env={**os.environ, **node.env()},
                    stdout=subprocess.PIPE,
                    universal_newlines=True,
                )
                had = []
                try:
                    for _ in range(rng.randrange(1, 400)):
                        had.append(int(program.stdout.readline()))
                    if kill == kills:
                        stop.set()
                        publisher.join(LIMIT)
                        count = len(node.events("weather"))
                        while not had or had[-1] < count - 1:
                            had.append(int(program.stdout.readline()))
                finally:
                    program.send_signal(signal.SIGKILL)
                    had += map(int, program.stdout.read().split("\n")[:-1])
                    program.wait()
                    program.stdout.close()
                repeated = 0 if not done else done[-1] + 1 - had[0]
                assert repeated in (0, 1), f"after {done[-1]} came {had[0]}"
                assert had == list(range(had[0], had[0] + len(had)))
                again += repeated
                done += had[repeated:]
        finally:
            stop.set()
            publisher.join(LIMIT)
        assert done == list(range(count))
    print(f"{kills} kills, {count} events, {again} came again")


def test_a_save_that_is_interrupted(client):
    """Acknowledged again, the event is saved, although it is no news."""

    class Interrupted:
        interval = 0.0

        def __init__(self):
            self.saved, self.interrupt = [], False

        def load(self):
            return {}

        def save(self, mapping):
            if self.interrupt:
                self.interrupt = False
                raise KeyboardInterrupt
            self.saved.append(mapping)

    client.publish("weather", b"one")
    checkpoint = Interrupted()
    with client.subscribe("weather", start="earliest", checkpoint=checkpoint) as sub:
        event = sub.get(30)
        before = list(checkpoint.saved)
        checkpoint.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            sub.ack(event)
        assert checkpoint.saved == before
        assert sub.ack(event)
        assert len(checkpoint.saved) == len(before) + 1
