"""What the catch-up of a subscription says, and what it is about (``catchup.py``)."""

from typing import Callable, NamedTuple, Optional

from .frames import Delivery

BEFORE_ALL = b""  # smaller than every id

#: Start after the last event that is there, wherever that is.
AT_THE_END = b"\xff" * 10


#: From the id of the last event to one that is not after it.
LookBack = Callable[[bytes], bytes]


class Read(NamedTuple):
    """To the log: read a topic from a row on, to its end, or one row alone."""

    topic_id: bytes
    offset: int
    alone: bool
    duplicates: bool
    number: int  # tells a read from others that are alike


class Passed(NamedTuple):
    """To the application: an event, which is the row of the log that ``row`` says, as far as is known.

    ``looked_back``: It lies before the end at which the topic began, see ``start``.
    """

    delivery: Delivery
    row: int
    looked_back: bool = False


class Begun(NamedTuple):
    """To the application, before the deliveries that come with it: it is known where a topic begins.

    Everything up to the floor is done with; the anchor is the event in the row of the log, None if no row is known.
    """

    topic_id: bytes
    floor: bytes
    anchor: Optional[bytes]
    row: int


class Gap(NamedTuple):
    """To the application: events were missed, or may have been, and are not to be had."""

    topic_id: bytes
    after_id: bytes
    certain: bool
    reason: str


class Held(NamedTuple):
    """An event that arrived live while the log of its topic is read."""

    delivery: Delivery
    stepped: bool  # the server's clock went back before it
