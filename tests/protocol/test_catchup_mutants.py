"""Each rule of the catch-up has a reason: without it, some schedule loses an event, or delivers one twice.

A mutant is the machine with one piece of its text replaced. Every one must fail in some world of ``test_catchup``.
"""

import inspect
import types

import pytest

from ensign_sync.protocol import catchup, search, topic_state
from tests.protocol import test_catchup as model
from tests.size import by_size

#: Hardly depends on the Python below it.
pytestmark = pytest.mark.ends

MUTANTS = {
    "the first event of a stream is not doubted": (
        "self._previous is None or (counter",
        "(self._previous is not None and counter",
    ),
    "the counter is kept over streams": (
        "self._previous, self._received, self._largest = None, 0",
        "self._received, self._largest = 0",
    ),
    "only the topic of the event is doubted": (
        "            self._doubt(self._previous is not None)\n        self._prev",
        "            topic.behind = topic.dirty = True\n            self._received = 0\n        self._prev",
    ),
    "delivered before it is doubted": (
        (
            "            self._doubt(self._previous is not None)\n        self._prev",
            "            room = None\n        self._prev",
        ),
        (
            "            if room:\n",
            "            if room is None:\n                self._put(topic, event)\n                self._doubt(True)\n"
            "            elif room:\n",
        ),
    ),
    "jumps are ignored": (
        ("(counter != self._previous + 1 and", "(False and"),
        ("if counter != self._previous + 1 and", "if False and"),
    ),
    "jumps are ignored on the short way": ("if counter != self._previous + 1 and", "if False and"),
    "one more than the buffer": (
        (
            "(counter != self._previous + 1 and self._received >= self._server_buffer)",
            "(counter != self._previous + 1 and self._received > self._server_buffer)",
        ),
        (
            "if counter != self._previous + 1 and self._received >= self._server_buffer:",
            "if counter != self._previous + 1 and self._received > self._server_buffer:",
        ),
    ),
    "twice the buffer": (
        (
            "(counter != self._previous + 1 and self._received >= self._server_buffer)",
            "(counter != self._previous + 1 and self._received >= 2 * self._server_buffer)",
        ),
        (
            "if counter != self._previous + 1 and self._received >= self._server_buffer:",
            "if counter != self._previous + 1 and self._received >= 2 * self._server_buffer:",
        ),
    ),
    "the first event of a stream takes the short way": (
        " or self._previous is None:\n            return -1\n        counter",
        ":\n            return -1\n        self._previous = self._previous or 0\n        counter",
    ),
    "an event of a topic that is behind takes the short way": (
        "topic is None or topic.behind or topic.only_live",
        "topic is None or topic.only_live",
    ),
    "what may have been had takes the short way": (
        " or id <= topic.largest or self._previous is None",
        " or self._previous is None",
    ),
    "the first row takes the short way": (
        "topic.read is not read or not topic.rows or",
        "topic.read is not read or",
    ),
    "a row that was had takes the short way": (
        "if id <= topic.largest or id <= topic.end or",
        "if id <= topic.end or",
    ),
    "what is looked back at takes the short way": (
        "if id <= topic.largest or id <= topic.end or",
        "if id <= topic.largest or",
    ),
    "what is held takes the short way": (" or id in topic.held or topic.search", " or topic.search"),
    "idle ignores how much came": ("if self._received >= self._server_buffer:", "if False:"),
    "a pause of the line is taken for an empty buffer": (
        "        self._looks.add(seconds)\n",
        "        self._received = 0\n        self._looks.add(seconds)\n",
    ),
    "a topic that begins waits for one that has begun": (
        "[topic for topic in behind if not topic.begun] or behind",
        "behind",
    ),
    "no look after Ready": ("self._previous is None and seconds not in self._looks", "False"),
    "dirty is ignored": ("and not (topic.dirty or topic.spilled):", "and not topic.spilled:"),
    "spilled is ignored": ("and not (topic.dirty or topic.spilled):", "and not topic.dirty:"),
    "what is held is not compared": ("if not topic.was_had(one)]", "]"),
    "what is held is dropped at the switch": ("        for one in held:\n", "        for one in ():\n"),
    "a late live event comes again": ("elif not topic.was_had(held):", "else:"),
    "what was seen is not looked up": ("return id in self.seen or id in self.done or (id", "return (id"),
    "the floor is not looked up": (" or (id <= self.floor and not held.stepped)", ""),
    "a full inbox is not noticed": ("                topic.behind = self.stirred = True\n", "                pass\n"),
    "the flags stay at the send": ("            topic.spilled = topic.dirty = False\n", ""),
    "a row takes the flags away": (
        (
            "        topic.rows += 1\n        held",
            "        topic.rows += 1\n        topic.dirty = False\n        held",
        ),
        (
            "        topic.rows += 1\n        topic.pass",
            "        topic.rows += 1\n        topic.dirty = False\n        topic.pass",
        ),
    ),
    "the anchor is not compared": (" and event.id != topic.anchor:", " and False:"),
    "a lenient anchor": ("and event.id != topic.anchor:", "and event.id < topic.anchor:"),
    "an empty answer is believed": ("elif topic.rows == 0 and topic.anchor is not None:", "elif False:"),
    "read from the row after": ("offset = max(topic.row, 0)", "offset = topic.row + 1"),
    "rows are counted one too many": ("read.offset + topic.rows, event.id", "read.offset + topic.rows + 1, event.id"),
    "an error is taken for the end": ("if not well or (", "if False or ("),
    "state is kept over a topic that is made anew": ("if old is not None and old.id != id:", "if False:"),
    "a second reading compares ids alone": (
        "        if not topic.was_delivered(event.id):",
        "        if event.id > (max(topic.seen) if topic.seen else topic.floor):",
    ),
    "the oldest is forgotten, not the smallest": (
        ("insort(self.by_id, id)", "self.by_id.append(id)"),
    ),
    "the row is not counted on while live": ("        row = topic.row + 1\n", "        row = topic.row\n"),
    "the row of a late event is not counted": ("        topic.row += 1\n        topic.anchor", "        topic.anchor"),
    "what is held is kept over a spill": ("            if topic.spilled:\n", "            if False:\n"),
    "a misfit reads on": (
        "            self._misfit(topic)\n            return False\n        topic.row,",
        "            self._misfit(topic)\n            topic.search = None\n        topic.row,",
    ),
    "searched from the largest id": (
        "Search(topic.floor, expected, expected)",
        "Search(topic.anchor, expected, expected)",
    ),
    "an empty probe is no bound": (
        "        else:\n            self.bound = self.probe\n",
        "        elif id:\n            self.bound = self.probe\n",
    ),
    "live only when nothing is held": (
        "        topic.again = topic.behind = False\n",
        "        topic.again = False\n        topic.behind = bool(held)\n",
    ),
    "the end is not the beginning": (
        "end = topic.floor = topic.largest = topic.anchor or BEFORE_ALL",
        "end = topic.floor = topic.largest = BEFORE_ALL",
    ),
    "what is looked back at is not marked": ("event.id <= topic.end)", "False)"),
    "a look back forgets its end": ("            topic.end = end\n", ""),
    "a gap is not reported": ("if search.expected is not None and search", "if False and search"),
}


def mutated(change):
    """Return the machine with pieces of its text replaced, each of which must be there once."""
    source = "".join(inspect.getsource(module) for module in (search, topic_state, catchup))
    for own in ("search import Search", "topic_state import TopicState"):
        source = source.replace(f"from .{own}\n", "")
    source = source.replace("from .", "from ensign_sync.protocol.")
    for old, new in [change] if change and isinstance(change[0], str) else change:
        assert source.count(old) == 1, f"{source.count(old)} times: {old}"
        source = source.replace(old, new)
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module.CatchUp


WORLDS = {
    "plain": lambda seed: model.plain(seed, 200, (0, 2, 1000)[seed % 3]),
    "hidden": lambda seed: model.hidden(seed, 200, (0, 2, 1000)[seed % 3]),
    "steps": lambda seed: model.steps(seed, 200),
    "scenes": lambda seed: model.scenes(),
    "small steps": lambda seed: model.small_steps(seed, 600),
    "anew": lambda seed: model.anew(seed, 200, (0, 2, 1000)[seed % 3]),
    "start": lambda seed: model.begin(seed, seed % 300, seed % 400),
    "end": lambda seed: model.at_the_end(seed, seed % 50, seed % 70, seed % 2 == 0),
}
TRIES = by_size(300, 300, 300, 3_000)


def first_failure():
    """Return the first world and schedule in which something is wrong."""
    for seed in range(TRIES):
        for name, world in WORLDS.items():
            try:
                world(seed)
            except Exception as error:
                return f"{name} {seed}: {error!r:.80}"
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name, monkeypatch):
    """Some schedule shows what the rule is for."""
    monkeypatch.setattr(model, "CatchUp", mutated(MUTANTS[name]))
    failure = first_failure()
    print(f"{name}: {failure}")
    assert failure is not None


def test_the_machine_itself_is_not(monkeypatch):
    """The same schedules find nothing wrong with the machine as it is."""
    monkeypatch.setattr(model, "CatchUp", mutated(()))
    assert first_failure() is None
