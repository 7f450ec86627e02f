"""The calls of the service: path, and whether it may be repeated (docs/protocol.rst, "Service and messages")."""

from typing import NamedTuple

SERVICE = "ensign.v1beta1.Ensign"
HEALTH_SERVICE = "grpc.health.v1.Health"

#: The metadata in which a friendly node announces what it does itself; the real server sends none.
FEATURES = "ensign-features"


class Method(NamedTuple):
    """One call of a service."""

    name: str
    service: str = SERVICE

    @property
    def path(self) -> str:
        """The path of the call on the wire."""
        return f"/{self.service}/{self.name}"


PUBLISH = Method("Publish")
SUBSCRIBE = Method("Subscribe")
ENSQL = Method("EnSQL")
EXPLAIN = Method("Explain")
LIST_TOPICS = Method("ListTopics")
CREATE_TOPIC = Method("CreateTopic")
RETRIEVE_TOPIC = Method("RetrieveTopic")
DELETE_TOPIC = Method("DeleteTopic")
TOPIC_NAMES = Method("TopicNames")
TOPIC_EXISTS = Method("TopicExists")
SET_TOPIC_POLICY = Method("SetTopicPolicy")
INFO = Method("Info")
STATUS = Method("Status")
HEALTH_CHECK = Method("Check", HEALTH_SERVICE)
HEALTH_WATCH = Method("Watch", HEALTH_SERVICE)
