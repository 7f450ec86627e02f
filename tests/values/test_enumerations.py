"""Enumerations of topics: names in any case, numbers of the wire."""

import copy
import pickle

import pytest

from ensign_sync.enum import DeduplicationStrategy, OffsetPosition, ShardingStrategy, TopicState
from tests.tables import each

MEMBERS = {
    TopicState: "UNDEFINED READY READONLY DELETING PENDING ALLOCATING REPAIRING",
    DeduplicationStrategy: "UNKNOWN NONE STRICT DATAGRAM KEY_GROUPED UNIQUE_KEY UNIQUE_FIELD",
    OffsetPosition: "OFFSET_UNKNOWN OFFSET_EARLIEST OFFSET_LATEST",
    ShardingStrategy: "UNKNOWN NO_SHARDING CONSISTENT_KEY_HASH RANDOM PUBLISHER_ORDERING",
}
CASES = [(kind, number, name) for kind, names in MEMBERS.items() for number, name in enumerate(names.split())]


@each("kind", MEMBERS, ids=[kind.__name__ for kind in MEMBERS])
def test_members(kind):
    """An enumeration has exactly the members of the wire, numbered from 0."""
    assert [(member.name, member.value) for member in kind] == [(n, i) for k, i, n in CASES if k is kind]


def test_parse():
    """A member is found by its name in any case and with spaces around, by its number, and as itself."""
    for kind, number, name in CASES:
        member = kind[name]
        for text in (name, name.lower(), name.title(), f"  {name}\n"):
            assert kind.parse(text) is member
        assert kind.parse(number) is kind.parse(member) is kind.convert(number) is member
        assert int(member) == number
        assert pickle.loads(pickle.dumps(member)) is copy.deepcopy(member) is member


@each(
    ("alias", "member"), [("EARLIEST", OffsetPosition.OFFSET_EARLIEST), ("latest", OffsetPosition.OFFSET_LATEST)]
)
def test_alias(alias, member):
    """The positions have short names too."""
    assert OffsetPosition.parse(alias) is member


@each("kind", MEMBERS, ids=[kind.__name__ for kind in MEMBERS])
def test_unknown(kind):
    """An unknown name is a KeyError that names it and what there is; an unknown number of a server is the member 0."""
    with pytest.raises(KeyError) as caught:
        kind.parse("nonesuch")
    assert "'nonesuch'" in str(caught.value)
    for member in kind:
        assert member.name in str(caught.value)
    assert kind.convert(99) is kind.convert(-1) is kind(0)


@each("value", [99, -1, None, 1.5, b"READY"])
def test_no_name_and_no_number(value):
    """What is neither a name nor a known number is a ValueError that names it."""
    with pytest.raises(ValueError) as caught:
        TopicState.parse(value)
    assert repr(value) in str(caught.value)
