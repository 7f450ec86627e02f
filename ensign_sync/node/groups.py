"""The consumer groups of a friendly node: they share the events of their topics, and remember what is done.

One thread hands out; it is started with the first member. What a group has done is kept in the log, at least once a
second, so after a restart at most the answers of the last second are asked for again.
"""

import json
import logging
import threading
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Set

from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn_kept
from ..ids import murmur3_128
from ..wire import codec, dedup
from .group_state import CREDIT, Group, Place
from .rpc import Call
from .storage import Log

logger = logging.getLogger("ensign_sync.node")

_KIND = "group"
_SAVE_SECONDS = 1.0
_MOST_AT_ONCE = 100

#: A group may ask for any patience, and a thread cannot wait for any time.
_LONGEST_PAUSE = 60.0

#: A member with so many bytes on their way gets nothing more.
_MOST_WAITING_BYTES = 4 * 2**20


class Member(NamedTuple):
    """A subscriber in a group."""

    group: str
    number: int


class Groups:
    """All groups of a node. Any thread may call any method."""

    def __init__(self, log: Log) -> None:
        self._log = log
        # Guards all that follows. Held while events are read and handed to their calls, which never waits for a client.
        self._changed = threading.Condition(threading.Lock())
        self._groups: Dict[str, Group] = {}
        self._calls: Dict[Member, Call] = {}
        self._dirty: Set[str] = set()
        self._saved = 0.0
        self._numbers = 0
        self._woken = False
        self._closed = False
        self._thread: Optional[threading.Thread] = None

    def join(self, project: bytes, wanted: codec.GroupRequest, topics: Set[bytes], call: Call) -> Member:
        """Add a subscriber to a group, which is made if need be and then begins with the events from now on."""
        key = _key(project, wanted)
        numbers = {t.number: self._log.count(t.number) for t in self._log.topics(project) if t.id in topics}
        with self._changed:
            group = self._groups.get(key) or self._known(key) or Group(wanted.at_most_once, wanted.timeout)
            self._groups[key] = group
            self._numbers += 1
            member = Member(key, self._numbers)
            self._calls[member] = call
            group.join(member.number, numbers, time.monotonic())
            self._touch(key)
            if self._thread is None:
                spawn_kept(self, "node-groups", self._run)
        return member

    def leave(self, member: Member) -> None:
        """Remove a subscriber; what it did not acknowledge is for the others."""
        with self._changed:
            self._calls.pop(member, None)
            group = self._groups.get(member.group)  # a reset forgets the groups
            if group is not None:
                group.leave(member.number, time.monotonic())
                self._touch(member.group)

    def ack(self, member: Member, id: bytes) -> None:
        """An event is done."""
        with self._changed:
            group = self._groups.get(member.group)
            if group is not None and group.ack(member.number, id, time.monotonic()):
                self._touch(member.group)

    def nack(self, member: Member, id: bytes, code: int) -> None:
        """An event is to be delivered again."""
        with self._changed:
            group = self._groups.get(member.group)
            if group is not None and group.nack(member.number, id, code, time.monotonic()):
                self._touch(member.group)

    def wake(self) -> None:
        """There are new events, or a member has room again."""
        if self._thread is not None:  # the way of every transaction
            with self._changed:
                self._woken = True
                self._changed.notify()

    def reset(self) -> None:
        """Forget all groups."""
        with self._changed:
            for name in self._log.records(_KIND):
                self._log.put_record(_KIND, name, None)
            self._groups.clear()
            self._calls.clear()
            self._dirty.clear()

    def close(self, deadline: Deadline) -> None:
        """Keep what is done, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            gather([thread], deadline)
        with self._changed:
            self._save()

    # the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                pause = self._pause()
                if not self._woken and not self._closed and pause != 0.0:
                    self._changed.wait(pause)
                if self._closed:
                    return
                self._woken = False
                try:
                    self._hand_out()
                    if self._dirty and time.monotonic() - self._saved >= _SAVE_SECONDS:
                        self._save()
                except Exception:
                    logger.exception("a consumer group could not go on; it will be tried again")
                    self._changed.wait(1.0)

    def _pause(self) -> Optional[float]:
        """Return how long there is nothing to do, None if until somebody calls; needs the lock."""
        now = time.monotonic()
        pauses = [pause for pause in (group.next_look(now) for group in self._active()) if pause is not None]
        if self._dirty:
            pauses.append(max(0.0, self._saved + _SAVE_SECONDS - now))
        # Never quite nothing: what nobody has room for now would be looked at without end.
        return min(_LONGEST_PAUSE, max(0.01, min(pauses))) if pauses else None

    def _active(self) -> List[Group]:
        return [group for group in self._groups.values() if group.members]

    def _hand_out(self) -> None:
        """Deliver what is to be delivered; needs the lock."""
        for key, group in self._groups.items():
            if not group.members:
                continue
            now = time.monotonic()
            group.overdue(now)
            gone = [number for number in group.next if self._log.topic(number) is None]
            if gone:
                group.forget(gone)
            ends = {number: self._log.count(number) for number in group.next}
            able = {member.number for member, call in self._calls.items() if member.group == key and _has_room(call)}
            chosen = group.wanted(ends, now, self._at_once(ends), able)
            for place, number in chosen:
                self._deliver(key, group, place, number)
            if chosen:
                self._dirty.add(key)
                self._woken = True  # there may be more

    def _at_once(self, topics: Iterable[int]) -> int:
        """Return how many events are handed out before it is looked again who has room for more."""
        extents = [self._log.extent(number) for number in topics]
        largest = max((extent.size // max(1, extent.end - extent.first) for extent in extents), default=0)
        return max(1, min(_MOST_AT_ONCE, _MOST_WAITING_BYTES // (largest + 1)))

    def _deliver(self, key: str, group: Group, place: Place, number: int) -> None:
        event = self._log.event_at(place.topic, place.position)
        call = self._calls[Member(key, number)]  # who leaves is out of both at once
        if event is None or dedup.peek(event.wrapper)[0]:
            group.skip(number, place)
            return
        # First noted, then sent: the ack may come at once.
        group.confirm(number, place, event.id, time.monotonic())
        call.send(codec.encode_live(event.wrapper, event.committed_ns))

    def _touch(self, key: str) -> None:
        """Note that a group changed; needs the lock."""
        self._dirty.add(key)
        self._woken = True
        self._changed.notify()

    def _known(self, key: str) -> Optional[Group]:
        kept = self._log.records(_KIND).get(key)
        return None if kept is None else Group.load(json.loads(kept))

    def _save(self) -> None:
        """Keep what changed; needs the lock."""
        for key in self._dirty:
            if key in self._groups:
                self._log.put_record(_KIND, key, json.dumps(self._groups[key].dump()).encode("ascii"))
        self._dirty.clear()
        self._saved = time.monotonic()


def _has_room(call: Call) -> bool:
    """Tell whether a member takes what it is sent."""
    return call.waiting_bytes <= _MOST_WAITING_BYTES and call.waiting <= CREDIT


def _key(project: bytes, wanted: codec.GroupRequest) -> str:
    """Return the key of a group: by its id, else by its name (docs/protocol.rst, "Subscribe stream")."""
    id = wanted.id if len(wanted.id) == 16 else murmur3_128(wanted.id or wanted.name.encode("utf-8"))
    return f"{project.hex()}-{id.hex()}"
