"""Topics, their policies, projects and the status of a server: layouts and equality."""

import copy
import pickle
from datetime import timedelta

import pytest

from ensign_sync import status
from ensign_sync.enum import DeduplicationStrategy, OffsetPosition, TopicState
from ensign_sync.events import Type
from ensign_sync.ids import RLID, ULID
from ensign_sync.mimetypes import ApplicationJSON
from ensign_sync.projects import Project
from ensign_sync.status import Duration, ServerStatus
from ensign_sync.times import Instant
from ensign_sync.topics import Deduplication, EventType, Topic
from tests.tables import each

TEXT = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
AT = Instant.from_ns(1_700_000_000_000_000_000)


def kind():
    """Make the counts of one schema."""
    made = EventType(Type("Name", "1.2.3"), ApplicationJSON)
    made.events, made.duplicates, made.data_size_bytes = 3, 1, 200
    return made


def full_topic():
    """Make a topic with everything set."""
    topic = Topic(TEXT, "orders", "hash")
    topic.status, topic.project_id, topic.event_offset_id = TopicState.READY, ULID(bytes(15) + b"\1"), RLID.of(5, 7)
    topic.events, topic.duplicates, topic.data_size_bytes, topic.offset = 3, 1, 200, 4
    topic.types, topic.created, topic.modified = [kind()], AT, AT
    return topic


def test_topic_defaults():
    """A topic of nothing has nothing."""
    topic = Topic()
    assert (topic.id, topic.name, topic.topic_str) == (None, "", "")
    assert (topic.project_id, topic.event_offset_id, topic.status, topic.deduplication) == (None,) * 4
    assert (topic.events, topic.duplicates, topic.data_size_bytes, topic.offset) == (0,) * 4
    assert (topic.readonly, topic.types, topic.created, topic.modified) == (False, [], None, None)
    assert Topic().types is not Topic().types


@each("given", [TEXT, TEXT.lower(), ULID(TEXT), ULID(TEXT).bytes])
def test_topic_id(given):
    """The id may be given in any form and is a ULID."""
    assert type(Topic(given).id) is type(Project(given).id) is ULID
    assert str(Topic(given).id) == str(Project(given).id) == TEXT


@each("given", ["", "orders", b"", b"\x01"])
def test_topic_bad_id(given):
    """What is no ULID is a ValueError."""
    for make in (Topic, Project):
        with pytest.raises(ValueError, match="ULID"):
            make(given)


def test_topic_equality():
    """Topics are equal when their ids are, and hash alike; without an id they have no hash."""
    assert Topic(TEXT, "orders") == Topic(ULID(TEXT), "other")
    assert hash(Topic(TEXT, "orders")) == hash(Topic(ULID(TEXT), "other"))
    assert Topic(TEXT) != Topic(bytes(16))
    assert Topic(TEXT) != Topic()
    assert Topic(TEXT) != TEXT
    with pytest.raises(ValueError, match="cannot hash topic with no ID"):
        hash(Topic(name="orders"))


def test_topic_str_of_little():
    """What is not set has no row; counts always have."""
    assert str(Topic(name="orders")) == (
        "Topic\n\tname=orders\n\tevents=0\n\tduplicates=0\n\tdata_size_bytes=0\n\toffset=0\n\ttypes:0"
    )
    assert repr(Topic(TEXT, "orders")) == f"Topic(id={TEXT}, name='orders')"


def test_topic_str():
    """Everything that is set has a row, in order; the rows of types are further in."""
    assert str(full_topic()).split("\n") == [
        "Topic",
        f"\tid={TEXT}",
        "\tname=orders",
        "\tstatus=READY",
        "\tproject_id=00000000000000000000000001",
        f"\tevent_offset_id={RLID.of(5, 7)}",
        "\ttopic_str=hash",
        "\tevents=3",
        "\tduplicates=1",
        "\tdata_size_bytes=200",
        "\toffset=4",
        "\ttypes:1",
        "\tEventType",
        "\t\ttype=Name v1.2.3",
        "\t\tmimetype=application/json",
        "\t\tevents=3",
        "\t\tduplicates=1",
        "\t\tdata_size_bytes=200",
        "\tcreated=2023-11-14 22:13:20+00:00",
        "\tmodified=2023-11-14 22:13:20+00:00",
    ]


def test_event_type_str():
    """The counts of a schema, with the mimetype as text, or as a number if it has none."""
    assert str(kind()) == (
        "EventType\n\ttype=Name v1.2.3\n\tmimetype=application/json\n\tevents=3\n\tduplicates=1\n\tdata_size_bytes=200"
    )
    assert "\n\tmimetype=4711\n" in str(EventType(Type("Name"), 4711))
    assert repr(kind()) == "EventType(type=Name v1.2.3, mimetype=50)"


def test_deduplication():
    """A policy has defaults of its own and compares by everything it says."""
    policy = Deduplication()
    assert policy == Deduplication(DeduplicationStrategy.NONE, OffsetPosition.OFFSET_EARLIEST, [], [], False)
    assert hash(policy) == hash(Deduplication())
    for other in (
        Deduplication(DeduplicationStrategy.STRICT),
        Deduplication(offset=OffsetPosition.OFFSET_LATEST),
        Deduplication(keys=["a"]),
        Deduplication(fields=["a"]),
        Deduplication(overwrite_duplicate=True),
    ):
        assert policy != other
    assert policy != "Deduplication"
    keys = ["a"]
    policy = Deduplication(keys=keys)
    keys.append("b")
    assert policy.keys == ["a"]


def test_deduplication_str():
    """A policy is shown with the names of its members, not with their numbers."""
    policy = Deduplication(DeduplicationStrategy.UNIQUE_KEY, OffsetPosition.OFFSET_LATEST, ["a"], [], True)
    assert str(policy) == (
        "Deduplication\n\tstrategy=UNIQUE_KEY\n\toffset=OFFSET_LATEST\n\tkeys=['a']\n\tfields=[]"
        "\n\toverwrite_duplicate=True"
    )
    assert repr(policy) == (
        "Deduplication(strategy=UNIQUE_KEY, offset=OFFSET_LATEST, keys=['a'], fields=[], overwrite_duplicate=True)"
    )


def test_project_str():
    """A project shows its counts and, further in, its topics."""
    project = Project(TEXT)
    project.num_topics, project.num_readonly_topics, project.topics = 2, 1, [Topic(name="a"), Topic(name="b")]
    project.events, project.duplicates, project.data_size_bytes = 3, 1, 200
    rows = str(project).split("\n")
    assert rows[:7] == [
        "Project",
        f"\tid={TEXT}",
        "\tnum_topics=2",
        "\tnum_readonly_topics=1",
        "\tevents=3",
        "\tduplicates=1",
        "\tdata_size_bytes=200",
    ]
    assert rows[7:9] == ["\tTopic", "\t\tname=a"]
    assert rows.count("\tTopic") == 2
    assert repr(project) == f"Project(id={TEXT})"
    assert Project().id is None
    assert Project().topics is not Project().topics


def test_copies():
    """Everything that a server tells can be pickled and copied."""
    for value in (full_topic(), kind(), Deduplication(keys=["a"]), Project(TEXT)):
        for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            assert type(other) is type(value)
            assert str(other) == str(value)


def test_status_str():
    """A status is exactly four lines."""
    answer = ServerStatus(1, "0.12.9-beta.24 (abc)", Duration(3661, 5), AT, AT)
    assert str(answer) == "status: 1\nversion: 0.12.9-beta.24 (abc)\nuptime: seconds: 3661\nnanos: 5"
    assert str(ServerStatus(5, "v", Duration())).split("\n") == [
        "status: 5",
        "version: v",
        "uptime: seconds: 0",
        "nanos: 0",
    ]


def test_status():
    """A status has its fields by name, and both names."""
    answer = ServerStatus(status=1, version="v", uptime=Duration(seconds=90, nanos=500_001_999))
    assert (answer.status, answer.version, answer.uptime.seconds, answer.uptime.nanos) == (1, "v", 90, 500_001_999)
    assert (answer.not_before, answer.not_after) == (None, None)
    assert answer.uptime.total_seconds() == pytest.approx(90.500001999)
    assert answer.uptime.to_timedelta() == timedelta(seconds=90, microseconds=500_001)
    assert status.Status is ServerStatus
    assert pickle.loads(pickle.dumps(answer)) == copy.deepcopy(answer) == answer
