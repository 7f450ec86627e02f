"""Where a subscription begins, from what a program may say."""

from datetime import datetime, timedelta, timezone

import pytest

from ensign_sync import RLID, ULID, EnsignSettingsError
from ensign_sync.protocol.catchup_values import AT_THE_END, BEFORE_ALL
from ensign_sync.protocol.start import LONGEST_COMMIT, RECENT, Start, Starts, parse
from ensign_sync.times import Instant

ID = RLID.of(1_700_000_000_123, 77)
TOPIC = ULID.new()


def test_names_and_ids():
    """Words, and the id of an event in any form."""
    assert parse("recent") == RECENT == Start(AT_THE_END, recent=True)
    assert parse("latest") == Start(AT_THE_END) and parse("earliest") == Start(BEFORE_ALL)
    for id in (ID, str(ID), bytes(ID), bytearray(bytes(ID))):
        assert parse(id) == Start(ID.bytes)


def test_times():
    """Reading begins before it, and what lies before is left out: by its commit time, else by the time in its id."""
    moment = Instant.from_ns(1_700_000_000_123_456_789)
    for given in (moment, datetime.fromtimestamp(1_700_000_000.123457, timezone.utc)):
        start = parse(given)
        assert RLID(start.floor).milliseconds == 1_700_000_000_123 - LONGEST_COMMIT - 1
    start = parse(moment)
    before, same, after = (RLID.of(1_700_000_000_123 + n, 1).bytes for n in (-1, 0, 1))
    assert start.leaves_out(before, None) and not start.leaves_out(same, None)
    assert start.leaves_out(before, moment.ns - 1) and not start.leaves_out(before, moment.ns)
    assert not start.leaves_out(after, None) and not start.leaves_out(after, 0)
    assert not Start(BEFORE_ALL).leaves_out(before, None)
    assert parse(datetime(1950, 1, 1, tzinfo=timezone(timedelta(hours=1)))).floor == BEFORE_ALL
    assert parse(datetime(9999, 1, 1, tzinfo=timezone.utc)).floor < AT_THE_END


def test_mappings():
    """By name or by id; the other topics are recent."""
    starts = Starts({"a": "earliest", str(TOPIC): ID}, ["a", "b", str(TOPIC)])
    assert starts.of("a", b"1" * 16) == Start(BEFORE_ALL)
    assert starts.of("c", TOPIC.bytes) == Start(ID.bytes)
    assert starts.of("b", b"2" * 16) == RECENT
    assert Starts("latest", []).of("any", b"") == Start(AT_THE_END)
    assert Starts({"any": "latest"}, []).of("any", b"") == Start(AT_THE_END)


@pytest.mark.parametrize(
    "given", ["newest", "", "!" * 16, b"short", 7, None, datetime(2026, 1, 1), {"b": "earliest"}, {"a": 7}]
)
def test_rubbish(given):
    """The error says what was given and what is possible."""
    with pytest.raises(EnsignSettingsError, match="start"):
        Starts(given, ["a"])
