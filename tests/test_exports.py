"""The names that users import, at the paths they know from the official client."""

import importlib
import pkgutil

import pytest

import ensign_sync

PATHS = {
    "ensign_sync.ensign": "Ensign",
    "ensign_sync.events": "Event Type EventState from_object",
    "ensign_sync.ack": "Ack",
    "ensign_sync.nack": "Nack UnhandledMimetype UNHANDLED_MIMETYPE DeliverAgainAny TopicUnknown Unprocessed",
    "ensign_sync.topics": "Topic Deduplication EventType",
    "ensign_sync.projects": "Project",
    "ensign_sync.status": "ServerStatus",
    "ensign_sync.enum": "TopicState DeduplicationStrategy OffsetPosition ShardingStrategy",
    "ensign_sync.mimetypes": "ApplicationJSON TextPlain UserSpecified9 parse to_str",
    "ensign_sync.api.v1beta1.ensign_pb2": "Nack Ack OpenStream",
    "ensign_sync.api.v1beta1.event_pb2": "Event EventWrapper",
    "ensign_sync.api.v1beta1.topic_pb2": "Topic",
    "ensign_sync.node": "Node",
    "ensign_sync.exceptions": (
        "TopicNotFoundError PyEnsignError AuthenticationError CacheMissError UnknownTopicError CouldNotAck"
        " CouldNotNack NackError EnSQLError InvalidQueryError QueryNoRows CursorError CursorNoRows CursorClosedError"
        " EnsignError EnsignRPCError EnsignInvalidArgument EnsignTypeError EnsignAttributeError"
        " EnsignTopicCreateError EnsignTopicDestroyError EnsignInvalidTopicError EnsignTopicNotFoundError"
        " EnsignInitError EnsignTimeoutError EnsignClientClosingError PublishError PublishTimeoutError"
        " EventTooLargeError ConcurrencyError ClientClosedError"
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_names_at_their_paths(path):
    """Every name stands where the official client has it."""
    module = importlib.import_module(path)
    missing = [name for name in PATHS[path].split() if not hasattr(module, name)]
    assert not missing


def test_every_name_of_the_package_loads():
    """__all__ is complete and true, and dir() shows it."""
    for name in ensign_sync.__all__:
        assert getattr(ensign_sync, name) is not None
    assert set(ensign_sync.__all__) <= set(dir(ensign_sync))
    assert ensign_sync.__version__
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        ensign_sync.nothing_of_the_kind  # noqa: B018


def test_every_exception_is_exported():
    """Whatever can be raised can be caught by a name of the package."""
    from ensign_sync import exceptions

    things = vars(exceptions).items()
    names = [name for name, value in things if isinstance(value, type) and issubclass(value, Exception)]
    missing = [name for name in names if name not in ensign_sync.__all__]
    assert not missing


def test_public_things_are_documented():
    """Every public class and function of a root module has a docstring."""
    for info in pkgutil.iter_modules(ensign_sync.__path__):
        if info.ispkg or info.name == "__main__":
            continue
        module = importlib.import_module(f"ensign_sync.{info.name}")
        assert module.__doc__, info.name
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
                assert getattr(value, "__doc__", "x"), f"{info.name}.{name}"
