"""EnSQL on a node: as the real server executes it, or as it is documented (docs/protocol.rst, "EnSQL")."""

import logging
import threading
from typing import Callable, Iterator, List, Optional

from .. import ensql
from ..exceptions import InvalidQueryError, NodeStorageError
from ..ids import RLID
from ..wire import codec, dedup, records
from .core import NO_REQUEST, Caller, Core, guarded
from .rpc import Call, Handler, Refused
from .storage import Log, StoredEvent

logger = logging.getLogger("ensign_sync.node")

#: Rows are given to a call in pieces of so many, or so many bytes.
_PIECE_ROWS = 64
_PIECE_BYTES = 1 << 18

#: So many events may repeat one another in a row.
_LONGEST_CHAIN = 16

#: What every row with a duplicate's mark holds somewhere; most rows do not, and need not be decoded.
_MARK = b"\x60\x01"


class QueryService:
    """Answers EnSQL and Explain."""

    def __init__(self, service: Core) -> None:
        self._service = service

    def open(self, call: Call, caller: Caller) -> Handler:
        """Return what serves a query."""
        return _QueryCall(self._service, call, caller, self)

    def explain(self, request: bytes, call: Call) -> bytes:
        """Tell how a query is understood; the real server refuses."""
        caller = self._service.caller(call, "subscriber")
        if self._service.strict:
            raise Refused("UNIMPLEMENTED", "explain query is not implemented yet")
        select = self._select(records.query_request(request))
        self._topic(caller, select.topic)
        return records.explanation(ensql.explain(select))

    def rows(self, request: records.QueryRequest, caller: Caller) -> Iterator[bytes]:
        """Return the rows of a query; raises Refused for a bad one, before the first row."""
        if not request.text:
            raise Refused("INVALID_ARGUMENT", "invalid query")
        return self._strict_rows(request, caller) if self._service.strict else self._full_rows(request, caller)

    # as the real server

    def _strict_rows(self, request: records.QueryRequest, caller: Caller) -> Iterator[bytes]:
        try:
            parsed = ensql.parse(request.text)
        except ensql.ParserPanic:
            return iter(())  # the call ends OK, as if the topic were empty
        except InvalidQueryError as error:
            raise Refused("INVALID_ARGUMENT", error.details) from error
        found = self._stored(self._topic(caller, parsed.topic), parsed.offset or 0, request.include_duplicates, True)
        # The limit is looked at after a row was sent, so LIMIT 0 returns one.
        return _first((event.wrapper for event in found), None if parsed.limit is None else max(1, parsed.limit))

    # as documented

    def _full_rows(self, request: records.QueryRequest, caller: Caller) -> Iterator[bytes]:
        select = self._select(request)
        number = self._topic(caller, select.topic)
        offset = select.offset or 0
        if isinstance(offset, RLID):
            offset = position_of(self._service.log, number, offset.bytes)
        found = self._stored(number, offset, request.include_duplicates, False)
        plan = ensql.Plan(select)
        rows = map(_timed, found) if _is_plain(select) else (_row(plan, event) for event in found)
        return _first((row for row in rows if row is not None), select.limit)

    def _select(self, request: records.QueryRequest) -> ensql.Select:
        try:
            return ensql.parse_full(request.text, request.params)
        except InvalidQueryError as error:
            raise Refused("INVALID_ARGUMENT", error.details) from error

    # both

    def _topic(self, caller: Caller, name: str) -> int:
        topic = next((t for t in self._service.log.topics(caller.project) if t.name == name), None)
        if topic is None:
            raise Refused("INVALID_ARGUMENT", "unknown topic in query")
        return topic.number

    def _stored(self, number: int, offset: int, duplicates: bool, strict: bool) -> Iterator[StoredEvent]:
        """Yield the events of a topic; duplicates are passed over, or rebuilt from what they repeat."""
        log = self._service.log
        for event in log.read(number, offset):
            if _MARK not in event.wrapper:
                yield event
                continue
            is_duplicate, original_id = dedup.peek(event.wrapper)
            if not is_duplicate:
                yield event
            elif duplicates:
                if len(original_id) < 10 and strict:
                    return  # the real server stumbles, and the query ends there with OK
                rebuilt = whole(log, number, event, dedup.rebuild)
                if rebuilt is not None:
                    yield event._replace(wrapper=rebuilt)


class _QueryCall(Handler):
    """A query in service: rows are read while the client takes them, and no thread waits for a slow one."""

    def __init__(self, service: Core, call: Call, caller: Caller, queries: QueryService) -> None:
        self._service, self._call, self._caller, self._queries = service, call, caller, queries
        self._rows: Iterator[bytes] = iter(())
        self._over = False
        # Decided inside: whether somebody reads on, or the client has to take something first.
        self._lock = threading.Lock()
        self._parked = False

    def received(self, data: bytes) -> bool:
        """Start the query."""
        self._submit(lambda: self._start(data))
        return False

    def half_closed(self) -> None:
        """There was no query at all."""
        self._call.finish("INTERNAL", NO_REQUEST)

    def drained(self) -> None:
        """The client took what there was: read on."""
        with self._lock:
            resume, self._parked = self._parked, False
        if resume:
            self._submit(self._pump)

    def ended(self) -> None:
        """The call is over."""
        self._over = True
        self.drained()

    def _submit(self, work: Callable[[], None]) -> None:
        self._service.pool.submit(guarded, self._service, self._call, work)

    def _start(self, data: bytes) -> None:
        self._rows = self._queries.rows(records.query_request(data), self._caller)
        self._pump()

    def _pump(self) -> None:
        """Read rows until the call has enough of them."""
        while not self._over:
            piece: List[bytes] = []
            size = 0
            try:
                for row in self._rows:
                    piece.append(row)
                    size += len(row)
                    if len(piece) >= _PIECE_ROWS or size >= _PIECE_BYTES:
                        break
            except NodeStorageError as error:
                logger.error("a query was broken off: %s", error)
                raise Refused("INTERNAL", "could not execute query") from error
            self._call.send(*piece)
            if len(piece) < _PIECE_ROWS and size < _PIECE_BYTES:
                self._call.finish()
                return
            with self._lock:
                if not self._call.is_low:
                    self._parked = True
                    return


def _is_plain(select: ensql.Select) -> bool:
    """Tell whether a query asks for whole events of whatever kind, which need not be decoded."""
    return not (select.columns or select.schema or select.where or select.before or select.after)


def _row(plan: ensql.Plan, event: StoredEvent) -> Optional[bytes]:
    """Return an event if the query wants it, with the payload that the query asks for."""
    record = ensql.Record(*records.query_record(event.wrapper, event.id, event.committed_ns))
    if not plan.wants(record):
        return None
    fields = plan.project(record)
    wrapper = event.wrapper if fields is None else records.with_payload(event.wrapper, fields)
    return codec.encode_row(wrapper, event.committed_ns)


def _first(rows: Iterator[bytes], limit: Optional[int]) -> Iterator[bytes]:
    """Yield at most so many rows."""
    if limit == 0:
        return
    for sent, row in enumerate(rows, start=1):
        yield row
        if sent == limit:
            return


def _timed(event: StoredEvent) -> bytes:
    return codec.encode_row(event.wrapper, event.committed_ns)


def position_of(log: Log, topic: int, id: bytes) -> int:
    """Return the position of the first event whose id is not below one, in about twenty short reads."""
    extent = log.extent(topic)
    low, high = extent.first, extent.end
    while low < high:
        middle = (low + high) // 2
        event = log.event_at(topic, middle)
        low, high = (middle + 1, high) if event is not None and event.id < id else (low, middle)
    return low


def event_by_id(log: Log, topic: int, id: bytes) -> Optional[StoredEvent]:
    """Return the event with an id."""
    event = log.event_at(topic, position_of(log, topic, id))
    return event if event is not None and event.id == id else None


def whole(log: Log, topic: int, event: StoredEvent, join: Callable[[bytes, bytes], bytes]) -> Optional[bytes]:
    """Return an event as it was before a policy reduced it; None if what it repeats is gone.

    What it repeats may be reduced itself, by a later policy; a publisher may have forged a circle, so there is an end.
    """
    chain = [event.wrapper]
    for _ in range(_LONGEST_CHAIN):
        is_duplicate, original_id = dedup.peek(chain[-1])
        if not is_duplicate:
            break
        original = event_by_id(log, topic, original_id) if len(original_id) == 10 else None
        if original is None:
            return None
        chain.append(original.wrapper)
    found = chain.pop()
    while chain:
        found = join(found, chain.pop())
    return found
