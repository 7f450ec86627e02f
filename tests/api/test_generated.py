"""The generated protobuf modules: up to date, equal to the official descriptors, and usable as Python objects."""

import copy
import hashlib
import importlib
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from google.protobuf import descriptor_pb2

from ensign_sync.api.health.v1 import health_pb2
from ensign_sync.api.mimetype.v1beta1 import mimetype_pb2
from ensign_sync.api.pagination import pagination_pb2
from ensign_sync.api.region.v1beta1 import region_pb2
from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2, groups_pb2, query_pb2, topic_pb2

ROOT = Path(__file__).resolve().parents[2]
REQUIRED_TOOLS = "1.62.3"

# File name -> module, package of the .proto file, and the SHA-256 of the serialized descriptor of the official clients.
FILES: Dict[str, Tuple[Any, str, Optional[str]]] = {
    "api/v1beta1/ensign.proto": (
        ensign_pb2,
        "ensign.v1beta1",
        "a85a08e839a8ad031c483c2a97b1d95227e0221d7e49df401082a1e2db9add51",
    ),
    "api/v1beta1/event.proto": (
        event_pb2,
        "ensign.v1beta1",
        "50e357f698b020d68092143cd5c19ded6e0ccb017b165dd931b78f19a69e9b1f",
    ),
    "api/v1beta1/groups.proto": (
        groups_pb2,
        "ensign.v1beta1",
        "e00d654442fa69c8e76078b406720ca3bfe1995ff0e815b6bf08c8f16b86fec1",
    ),
    "api/v1beta1/query.proto": (
        query_pb2,
        "ensign.v1beta1",
        "75ef5aec7da35ca819d1bb02082fe0a6886c141f859ef8120b252d3b73308af0",
    ),
    "api/v1beta1/topic.proto": (
        topic_pb2,
        "ensign.v1beta1",
        "ec8da8bc13bb20770ee34e72c2e0244e5d4115ba582b89cf5e8cd07458ca1ad2",
    ),
    "mimetype/v1beta1/mimetype.proto": (
        mimetype_pb2,
        "mimetype.v1beta1",
        "b4f17066944be07c07ff45f11695d2d04f8013560f333cc25ebb089ab461743e",
    ),
    "region/v1beta1/region.proto": (
        region_pb2,
        "region.v1beta1",
        "660eda192fd3f5ff69bf3c3596b3099d58ae96ea795ea56c26efebc7bfc81cde",
    ),
    "pagination/pagination.proto": (pagination_pb2, "pagination", None),
    "grpc/health/v1/health.proto": (health_pb2, "grpc.health.v1", None),
}

# Method -> request, response, whether requests are streamed, whether responses are streamed.
METHODS: Dict[str, Tuple[str, str, bool, bool]] = {
    "Publish": ("PublisherRequest", "PublisherReply", True, True),
    "Subscribe": ("SubscribeRequest", "SubscribeReply", True, True),
    "EnSQL": ("Query", "EventWrapper", False, True),
    "Explain": ("Query", "QueryExplanation", False, False),
    "ListTopics": ("PageInfo", "TopicsPage", False, False),
    "CreateTopic": ("Topic", "Topic", False, False),
    "RetrieveTopic": ("Topic", "Topic", False, False),
    "DeleteTopic": ("TopicMod", "TopicStatus", False, False),
    "TopicNames": ("PageInfo", "TopicNamesPage", False, False),
    "TopicExists": ("TopicName", "TopicExistsInfo", False, False),
    "SetTopicPolicy": ("TopicPolicy", "TopicStatus", False, False),
    "Info": ("InfoRequest", "ProjectInfo", False, False),
    "Status": ("HealthCheck", "ServiceState", False, False),
}

# Message -> field -> number, type (a scalar type or a full name), and the oneof or "repeated" or "".
FIELDS: Dict[str, Dict[str, Tuple[int, str, str]]] = {
    "PublisherRequest": {
        "event": (1, "ensign.v1beta1.EventWrapper", "embed"),
        "open_stream": (2, "ensign.v1beta1.OpenStream", "embed"),
    },
    "PublisherReply": {
        "ack": (1, "ensign.v1beta1.Ack", "embed"),
        "nack": (2, "ensign.v1beta1.Nack", "embed"),
        "ready": (3, "ensign.v1beta1.StreamReady", "embed"),
        "close_stream": (4, "ensign.v1beta1.CloseStream", "embed"),
    },
    "SubscribeRequest": {
        "ack": (1, "ensign.v1beta1.Ack", "embed"),
        "nack": (2, "ensign.v1beta1.Nack", "embed"),
        "subscription": (3, "ensign.v1beta1.Subscription", "embed"),
    },
    "SubscribeReply": {
        "event": (1, "ensign.v1beta1.EventWrapper", "embed"),
        "ready": (2, "ensign.v1beta1.StreamReady", "embed"),
        "close_stream": (3, "ensign.v1beta1.CloseStream", "embed"),
    },
    "EventWrapper": {
        "id": (1, "bytes", ""),
        "topic_id": (2, "bytes", ""),
        "offset": (3, "uint64", ""),
        "epoch": (4, "uint64", ""),
        "region": (5, "region.v1beta1.Region", ""),
        "publisher": (6, "ensign.v1beta1.Publisher", ""),
        "key": (7, "bytes", ""),
        "shard": (8, "uint64", ""),
        "event": (9, "bytes", ""),
        "encryption": (10, "ensign.v1beta1.Encryption", ""),
        "compression": (11, "ensign.v1beta1.Compression", ""),
        "is_duplicate": (12, "bool", ""),
        "duplicate_id": (13, "bytes", ""),
        "committed": (15, "google.protobuf.Timestamp", ""),
        "local_id": (16, "bytes", ""),
    },
    "Event": {
        "data": (2, "bytes", ""),
        "metadata": (3, "ensign.v1beta1.Event.MetadataEntry", "repeated"),
        "mimetype": (4, "mimetype.v1beta1.MIME", ""),
        "type": (5, "ensign.v1beta1.Type", ""),
        "created": (15, "google.protobuf.Timestamp", ""),
    },
    "OpenStream": {
        "client_id": (1, "string", ""),
        "topics": (2, "string", "repeated"),
    },
    "Subscription": {
        "client_id": (1, "string", ""),
        "topics": (2, "string", "repeated"),
        "query": (3, "ensign.v1beta1.Query", ""),
        "group": (4, "ensign.v1beta1.ConsumerGroup", ""),
    },
    "StreamReady": {
        "client_id": (1, "string", ""),
        "server_id": (2, "string", ""),
        "topics": (3, "ensign.v1beta1.StreamReady.TopicsEntry", "repeated"),
    },
    "CloseStream": {
        "events": (1, "uint64", ""),
        "topics": (2, "uint64", ""),
        "acks": (3, "uint64", ""),
        "nacks": (4, "uint64", ""),
    },
    "Ack": {
        "id": (1, "bytes", ""),
        "committed": (2, "google.protobuf.Timestamp", ""),
    },
    "Nack": {
        "id": (1, "bytes", ""),
        "code": (2, "ensign.v1beta1.Nack.Code", ""),
        "error": (3, "string", ""),
    },
}


def example_wrapper() -> Any:
    """A message with a nested message, an enum, a timestamp and serialized content."""
    event = event_pb2.Event(data=b"\x00payload", metadata={"k": "v", "": "empty"}, mimetype="APPLICATION_JSON")
    event.type.name = "Reading"
    event.type.major_version = 1
    event.created.FromJsonString("2024-02-29T12:00:00.000000001Z")
    wrapper = event_pb2.EventWrapper(
        id=bytes(10), topic_id=bytes(range(16)), offset=2**64 - 1, event=event.SerializeToString(), local_id=b"local"
    )
    wrapper.publisher.client_id = "client"
    wrapper.region = region_pb2.LKE_US_EAST_1A
    return wrapper


def examples() -> List[Any]:
    """One filled message of every module that has messages."""
    group = groups_pb2.ConsumerGroup(name="g", topic_offsets={"t": 3}, delivery=groups_pb2.AT_LEAST_ONCE)
    group.delivery_timeout.FromSeconds(5)
    return [
        ensign_pb2.PublisherRequest(event=example_wrapper()),
        ensign_pb2.StreamReady(client_id="c", server_id="s", topics={"a": b"1", "b": b"2"}),
        event_pb2.EventContainer(
            epochs={1: 2**63}, regions=["STG_LKE_US_EAST_1A", "UNKNOWN"], keys=[b"k", b""], region_index={0: 1}
        ),
        group,
        query_pb2.Query(query="SELECT * FROM t", params=[query_pb2.Parameter(name="x", i=-1)]),
        topic_pb2.Topic(name="t", status=topic_pb2.READY, types=[event_pb2.Type(name="T")]),
        region_pb2.RegionInfo(id=region_pb2.GCP_US_CENTRAL_1F, name="Iowa"),
        pagination_pb2.Cursor(start_index="a", page_size=-1),
        health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING),
    ]


def digest(path: Path) -> str:
    """The SHA-256 of a text file, whatever its line ends."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def test_generated_files_are_those_recorded() -> None:
    """No .proto file and no generated file was edited, added or removed since the last generation."""
    recorded = {}
    for line in (ROOT / "protos" / "generated.sha256").read_text(encoding="utf-8").splitlines():
        value, name = line.split("  ")
        recorded[name] = value
    paths = list((ROOT / "protos").rglob("*.proto"))
    paths += list((ROOT / "ensign_sync").rglob("*_pb2.py")) + list((ROOT / "ensign_sync").rglob("*_pb2.pyi"))
    assert {path.relative_to(ROOT).as_posix(): digest(path) for path in paths} == recorded


def test_every_proto_has_a_module_and_a_stub() -> None:
    """The record names one module and one stub for each of the nine .proto files."""
    names = [line.split("  ")[1] for line in (ROOT / "protos" / "generated.sha256").read_text().splitlines()]
    assert sorted(name[len("protos/") :] for name in names if name.endswith(".proto")) == sorted(FILES)
    modules = sorted(module.__name__.replace(".", "/") for module, _, _ in FILES.values())
    assert sorted(name[: -len(".py")] for name in names if name.endswith(".py")) == modules
    assert sorted(name[: -len(".pyi")] for name in names if name.endswith(".pyi")) == modules


def test_generate_check() -> None:
    """generate.py --check passes with the right grpcio-tools, and refuses to run with another or none."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import generate; print(generate.installed_version())"
    found = subprocess.run(
        [sys.executable, "-B", "-c", code, str(ROOT / "protos")], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    checked = subprocess.run(
        [sys.executable, str(ROOT / "protos" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
    )
    if importlib.util.find_spec("grpc_tools") is not None and found == REQUIRED_TOOLS:
        assert (checked.returncode, checked.stderr) == (0, "")
    else:
        assert checked.returncode == 2
        assert f"grpcio-tools {REQUIRED_TOOLS} is needed" in checked.stderr


@pytest.mark.parametrize("name", sorted(FILES))
def test_descriptor(name: str) -> None:
    """Every file keeps its descriptor name and package, and its descriptor is byte for byte the official one."""
    module, package, expected = FILES[name]
    assert (module.DESCRIPTOR.name, module.DESCRIPTOR.package) == (name, package)
    if expected is not None:
        assert hashlib.sha256(module.DESCRIPTOR.serialized_pb).hexdigest() == expected


def test_service() -> None:
    """The Ensign service has exactly the thirteen methods, with their messages and kinds."""
    service = descriptor_pb2.ServiceDescriptorProto()
    ensign_pb2.DESCRIPTOR.services_by_name["Ensign"].CopyToProto(service)
    prefix = ".ensign.v1beta1."
    found = {
        method.name: (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
        for method in service.method
    }
    assert found == {name: (prefix + i, prefix + o, c, s) for name, (i, o, c, s) in METHODS.items()}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_fields(name: str) -> None:
    """The messages of the streams have exactly these fields, numbers, types and oneofs."""
    module = ensign_pb2 if hasattr(ensign_pb2, name) else event_pb2
    message = descriptor_pb2.DescriptorProto()
    getattr(module, name).DESCRIPTOR.CopyToProto(message)
    found = {}
    for field in message.field:
        kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)[len("TYPE_") :].lower()
        note = "repeated" if field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED else ""
        if field.HasField("oneof_index"):
            note = message.oneof_decl[field.oneof_index].name
        found[field.name] = (field.number, field.type_name.lstrip(".") or kind, note)
    assert found == FIELDS[name]


@pytest.mark.parametrize("message", examples(), ids=lambda message: str(message.DESCRIPTOR.full_name))
def test_round_trip_pickle_and_copy(message: Any) -> None:
    """A message survives serialization, pickling with every protocol, copying and deep copying."""
    assert message.ByteSize() > 0
    assert type(message).FromString(message.SerializeToString()) == message
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(message, protocol))
        assert loaded == message
        assert type(loaded) is type(message)
    for duplicate in (copy.copy(message), copy.deepcopy(message)):
        assert duplicate == message
        duplicate.Clear()
        assert message.ByteSize() > 0


def test_classes_name_their_module() -> None:
    """Every message class can be found where it says it is defined."""
    for module, _, _ in FILES.values():
        for name in module.DESCRIPTOR.message_types_by_name:
            cls = getattr(module, name)
            assert getattr(importlib.import_module(cls.__module__), cls.__qualname__) is cls


def test_wire_format() -> None:
    """An event is encoded as the field numbers say."""
    event = event_pb2.Event(data=b"hi", mimetype=mimetype_pb2.TEXT_PLAIN)
    assert event.SerializeToString() == b"\x12\x02hi\x20\x01"
    request = ensign_pb2.PublisherRequest(event=event_pb2.EventWrapper(local_id=b"L"))
    assert request.SerializeToString() == b"\x0a\x04\x82\x01\x01L"


def test_oneof() -> None:
    """Setting one member of a oneof clears the others, and an empty member still counts as set."""
    reply = ensign_pb2.PublisherReply()
    assert reply.WhichOneof("embed") is None
    reply.ack.id = b"1"
    assert reply.WhichOneof("embed") == "ack"
    reply.nack.code = ensign_pb2.Nack.TOPIC_UNKNOWN
    assert reply.WhichOneof("embed") == "nack"
    assert not reply.HasField("ack")
    reply.close_stream.SetInParent()
    assert ensign_pb2.PublisherReply.FromString(reply.SerializeToString()).WhichOneof("embed") == "close_stream"
    assert query_pb2.Parameter(name="x", i=0).WhichOneof("value") == "i"
    assert query_pb2.Parameter(name="x").WhichOneof("value") is None


def test_map() -> None:
    """Maps behave like dicts and refuse values of another type."""
    ready = ensign_pb2.StreamReady(topics={"a": b"1"})
    ready.topics["b"] = b"2"
    assert dict(ensign_pb2.StreamReady.FromString(ready.SerializeToString()).topics) == {"a": b"1", "b": b"2"}
    with pytest.raises(TypeError):
        ready.topics["c"] = "3"  # type: ignore[assignment]
    event = event_pb2.Event()
    event.metadata.update({"k": "v"})
    del event.metadata["k"]
    assert event == event_pb2.Event()


def test_enum_alias() -> None:
    """Names that share a MIME number are equal, and the number is named by the first of them."""
    mime = mimetype_pb2.MIME
    assert mimetype_pb2.UNSPECIFIED == mimetype_pb2.UNKNOWN == mimetype_pb2.APPLICATION_OCTET_STREAM == 0
    assert mime.Value("APPLICATION_JSON_UTF8") == mime.Value("APPLICATION_JSON") == 50
    assert (mime.Name(0), mime.Name(50), len(mime.items())) == ("UNSPECIFIED", "APPLICATION_JSON", 32)


def test_unknown_enum_number_is_kept() -> None:
    """An enum number that this version does not know passes through unchanged."""
    data = b"\x28\xff\xac\xe2\x04"
    wrapper = event_pb2.EventWrapper.FromString(data)
    assert (wrapper.region, wrapper.SerializeToString()) == (9999999, data)
