"""A subscription against a model of a server that drops, forgets and cuts: the log is delivered, once, in order."""

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.ids import ULID
from ensign_sync.protocol.catchup import CatchUp
from ensign_sync.protocol.catchup_values import AT_THE_END, BEFORE_ALL
from ensign_sync.protocol.frames import Delivery
from tests.size import by_size

BUFFER = 4
INBOX = 3


class Server:
    """A log for each topic, and at most one subscriber, which is told what is published while it is known."""

    def __init__(self, rng, names):
        self.rng = rng
        self.topics = {name: ULID.new().bytes for name in names}
        self.logs = {id: [] for id in self.topics.values()}
        self.milliseconds, self.counter = 1_000, 0
        self.buffer = deque()
        self.known = False
        self.dropped = 0
        self.hidden = set()  # ids that no query returns

    def publish(self, name, hidden=False):
        """Store an event, and put it into the subscriber's buffer if there is room."""
        self.milliseconds += self.rng.choice((0, 0, 1))
        self.counter += 1
        id = self.milliseconds.to_bytes(6, "big") + self.counter.to_bytes(4, "big")
        event = Delivery(id, self.topics[name], b"%d" % self.counter)
        self.logs[event.topic_id].append(event)
        if hidden:
            self.hidden.add(id)
        if self.known and len(self.buffer) < BUFFER:
            self.buffer.append(event)
        elif self.known:
            self.dropped += 1

    def step_within(self, most):
        """Set the clock back, by no more than concerns so many events of each topic."""
        back = self.rng.randrange(1, 30)
        while back:
            now = (self.milliseconds - back).to_bytes(6, "big")
            if all(sum(event.id[:6] >= now for event in log) <= most for log in self.logs.values()):
                break
            back -= 1
        self.milliseconds -= back

    def readable(self, id):
        """Return what queries of a topic show: in the order of the ids."""
        return sorted(event for event in self.logs[id] if event.id not in self.hidden)

    def recreate(self, name):
        """Make a topic anew."""
        id = ULID.new().bytes
        self.topics[name] = id
        self.logs[id] = []

    def restore(self, name):
        """Put back what was there before the last few events."""
        del self.logs[self.topics[name]][-self.rng.randrange(1, 4) :]


class Client:
    """A machine, its inbox, its reads, and a program that consumes."""

    def __init__(self, server, **options):
        self.server = server
        self.machine = CatchUp(server_buffer=BUFFER, overhead=0, **options)
        self.inbox, self.had = deque(), []
        self.connected = False
        self.read, self.rows = None, deque()
        self.queries = 0
        self.looked_back = []

    def connect(self):
        """Open a stream; the server does not know the subscriber at once."""
        self.connected, self.server.known = True, False
        self.server.buffer.clear()
        self.machine.opened(self.server.topics)

    def cut(self):
        """Lose the stream, and what the server had for it."""
        self.connected = self.server.known = False
        self.server.buffer.clear()
        self.machine.lost()

    def receive(self):
        """Take what arrived."""
        if self.connected and self.server.buffer:
            self.machine.live(self.server.buffer.popleft(), len(self.inbox) < INBOX)
            self._take()

    def idle(self, seconds):
        """Nothing arrives for a while, after which the server knows its subscriber; it may have more all the same."""
        if self.connected:
            self.server.known = True
            self.machine.idle(seconds)

    def send(self):
        """Begin a read: it shows the log as it is now."""
        if self.read is None and len(self.inbox) < INBOX:
            self.read = self.machine.next_read()
            if self.read is not None:
                log = self.server.readable(self.read.topic_id)[self.read.offset :]
                self.rows = deque(log[:1] if self.read.alone else log)
                self.queries += 1

    def take_row(self):
        """Take a row of it, or its end."""
        if self.read is None or len(self.inbox) >= INBOX:
            return
        if not self.rows:
            read, self.read = self.read, None
            self.machine.ended(read, True)
        elif not self.machine.row(self.read, self.rows.popleft()):
            self.read = None
        self._take()

    def fail(self):
        """The read breaks off."""
        if self.read is not None:
            read, self.read = self.read, None
            self.machine.ended(read, False)

    def consume(self):
        """Take an event as the program does."""
        if self.inbox:
            self.had.append(self.inbox.popleft())

    def _take(self):
        self.inbox.extend(passed.delivery for passed in self.machine.deliveries)
        self.looked_back += [passed.delivery.id for passed in self.machine.deliveries if passed.looked_back]
        self.machine.deliveries.clear()

    def settle(self):
        """Let everything come to rest."""
        if not self.connected:
            self.connect()
        self.server.known = True
        for seconds in (1, 10, 10):
            for _ in range(20_000):
                before = self._state()
                for act in (self.receive, self.consume, self.send, self.take_row):
                    act()
                if before == self._state():
                    break
            else:
                raise AssertionError("it does not come to rest")
            self.idle(seconds)

    def _state(self):
        return len(self.had), len(self.inbox), len(self.server.buffer), self.queries, self.read, len(self.rows)

    def check(self, ordered=True):
        """Everything that can be read was delivered, once, in the order of each topic."""
        for id in self.server.topics.values():
            mine = [event.id for event in self.had if event.topic_id == id]
            assert len(mine) == len(set(mine)), "twice"
            expected = [event.id for event in self.server.readable(id)]
            mine = [id for id in mine if id in set(expected)]
            assert (mine if ordered else sorted(mine)) == (expected if ordered else sorted(expected))


ACTIONS = ("publish", "publish", "publish", "receive", "receive", "consume", "consume", "send", "take_row", "take_row")
RARE = ("cut", "connect", "know", "fail", "idle 1", "idle 10", "burst", "settle")


def live_through(seed, steps, memory, worse=(), hidden=0.0):
    """Let a client live through a random schedule, and come to rest."""
    rng = random.Random(seed)
    server = Server(rng, ["a", "b"])
    client = Client(server, memory=memory, most_held=rng.choice((2, 10, 1000)))
    client.connect()
    for _ in range(steps):
        action = rng.choice(ACTIONS) if rng.random() < 0.9 else rng.choice((*RARE, *worse))
        if action == "publish":
            server.publish(rng.choice("ab"), rng.random() < hidden)
        elif action == "burst":
            for _ in range(rng.randrange(20)):
                server.publish(rng.choice("ab"))
        elif action == "know":
            server.known = client.connected
        elif action == "connect":
            if not client.connected:
                client.connect()
        elif action.startswith("idle"):
            client.idle(int(action.split()[1]))
        elif action == "step":
            server.milliseconds -= rng.randrange(1, 30)
        elif action == "small step":
            server.step_within(memory // 5)
        elif action in ("recreate", "restore"):
            client.cut()
            getattr(server, action)(rng.choice("ab"))
        else:
            getattr(client, action)()
    client.settle()
    return client


MANY = settings(max_examples=by_size(100, 100, 500, 20_000), deadline=None)
SEEDS, STEPS = st.integers(0, 2**32), st.integers(1, 300)


def plain(seed, steps, memory):
    """Drops, cuts, failing reads, a slow reader."""
    client = live_through(seed, steps, memory)
    client.check()
    assert not client.machine.gaps


def hidden(seed, steps, memory):
    """And rows that are stored and never returned by a query."""
    live_through(seed, steps, memory, hidden=0.1).check()


def steps(seed, steps):
    """And a clock that steps back, within what is remembered."""
    live_through(seed, steps, 10_000, ["step"]).check(ordered=False)


def small_steps(seed, steps):
    """The same with a memory that is smaller than the log and larger than what a step concerns.

    What the server's buffer still holds may come again once so many later ids are known that it was forgotten.
    """
    client = live_through(seed, steps, 40, ["small step", "small step"])
    ids = [event.id for event in client.had]
    for id in {id for id in ids if ids.count(id) > 1}:
        (log,) = [log for log in client.server.logs.values() if id in [event.id for event in log]]
        assert sum(event.id > id for event in log) >= 20
    client.had = list({event.id: event for event in client.had}.values())
    client.check(ordered=False)


def scenes():
    """Scenes whose course is known."""
    live_at_the_end_of_a_read()
    spilled()
    reported()
    strangers()
    held_once()
    held_and_read()
    beginnings_come_first()


def scene(number, **options):
    """Return the events of a log, and a machine that has read nothing."""
    server = Server(random.Random(1), "a")
    for _ in range(number):
        server.publish("a")
    machine = CatchUp(server_buffer=BUFFER, overhead=0, **options)
    machine.opened(server.topics)
    return server.topics, server.readable(server.topics["a"]), machine


def read_all(machine, rows):
    """Read a log from where the machine wants it; returns from where that was."""
    read = machine.next_read()
    for row in rows[read.offset :]:
        if not machine.row(read, row):
            return read.offset
    machine.ended(read, True)
    return read.offset


def had(machine):
    """Return what was delivered."""
    return [passed.delivery for passed in machine.deliveries]


def live_at_the_end_of_a_read():
    """What was held follows the read, and the topic is live; the next read begins with the last row."""
    topics, events, machine = scene(4)
    read_all(machine, [])
    machine.live(events[0], True)
    read = machine.next_read()
    machine.live(events[1], True)
    assert machine.row(read, events[0])
    assert not machine.is_live(topics["a"])
    machine.ended(read, True)
    assert machine.is_live(topics["a"]) and not machine.is_live(b"another")
    assert had(machine) == events[:2]
    assert machine.next_read() is None
    machine.live(events[2], True)
    machine.lost()
    machine.opened(topics)
    assert read_all(machine, events) == 2
    assert had(machine) == events


def spilled():
    """What was held when the room for it ended is dropped at the next read, which brings it."""
    topics, events, machine = scene(4, most_held=1)
    read = machine.next_read()
    machine.row(read, events[0])
    for event in events[1:]:
        machine.live(event, True)
    machine.ended(read, True)
    assert had(machine) == events[:1]
    (topic,) = machine._topics.values()
    assert len(topic.held) == 1
    read = machine.next_read()
    assert not topic.held and machine._held_bytes == 0
    machine.ended(read, False)
    read_all(machine, events)
    assert had(machine) == events and machine.next_read() is None


def strangers():
    """An event of a topic that the stream did not announce has it opened anew, and ends the read that returned it."""
    topics, events, machine = scene(2)
    machine.live(events[0]._replace(topic_id=b"other"), True)
    assert machine.reopen
    machine.opened(topics)
    assert not machine.reopen
    read = machine.next_read()
    assert machine.row(read, events[0])
    assert not machine.row(read, events[1]._replace(topic_id=b"other"))
    assert machine.reopen
    assert not machine.row(read, events[1]), "it is over"
    machine.ended(read, True)
    machine.opened(topics)
    read_all(machine, events)
    assert had(machine) == events


def held_once():
    """What arrives twice while it is held is held once; an empty topic is searched to its beginning."""
    topics, events, machine = scene(1)
    read = machine.next_read()
    machine.live(events[0], True)
    machine.live(events[0], True)
    machine.ended(read, True)
    read_all(machine, events)
    assert had(machine) == events
    empty = CatchUp()
    empty.start("a", topics["a"], b"", 0)
    empty.start("b", b"b" * 16, events[0].id, 0)
    empty.opened({**topics, "b": b"b" * 16})
    for _ in range(4):
        read = empty.next_read()
        if read is not None:
            empty.ended(read, True)
    assert empty.next_read() is None and not empty.gaps


def held_and_read():
    """What is held while the log returns it goes on as it arrived, with its time, and is held no longer."""
    topics, events, machine = scene(3)
    read = machine.next_read()
    machine.row(read, events[0])
    arrived = events[1]._replace(committed=5)
    machine.live(arrived, True)
    machine.row(read, events[1])
    (topic,) = machine._topics.values()
    assert not topic.held and machine._held_bytes == 0
    assert [delivery.committed for delivery in had(machine)] == [events[0].committed, 5]


def beginnings_come_first():
    """Nobody takes what is delivered before all topics have a beginning, so until then only that is looked for."""
    topics, events, machine = scene(3)
    machine.start("b", b"b" * 16, AT_THE_END, 0)
    machine.start("c", b"c" * 16, AT_THE_END, 0)
    machine.opened({**topics, "b": b"b" * 16, "c": b"c" * 16})
    begun = []
    while not machine.begun():
        read = machine.next_read()
        begun.append(read.topic_id)
        assert read.topic_id != topics["a"]
        machine.ended(read, True)
    assert {b"b" * 16, b"c" * 16} == set(begun) and not machine.deliveries
    read_all(machine, events)
    assert had(machine) == events


def reported():
    """Rows that were put in where everything had been delivered already are not to be had any more."""
    topics, events, machine = scene(5, memory=0)
    read_all(machine, events[1:])
    machine.lost()
    machine.opened(topics)
    for _ in range(30):
        if machine.next_read() is None:
            break
        (topic,) = machine._topics.values()
        rows = events[topic.read.offset :][: 1 if topic.read.alone else None]
        for row in rows:
            if not machine.row(topic.read, row):
                break
        else:
            machine.ended(topic.read, True)
    assert had(machine) == events[1:]
    (gap,) = machine.gaps
    assert not gap.certain and "1 more" in gap.reason


def anew(seed, steps, memory):
    """And topics that are made anew, and backups that are put back."""
    client = live_through(seed, steps, memory, ["recreate", "restore"])
    client.check()
    made_anew = len(client.server.logs) - len(client.server.topics)  # perhaps twice between two connections
    told = sum(gap.certain for gap in client.machine.gaps)
    assert bool(told) == bool(made_anew) and told <= made_anew


def begin(seed, size, hint):
    """A start in the middle of the log; the reads to find it are few."""
    rng = random.Random(seed)
    server = Server(rng, ["a", "b"])
    for _ in range(size):
        server.publish(rng.choice("aaaaab"))
    after = rng.randrange(1_000, server.milliseconds + 2).to_bytes(6, "big") + rng.choice((b"\0" * 4, b"\xff" * 4))
    client = Client(server)
    client.machine.start("a", server.topics["a"], after, hint)
    client.connect()
    searches = 0
    for _ in range(10_000):
        if client.machine._topics[server.topics["a"]].search is None:
            break
        client.send()
        searches += client.read is not None and client.read.alone
        client.take_row()
        client.consume()
        assert searches <= 2 * max(size, hint).bit_length() + 3
    client.settle()
    mine = [event.id for event in client.had if event.topic_id == server.topics["a"]]
    assert mine == [event.id for event in server.readable(server.topics["a"]) if event.id > after]


def at_the_end(seed, size, hint, back):
    """A start at the end of the log, or after a look back from it: what is published once it has begun is delivered."""
    rng = random.Random(seed)
    server = Server(rng, ["a", "b"])
    for _ in range(size):
        server.publish(rng.choice("aaaaab"))
    client, topic = Client(server), server.topics["a"]
    ids = [event.id for event in server.logs[topic]]
    after = rng.choice([BEFORE_ALL, *ids, b"\xf0" * 10])
    ends = []

    def look_back(end):
        ends.append(end)
        return after

    client.machine.start("a", topic, AT_THE_END, hint, look_back if back else None)
    client.connect()
    begun, actions = None, ("publish", "receive", "send", "send", "take_row", "take_row", "take_row", "consume", "fail")
    for _ in range(1_000):
        if begun is None and client.machine.begun():
            begun = len(server.logs[topic])
        action = rng.choice(actions) if rng.random() < 0.97 else rng.choice(("cut", "connect", "know", "idle"))
        if action == "publish":
            if len(server.logs[topic]) < size + 40:
                server.publish(rng.choice("ab"))
        elif action == "connect":
            if not client.connected:
                client.connect()
        elif action == "know":
            server.known = client.connected
        elif action == "idle":
            client.idle(1)
        else:
            getattr(client, action)()
    client.settle()
    log = [event.id for event in server.logs[topic]]
    mine = [event.id for event in client.had if event.topic_id == topic]
    expected = log if begun is None else log[begun:]
    assert mine == log[len(log) - len(mine) :] and (begun is None or len(mine) >= len(expected))
    for begun_at in client.machine.begins:
        # Known before anything that is delivered then: what a checkpoint may call done.
        assert begun_at.topic_id == topic and not [id for id in mine if id <= begun_at.floor]
        assert mine == [id for id in log if id > begun_at.floor]
        assert begun_at.anchor is None or log[begun_at.row] == begun_at.anchor
    assert len(client.machine.begins) == 1
    if back:
        (end,) = ends or [BEFORE_ALL]  # of an empty log there is nothing to look back at
        assert mine == [id for id in log if id > min(after, end)]
        assert client.looked_back == [id for id in mine if id <= end]
    assert not client.machine.gaps
    # What was there before it connected is looked back at, or not delivered at all.
    assert not set(ids) & set(mine[len(client.looked_back) :])


@MANY
@given(seed=SEEDS, size=st.integers(0, 300), hint=st.integers(0, 400), back=st.booleans())
def test_a_start_at_the_end(seed, size, hint, back):
    """Nothing from before, but what is looked back at, and all that comes after."""
    at_the_end(seed, size, hint, back)


def test_a_topic_that_no_query_shows():
    """It is delivered live, also what was held; where something may be missing that is told."""
    topics, events, machine = scene(9)
    (id,) = topics.values()
    machine.live(events[0], True)
    assert not had(machine) and machine.is_behind
    machine.only_live(id, "no query")
    machine.only_live(id, "no query")
    machine.only_live(b"another", "no query")
    assert had(machine) == events[:1] and not machine.is_behind and machine.next_read() is None
    assert [gap.reason for gap in machine.gaps] == ["no query"]
    machine.live(events[1], False)
    assert had(machine) == events[:2]
    machine.idle(1)
    assert len(machine.gaps) == 1
    machine.lost()
    machine.opened(topics)
    machine.live(events[2], True)
    assert len(machine.gaps) == 2 and machine.gaps[1].after_id == events[1].id and not machine.gaps[1].certain
    for event in events[3 : 3 + BUFFER - 1]:
        machine.live(event, True)
    machine.live(events[8], True)  # a jump, after as many as a server keeps
    assert len(machine.gaps) == 3


def test_a_topic_that_no_query_shows_from_the_beginning():
    """A start at the end misses nothing of that; one before it does, and so does a look back."""
    for floor, look_back, told in ((AT_THE_END, None, 0), (BEFORE_ALL, None, 1), (AT_THE_END, lambda end: end, 1)):
        topics, events, _ = scene(2)
        machine = CatchUp()
        machine.start("a", topics["a"], floor, 0, look_back)
        machine.only_live(topics["a"], "no query")
        machine.opened(topics)
        assert machine.begun() and len(machine.gaps) == told
        assert [begun.floor for begun in machine.begins] == ([BEFORE_ALL] if floor else [])
        machine.live(events[0], True)
        assert had(machine) == events[:1]


def test_what_was_had_before_it_cannot_be_read_any_more():
    """What was held and had already is not delivered again."""
    topics, events, machine = scene(2)
    read = machine.next_read()
    machine.row(read, events[0])
    machine.live(events[0], True)
    machine.live(events[1], True)
    machine.only_live(topics["a"], "refused")
    assert had(machine) == events
    assert machine.gaps[0].after_id == events[0].id


def test_the_row_of_a_live_event():
    """The row says what the stream does not: who published it, and that it is a duplicate; the stream, when."""
    for more in ({}, {"origin": "me"}, {"is_duplicate": True}):
        topics, events, machine = scene(1)
        assert machine.behind == [topics["a"]]
        read = machine.next_read()
        machine.live(events[0]._replace(committed=17), True)
        machine.row(read, events[0]._replace(**more))
        assert had(machine) == [events[0]._replace(committed=17, **more)]


def test_a_topic_that_is_destroyed():
    """It is told, and forgotten; one of the same name later is another."""
    topics, events, machine = scene(2)
    read_all(machine, events)
    machine.forget("a")
    machine.forget("nothing")
    assert machine.gaps[0].certain and machine.gaps[0].after_id == events[-1].id
    assert not machine.is_behind
    machine.opened({"a": b"b" * 16})
    assert len(machine.gaps) == 1 and machine.next_read().offset == 0


@MANY
@given(seed=SEEDS, steps=STEPS, memory=st.sampled_from([0, 2, 1000]))
def test_nothing_is_missed(seed, steps, memory):
    """Whatever happens in whatever order, the log is delivered, also with a memory of no ids."""
    plain(seed, steps, memory)


@MANY
@given(seed=SEEDS, steps=STEPS, memory=st.sampled_from([0, 2, 1000]))
def test_rows_that_queries_do_not_show(seed, steps, memory):
    """Every other row is delivered, once, in order; a hidden one at most once."""
    hidden(seed, steps, memory)


@MANY
@given(seed=SEEDS, length=STEPS)
def test_a_clock_that_steps_back(seed, length):
    """Everything is delivered once as long as the ids that the step concerns are remembered."""
    steps(seed, length)


@MANY
@given(seed=SEEDS, steps=st.integers(1, 600))
def test_a_clock_that_steps_back_a_little(seed, steps):
    """The same with a memory that does not hold the whole log."""
    small_steps(seed, steps)


def test_scenes():
    """They go as they should."""
    scenes()


@MANY
@given(seed=SEEDS, steps=STEPS, memory=st.sampled_from([0, 2, 1000]))
def test_topics_that_are_made_anew_and_backups(seed, steps, memory):
    """The log as it is now was delivered, and a topic that was made anew is reported."""
    anew(seed, steps, memory)


@MANY
@given(seed=SEEDS, size=st.integers(0, 3_000), hint=st.integers(0, 4_000))
def test_a_start_in_the_middle(seed, size, hint):
    """What comes after an id, there or not, is delivered; the reads to find it are few."""
    begin(seed, size, hint)
