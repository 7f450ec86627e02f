"""What a subscription remembers over restarts: what was acknowledged, and what was not."""

import inspect
import random
import types

import pytest
from hypothesis import given

from ensign_sync import CheckpointError
from ensign_sync.protocol import position
from ensign_sync.protocol.position import Positions, Resume, load
from tests.protocol.test_catchup import MANY, SEEDS, STEPS, Client, Server
from tests.size import by_size

TOPIC = b"t" * 16


def id_of(n):
    """Return the id of an event."""
    return n.to_bytes(10, "big")


class Program(Client):
    """A client whose program acknowledges in any order, is killed and goes on where its checkpoint says."""

    def __init__(self, server, rng, module=position, **options):
        super().__init__(server, **options)
        self.rng, self.module, self.options = rng, module, options
        self.open, self.acked, self.again, self.searches, self.told = [], {}, 0, 0, 0
        self.lives, self.clock_steps = 1, False
        self.positions = module.Positions()
        for name, id in server.topics.items():
            self.positions.begin(name, module.Resume(id, b"", (), None, -1))
        self.saved = self.positions.save()

    def send(self):
        """Begin a read; with an anchor that is where it was there is nothing to search for."""
        super().send()
        self.searches += self.read is not None and self.read.alone

    def _take(self):
        names = {id: name for name, id in self.server.topics.items()}
        for passed in self.machine.deliveries:
            self.positions.delivered(names[passed.delivery.topic_id], passed.delivery.id, passed.row)
        super()._take()

    def consume(self):
        """Take an event, and be done with it at once or later."""
        if self.inbox:
            event = self.inbox.popleft()
            # Where the clock steps, what was stored below its place before an earlier life ended may come in this one,
            # and of what was done above that it is known what the life before did.
            last = self.acked.get(event.id)
            assert last is None or (self.clock_steps and last < self.lives - 1), "an acknowledged event came again"
            self.again += event in self.had
            self.had.append(event)
            self.open.append(event)
        while self.open and (len(self.open) > 5 or self.rng.random() < 0.5):
            self.acknowledge(self.open.pop(self.rng.randrange(len(self.open))))

    def acknowledge(self, event):
        """Be done with an event; that is saved."""
        names = {id: name for name, id in self.server.topics.items()}
        if self.positions.acknowledged(names[event.topic_id], event.id):
            self.acked[event.id] = self.lives
        self.saved = self.positions.save()

    def kill(self):
        """Lose everything but what was saved, and start anew from that."""
        self.cut()
        self.told += len(self.machine.gaps)
        self.lives += 1
        Client.__init__(self, self.server, **self.options)
        self.had, self.open, self.positions = [*self._had_before], [], self.module.Positions()
        for name, at in self.module.load(self.saved).items():
            if at.anchor is not None:
                self.machine.resume(name, at.topic_id, at.floor, at.acked, at.anchor, at.row)
            else:
                self.machine.start(name, at.topic_id, at.floor, 0)
            self.positions.begin(name, at)

    @property
    def _had_before(self):
        return self.had


def live_through(seed, steps, module=position, clock_steps=False):
    """A random life with kills; everything was acknowledged at the end, each event once."""
    rng = random.Random(seed)
    server = Server(rng, ["a", "b"])
    program = Program(server, rng, module, memory=1000 if clock_steps else rng.choice((0, 3, 1000)))
    program.clock_steps = clock_steps
    program.connect()
    for _ in range(steps):
        action = rng.choice(("publish", "publish", "receive", "consume", "send", "take_row", "take_row", "rare"))
        if action == "publish":
            server.publish(rng.choice("ab"))
        elif action == "rare":
            action = rng.choice(("kill", "kill", "cut", "connect", "know", "idle", *["step"] * 2 * clock_steps))
            if action == "step":
                server.step_within(10_000)
            elif action == "kill":
                had = program.had
                program.kill()
                program.had = had
            elif action == "connect" and not program.connected:
                program.connect()
            elif action == "know":
                server.known = program.connected
            elif action == "cut":
                program.cut()
            elif action == "idle":
                program.idle(1)
        else:
            getattr(program, action)()
    program.settle()
    for event in program.open:
        program.acknowledge(event)
    missed = {event.id for log in server.logs.values() for event in log} - set(program.acked)
    if clock_steps:  # while the program was dead: below what it had been delivered, of which nothing but that is known
        assert not missed or program.told + len(program.machine.gaps)
    else:
        assert not missed
        assert not program.machine.gaps
        assert not program.searches
    return program


@MANY
@given(seed=SEEDS, steps=STEPS)
def test_nothing_is_missed_and_nothing_done_comes_again(seed, steps):
    """Whenever it is killed, and in whatever order it acknowledges."""
    live_through(seed, steps)


@MANY
@given(seed=SEEDS, steps=STEPS)
def test_nothing_done_comes_again_after_a_step_of_the_clock(seed, steps):
    """What was stored below what had been delivered moves the place, and what is above it stays done."""
    live_through(seed, steps, clock_steps=True)


def what_is_saved(module=position):
    """The first pending event with its row, what was acknowledged above it; with none pending the last one."""
    positions = module.Positions()
    positions.begin("a", module.Resume(TOPIC, b"", (), None, -1))
    assert module.load(positions.save()) == {"a": module.Resume(TOPIC, b"", (), None, -1)}
    for n in range(1, 5):
        positions.delivered("a", id_of(n), n - 1)
    assert positions.acknowledged("a", id_of(1)) and positions.acknowledged("a", id_of(3))
    assert not positions.acknowledged("a", id_of(3)) and not positions.acknowledged("b", id_of(3))
    assert module.load(positions.save()) == {"a": module.Resume(TOPIC, id_of(1), (id_of(3),), id_of(2), 1)}
    positions.acknowledged("a", id_of(2))
    positions.acknowledged("a", id_of(4))
    assert module.load(positions.save()) == {"a": module.Resume(TOPIC, id_of(4), (), id_of(4), 3)}
    positions.passed_over("a", id_of(6), 4)
    positions.passed_over("a", id_of(5), 4)  # the clock of the server went back, so 6 is in the row after it
    assert module.load(positions.save()) == {"a": module.Resume(TOPIC, id_of(6), (), id_of(6), 5)}
    positions = module.Positions()
    positions.begin("a", module.Resume(TOPIC, b"", (), None, -1))
    for row, n in enumerate((5, 3, 4, 6, 2)):  # and again; while a topic is live, the row is that of the largest
        positions.delivered("a", id_of(n), row)
    assert module.load(positions.save())["a"] == module.Resume(TOPIC, id_of(1), (), id_of(2), 0)
    assert positions.acknowledged("a", id_of(2)) and positions.acknowledged("a", id_of(3))
    assert module.load(positions.save())["a"] == module.Resume(TOPIC, id_of(3), (), id_of(4), 2)
    positions.delivered("a", id_of(1), 5)  # below what was acknowledged
    assert module.load(positions.save())["a"] == module.Resume(TOPIC, id_of(0), (id_of(2), id_of(3)), id_of(1), 0)
    for n in (1, 4, 5, 6):
        positions.acknowledged("a", id_of(n))
    assert module.load(positions.save())["a"] == module.Resume(TOPIC, id_of(6), (), id_of(6), 5)


def test_what_is_saved():
    """See there."""
    what_is_saved()


def test_topics_that_did_not_begin():
    """What was saved of them is saved again."""
    positions = Positions()
    at = Resume(TOPIC, id_of(3), (id_of(5),), id_of(4), 3)
    positions.keep({"a": at, "b": at})
    positions.begin("b", Resume(TOPIC, b"", (), None, -1))
    assert load(positions.save()) == {"a": at, "b": Resume(TOPIC, b"", (), None, -1)}


def test_one_event_that_stays_open():
    """However many are acknowledged above it, what is kept is bounded; the others come again."""
    positions = Positions()
    positions.begin("a", Resume(TOPIC, b"", (), None, -1))
    for n in range(1, 5_000):
        positions.delivered("a", id_of(n), n - 1)
        if n > 1:
            assert positions.acknowledged("a", id_of(n)) == (n <= position.MOST_ACKED + 1)
    at = load(positions.save())["a"]
    assert (at.anchor, len(at.acked)) == (id_of(1), position.MOST_ACKED)
    assert positions.acknowledged("a", id_of(1))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": None},
        {"topics": None},
        {"topics": {"a": {}}},
        {"topics": {"a": {"topic_id": "?", "floor": None, "anchor": None, "row": 0, "acked": []}}},
        {"topics": {"a": {"topic_id": "0" * 26, "floor": 1, "anchor": None, "row": 0, "acked": []}}},
        {"topics": {"a": {"topic_id": "0" * 26, "floor": None, "anchor": None, "row": True, "acked": []}}},
        {"topics": {"a": {"topic_id": "0" * 26, "floor": None, "anchor": None, "row": 0, "acked": None}}},
    ],
)
def test_rubbish(change):
    """It is refused with a reason; nothing saved at all is a beginning."""
    assert load({}) == {}
    with pytest.raises(CheckpointError, match="checkpoint"):
        load({**Positions().save(), **change})


MUTANTS = {
    "the last acknowledgement is saved alone": (
        "        first = self.first_pending()\n        if first is None:",
        "        first = None\n        if first is None:",
    ),
    "no list of what was acknowledged": ("tuple(sorted(acked)[:MOST_ACKED]), anchor, row)", "(), anchor, row)"),
    "what was done is not kept below a later step": ("if self.most_done > anchor:", "if False:"),
    "a late event moves the end by nothing": ("self.last = (largest, last_row + 1)", "self.last = (largest, last_row)"),
    "a late event moves what is pending by nothing": ("self.pending[pending] = at + 1", "self.pending[pending] = at"),
    "acknowledged by this program alone": ("set(begin.acked)", "set()"),
    "acknowledged by the one before alone": ("        topic.acked.add(id)\n", ""),
    "the row of the end is saved": ("anchor, row = first, self.pending[first]", "anchor, row = first, self.last[1]"),
    "the smallest pending is not the first that came": (
        "        return smallest[0] if smallest else None",
        "        return next(iter(self.pending), None)",
    ),
    "what is pending counts as done": ('(int.from_bytes(first, "big") - 1)', '(int.from_bytes(first, "big"))'),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name):
    """Less than this would lose events, or have them come again, or cost a search at each start."""
    source = inspect.getsource(position).replace("from ..", "from ensign_sync.")
    old, new = MUTANTS[name]
    assert source.count(old) == 1
    module = types.ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant", "exec"), module.__dict__)
    with pytest.raises((AssertionError, LookupError)):
        what_is_saved(module)
        for seed in range(by_size(3_000, 3_000, 3_000, 10_000)):
            live_through(seed, 150, module)
