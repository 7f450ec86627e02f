"""What the page of a node shows, taken from its service."""

import ipaddress
import socket
import time
from typing import Any, Callable, Dict, Iterator, List, Set

from ..enum import TopicState
from ..exceptions import InvalidQueryError, TopicNotFoundError
from ..ids import ULID
from ..wire.codec import decode_event, decode_row
from ..wire.records import QueryRequest, TopicRecord
from .core import Caller
from .page import Look, event_preview
from .rpc import Refused
from .service import VERSION, Service

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def look_at(service: Callable[[], Service], project: bytes, path: str) -> Look:
    """Return what the page may see of the topics of a project; ``service`` returns the one that lives now."""

    def overview() -> Dict[str, Any]:
        living = service()
        now = time.monotonic()
        node = {"name": "ensign-sync", "version": VERSION, "strict": living.strict, "uptime_s": now - living.started}
        topics = [_topic(living, number) for number in (t.number for t in living.log.topics(project))]
        clients = [
            {**stream._asdict(), "seconds": now - stream.opened, "topics": list(stream.topics)}
            for stream in living.streams()
        ]
        return {"node": {**node, "path": path}, "topics": topics, "clients": clients, "server_time": time.time()}

    def last_events(topic: str, most: int) -> List[Dict[str, Any]]:
        living = service()
        found = next((t for t in living.log.topics(project) if topic in (str(ULID(t.id)), t.name)), None)
        if found is None:
            raise TopicNotFoundError(topic)
        start = max(0, living.log.count(found.number) - most)
        return [_preview(row.wrapper, found.name) for row in living.log.read(found.number, start)]

    def query(text: str, most: int) -> Dict[str, Any]:
        caller = Caller("", ("subscriber",), project)
        try:
            rows: Iterator[bytes] = service().queries.rows(QueryRequest(text, {}, False), caller)
        except Refused as refusal:
            raise InvalidQueryError(refusal.details) from refusal
        found = [row for row, _ in zip(rows, range(most + 1))]
        return {"rows": [_preview(row, "") for row in found[:most]], "more": len(found) > most}

    return Look(overview, last_events, query)


def _topic(service: Service, number: int) -> Dict[str, Any]:
    topic, extent = service.log.topic(number), service.log.extent(number)
    record = TopicRecord(topic.record) if topic is not None else TopicRecord.named("")
    return {
        "id": str(ULID(record.id)) if record.id else "",
        "name": record.name,
        "events": extent.end - extent.first,
        "bytes": extent.size,
        "readonly": record.readonly,
        "status": (TopicState.READONLY if record.readonly else record.status).name,
    }


def _preview(wrapper: bytes, topic: str) -> Dict[str, Any]:
    return event_preview(decode_event(decode_row(wrapper), topic))


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_any(host: str) -> bool:
    """Tell whether an address stands for all of the machine's."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""


def shown(host: str) -> str:
    """Return a host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """Return the host at which this machine reaches an address that is listened on."""
    if is_any(host):
        return "[::1]" if ":" in host else "127.0.0.1"
    return shown(host)


def own_names(host: str, port: int) -> Set[str]:
    """Return the ``host:port`` texts under which a browser may address the node."""
    names = {*LOOPBACK_NAMES, shown(host)}
    if is_any(host):
        name = socket.gethostname()
        names.add(name)
        try:
            names.update(shown(str(info[4][0])) for info in socket.getaddrinfo(name, None))
        except OSError:  # the machine does not know itself by name
            names.discard("")
    return {f"{name}:{port}" for name in names}
