"""The rows of a query."""

import contextlib
import threading
import weakref
from typing import Any, Callable, Collection, Iterator, List, Mapping, NamedTuple, Optional

from . import ensql
from .events import Event
from .exceptions import (
    ConcurrencyError,
    CursorClosedError,
    EnsignError,
    EnsignInvalidArgument,
    EnsignTimeoutError,
    InvalidQueryError,
    QueryNoRows,
)
from .handover.clock import Patience
from .handover.watchdog import OVER, Watched
from .streams.connection import Connection


class Cursor:
    """Reads the rows of a query as they are asked for. Iterator and context manager.

    One thread at a time may fetch; ``close`` may be called from any thread. Each fetch blocks for at most the
    client's timeout without a row, or until the timeout that was given to ``query`` has passed in total.
    """

    def __init__(
        self,
        rows: Iterator[Event],
        cancel: Callable[[], None],
        release: Callable[[], None],
        timed_out: Callable[[], bool],
        limit: Optional[int] = None,
    ) -> None:
        """Wrap running rows; made by ``Ensign.query``."""
        self._rows = rows
        self._cancel = cancel
        self._release = release
        self._timed_out = timed_out
        self._left = limit
        self._ahead: List[Event] = []
        self._closed = False
        self._at_end = False
        self._reading = threading.Lock()

    def fetchone(self) -> Optional[Event]:
        """Return the next row, or None at the end.

        Raises:
            CursorClosedError: The cursor was closed.
            ConcurrencyError: Another thread is fetching.
            EnsignTimeoutError: No row came in time.
            EnsignError: The query broke off.
        """
        if not self._reading.acquire(False):
            raise ConcurrencyError("another thread is fetching from this cursor: give each thread its own query")
        try:
            return self._next()
        finally:
            self._reading.release()

    def fetchmany(self, n: int = 1) -> List[Event]:
        """Return up to ``n`` rows; an empty list at the end."""
        found: List[Event] = []
        while len(found) < n:
            row = self.fetchone()
            if row is None:
                break
            found.append(row)
        return found

    def fetchall(self) -> List[Event]:
        """Return all rows that are left; an empty list at the end."""
        return list(self)

    def close(self) -> None:
        """End the query; fetching afterwards raises CursorClosedError."""
        if not self._closed:
            self._closed = True
            self._cancel()
            self._release()

    def __iter__(self) -> "Cursor":
        return self

    def __next__(self) -> Event:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _peek(self) -> bool:
        """Read one row ahead; tells whether there is one."""
        row = self._next()
        if row is not None:
            self._ahead.append(row)
            if self._left is not None:
                self._left += 1
        return row is not None

    def _next(self) -> Optional[Event]:
        if self._closed:
            raise CursorClosedError("the cursor is closed: query again")
        if self._at_end or self._left == 0:
            self._finish()
            return None
        row = self._ahead.pop() if self._ahead else self._read()
        if row is not None and self._left is not None:
            self._left -= 1
        return row

    def _read(self) -> Optional[Event]:
        try:
            return next(self._rows)
        except StopIteration:
            self._finish()
            return None
        except EnsignError as error:
            self._finish()
            if self._closed:
                raise CursorClosedError("the cursor was closed while it was fetching") from error
            if self._timed_out() or error.code == "DEADLINE_EXCEEDED":
                raise EnsignTimeoutError("the query gave no further row in time") from error
            raise

    def _finish(self) -> None:
        self._at_end = True
        self._cancel()
        self._release()


class Asked(NamedTuple):
    """A query as it goes to the server."""

    query: str
    params: Optional[Mapping[str, Any]]
    include_duplicates: bool
    timeout: Optional[float]


class Checked(NamedTuple):
    """What a query is about.

    Attributes:
        topic: The name of its topic.
        limit: How many rows it asks for.
        select: The query, where what it says beyond a topic, OFFSET and LIMIT is to be evaluated here.
    """

    topic: str
    limit: Optional[int]
    select: Optional[ensql.Select] = None


def open_cursor(
    connection: Connection, parsed: Checked, asked: Asked, patience: Patience
) -> Cursor:
    """Start a query and wait for its first row; tried once more if the connection or the token was of the past.

    Raises:
        InvalidQueryError: The server does not take it.
        QueryNoRows: It selects nothing.
    """
    for last_try in (False, True):
        cursor = _start(connection, parsed, asked, patience)
        try:
            if cursor._peek():
                return cursor
        except EnsignInvalidArgument as error:
            raise InvalidQueryError(f"{error.details}: {parsed.topic}") from error
        except EnsignError as error:
            if last_try or not (error.code == "UNAUTHENTICATED" or isinstance(error, ConnectionError)):
                raise
            continue
        cursor.close()
        raise QueryNoRows(f"no rows in result set: {asked.query}")
    raise AssertionError("unreachable: the loop returns or raises")


def _start(
    connection: Connection, parsed: Checked, asked: Asked, patience: Patience
) -> Cursor:
    text, params, wanted = asked.query, asked.params, None
    if parsed.select is not None:
        wanted = ensql.Filter(parsed.select)
        text, params = _readable(parsed.select), None
    reading = connection.unary.query(text, params, asked.include_duplicates, asked.timeout)
    now, liveness = connection.now, connection.liveness
    asked_at: List[Optional[float]] = [None]  # for the row that is waited for

    def rows() -> Iterator[Event]:
        iterator = iter(reading)
        while wanted is None or not wanted.at_end:
            asked_at[0] = began = now()
            try:
                row = next(iterator, None)
            finally:
                asked_at[0] = None
            if row is None:
                return
            liveness.lives(began)
            patience.progress()
            event = connection.decode_event(row, parsed.topic)
            if wanted is None or wanted.wants(event):
                yield event

    # A cursor that is forgotten, and not closed, is watched no longer.
    still_read = weakref.ref(reading)

    def since() -> Optional[float]:
        return OVER if still_read() is None else asked_at[0]

    def remaining() -> Optional[float]:
        at = since()
        return at if at is None or at == OVER else patience.remaining()

    def expire() -> None:
        late = still_read()
        if late is not None:
            late.expire()

    # The rows are read on the thread that asks for them, which a silent server would hold for ever.
    watched = Watched(remaining, expire)
    connection.watchdog.add(watched)
    watching = contextlib.ExitStack()
    watching.callback(connection.watchdog.remove, watched)
    watching.enter_context(liveness.waiting_since(since))
    return Cursor(
        rows(),
        cancel=reading.cancel,
        release=watching.close,
        timed_out=lambda: patience.passed,
        limit=parsed.limit,
    )


def query_text(query: Any) -> str:
    """Return the query if it is a text with something in it."""
    if not isinstance(query, str):
        raise TypeError(f"expected type 'str' for query, got '{type(query).__name__}'")
    if not query.strip():
        raise InvalidQueryError("empty query is invalid")
    return query


def checked_query(query: Any, params: Optional[Mapping[str, Any]], features: Callable[[], Collection[str]]) -> Checked:
    """Check a query before it is sent: the real server answers some invalid ones with OK and no rows.

    What the real server does not evaluate is left to one that announces ``where``, and evaluated here otherwise: then
    every row of the topic from the OFFSET on comes over the wire.
    """
    text = query_text(query)
    try:
        parsed = ensql.parse(text)
        if not (parsed.where or parsed.fields or parsed.schema):
            return Checked(parsed.topic, parsed.limit)
    except InvalidQueryError as of_the_server:
        try:
            select = ensql.parse_full(text, params)
        except InvalidQueryError:
            if params:
                raise  # that of the real server would be about the colon
            raise of_the_server from None
        if not ("where" in features() or ensql.is_queryable(select.topic)):
            raise
    else:
        select = ensql.parse_full(text, params)
    return Checked(select.topic, select.limit, None if "where" in features() else select)


def _readable(select: ensql.Select) -> str:
    """Return the query that any server takes, for the rows among which the wanted ones are."""
    offset = f" OFFSET {select.offset}" if isinstance(select.offset, int) and select.offset else ""
    return f"SELECT * FROM {select.topic}{offset}"
