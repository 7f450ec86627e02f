"""The gRPC service of a node: which call is served by what (docs/protocol.rst)."""

import time
from typing import Any, Dict, Optional

from ..status import Duration, ServerStatus
from ..times import Instant
from ..version import __version__
from ..wire import methods, records
from ..wire.codec import BadMessage
from .core import NO_REQUEST, Answer, Core, OpenStream, SingleCall
from .queries import QueryService
from .rpc import Call, Handler, Refused
from .streams import PublishStream, SubscribeStream
from .topics import TopicService

VERSION = f"{__version__} (ensign-sync node)"
IN_MAINTENANCE = "the Ensign server is currently in maintenance mode"
HEALTHY, MAINTENANCE = 1, 5
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

#: What a friendly node does itself, told in the metadata of every call.
FEATURES = "groups,redelivery,where,dedup"

_PUBLIC = frozenset(m.path for m in (methods.STATUS, methods.HEALTH_CHECK, methods.HEALTH_WATCH))


class Service(Core):
    """Opens the handler of each call, and answers what needs no token."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Start; the arguments are those of ``Core``."""
        super().__init__(*args, **options)
        self.topics = TopicService(self)
        self.queries = QueryService(self)
        single: Dict[methods.Method, Answer] = {
            **self.topics.answers(),
            methods.STATUS: self.status,
            methods.EXPLAIN: self.queries.explain,
            methods.HEALTH_CHECK: self.health,
        }
        self._single = {method.path: answer for method, answer in single.items()}

    def open(self, call: Call) -> Optional[Handler]:
        """Return the handler of a call, None if there is no such method."""
        public = call.method in _PUBLIC
        if self.in_maintenance and not public:
            raise Refused("UNAVAILABLE", IN_MAINTENANCE)
        if call.method in self._single:
            if not public:
                self.claims(call)  # a stranger costs no thread
            return SingleCall(self, call, self._single[call.method])
        if call.method == methods.PUBLISH.path:
            return PublishStream(self, self.caller(call, "publisher"), call)
        if call.method == methods.SUBSCRIBE.path:
            return SubscribeStream(self, self.caller(call, "subscriber"), call)
        if call.method == methods.ENSQL.path:
            return self.queries.open(call, self.caller(call, "subscriber", "topics:read"))
        if call.method == methods.HEALTH_WATCH.path:
            return _HealthWatch(self, call)
        return None

    # single calls

    def status(self, _: bytes, call: Call) -> bytes:
        """Answer Status; needs no token."""
        up = time.monotonic() - self.started
        now = self.clock.now_ns()
        uptime = Duration(int(up), int(up % 1 * 1e9))
        soon, later = now + 60_000_000_000, now + 3_600_000_000_000
        state = MAINTENANCE if self.in_maintenance else HEALTHY
        return records.status_reply(ServerStatus(state, VERSION, uptime, Instant.from_ns(soon), Instant.from_ns(later)))

    def health(self, request: bytes, call: Call) -> bytes:
        """Answer the health check of load balancers; needs no token."""
        return records.health_reply(SERVING if records.health_request(request) == "" else 0)


class _HealthWatch(OpenStream):
    """Tells the health now and when it changes, which it does at the end."""

    def __init__(self, service: Service, call: Call) -> None:
        self._service = service
        self._call = call
        self._known = True

    def received(self, data: bytes) -> bool:
        """Answer the current health, and stay."""
        try:
            self._known = records.health_request(data) == ""
        except BadMessage:
            raise self._service.unreadable() from None
        self._service.add_stream(self)  # first, so that who has an answer is also told of the end
        self._call.send(records.health_reply(SERVING if self._known else SERVICE_UNKNOWN))
        return False  # there is one request; who sends more and reads nothing must not be answered without end

    def half_closed(self) -> None:
        """There was no request at all."""
        self._call.finish("INTERNAL", NO_REQUEST)

    def finish(self) -> None:
        """The node ends."""
        if self._known:
            self._call.send(records.health_reply(NOT_SERVING))
        self._call.finish()

    def ended(self) -> None:
        """The call is over."""
        self._service.remove_stream(self)

