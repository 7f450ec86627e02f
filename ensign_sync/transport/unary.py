"""Calls: single ones and queries, values in, values out (docs/protocol.rst, "Topics", "Info and status", "EnSQL").

Streams are opened here too; they carry bytes.
"""

import contextlib
import functools
import random
from typing import Any, Callable, FrozenSet, Iterable, Iterator, List, Mapping, Optional, Tuple, TypeVar

import grpc

from ..enum import TopicState
from ..exceptions import (
    EnsignClientClosingError,
    EnsignConnectionError,
    EnsignError,
    EnsignRPCError,
    EnsignTimeoutError,
)
from ..handover.clock import Clock, Deadline
from ..handover.locking import Signal
from ..ids import ULID
from ..projects import Project
from ..protocol import retry
from ..protocol.frames import Delivery
from ..protocol.retry import History
from ..settings import Reconnect, Settings
from ..status import ServerStatus
from ..topics import Deduplication, Topic
from ..wire import messages, methods
from ..wire.codec import decode_row, decode_row_with_origin
from ..wire.methods import Method
from . import direct_call
from .auth import TokenSource
from .call import Call
from .channel import to_exception
from .choice import open_call, open_rows
from .liveness import Liveness

_T = TypeVar("_T")

#: The shortest deadline that is worth sending to a server.
_SHORTEST = 0.001
PAGE_SIZE = 100


class Unary:
    """The calls of one connection. Any thread may use it; each call blocks for at most its ``timeout`` seconds.

    A call that could not reach the server is tried again until its time is up.

    Raises (every method):
        EnsignConnectionError: The server could not be reached within the time.
        EnsignTimeoutError: It was reached but did not answer within the time.
        EnsignRPCError: It answered with an error status.
        AuthenticationError: The credentials were refused.
    """

    def __init__(
        self,
        channel: Callable[[], grpc.Channel],
        tokens: TokenSource,
        settings: Settings,
        liveness: Liveness,
        clock: Optional[Clock] = None,
    ) -> None:
        """Make what calls on the ``channel()`` of now, and has that checked when an answer takes long."""
        self._liveness = liveness
        self._channel = channel
        self._tokens = tokens
        self._settings = settings
        self._clock = clock or Clock()
        self._pauses = Signal()
        self._policy = Reconnect(initial=0.05, maximum=1.0)
        self._features: Optional[FrozenSet[str]] = None

    def close(self) -> None:
        """Wake the calls that pause before another try; they raise what they met."""
        self._pauses.set()

    def metadata(self, timeout: Optional[float] = None) -> Tuple[Tuple[Tuple[str, str], ...], Optional[str]]:
        """Return the metadata of a call and the token in it."""
        token = self._tokens.current(timeout)
        return ((("authorization", f"Bearer {token}"),) if token else ()), token

    def pause(self, seconds: float, woken: Signal) -> None:
        """Wait before another try, until the event is set at most; the channel connects meanwhile."""
        try:
            direct_call.pause(self._channel(), seconds, woken)
        except EnsignClientClosingError:
            woken.wait(seconds)

    # the calls

    def features(self, timeout: float) -> FrozenSet[str]:
        """Return what the server announces that it does itself (docs/node.rst); asks it if nothing did before."""
        if self._features is None:
            self.status(timeout)
        return self._features or frozenset()

    def status(self, timeout: float) -> ServerStatus:
        """Ask the server how it is."""
        return self._call(methods.STATUS, b"", messages.status_reply, timeout)

    def topics(self, timeout: float) -> List[Topic]:
        """List all topics of the project, page by page."""
        deadline = Deadline(timeout, self._clock)
        found: List[Topic] = []
        token = ""
        while True:
            request = messages.page_request(PAGE_SIZE, token)
            page = self._call(methods.LIST_TOPICS, request, messages.topics_page_reply, deadline.remaining() or 0.0)
            found.extend(page.items)
            token = page.next_token
            if not token:
                return found

    def create_topic(self, name: str, timeout: float) -> Topic:
        """Make a topic. Its id is chosen here, so a try that succeeded unseen is recognised by the next."""
        id = ULID.new()
        request = messages.create_topic_request(name, id)
        deadline = Deadline(timeout, self._clock)
        history: List[Exception] = []
        try:
            return self._call(methods.CREATE_TOPIC, request, messages.topic_reply, timeout, history)
        except EnsignRPCError:
            if not history:
                raise
            try:
                return self.retrieve_topic(id, deadline.remaining() or 0.0)
            except EnsignError:
                pass  # not made by an earlier try either: the refusal stands
            raise

    def retrieve_topic(self, id: ULID, timeout: float) -> Topic:
        """Fetch one topic by its id."""
        return self._call(methods.RETRIEVE_TOPIC, messages.retrieve_topic_request(id), messages.topic_reply, timeout)

    def topic_exists(self, name: str, timeout: float) -> bool:
        """Ask whether a name is taken."""
        return self._call(
            methods.TOPIC_EXISTS, messages.topic_exists_request(name), messages.topic_exists_reply, timeout
        )

    def delete_topic(self, id: ULID, operation: int, timeout: float) -> TopicState:
        """Archive or destroy a topic; returns what it is doing now."""
        request = messages.delete_topic_request(id, operation)
        return self._call(methods.DELETE_TOPIC, request, messages.topic_status_reply, timeout)[1]

    def set_topic_policy(
        self, id: ULID, deduplication: Optional[Deduplication], sharding: int, timeout: float
    ) -> TopicState:
        """Set the policies of a topic; returns what it is doing now."""
        request = messages.policy_request(id, deduplication, sharding)
        return self._call(methods.SET_TOPIC_POLICY, request, messages.topic_status_reply, timeout)[1]

    def info(self, topics: Iterable[ULID], timeout: float) -> Project:
        """Fetch the counts of the project, or of some topics."""
        return self._call(methods.INFO, messages.info_request(topics), messages.info_reply, timeout)

    def explain(self, query: str, params: Optional[Mapping[str, Any]], duplicates: bool, timeout: float) -> str:
        """Ask how the server would run a query."""
        request = messages.query_request(query, params, duplicates)
        return self._call(methods.EXPLAIN, request, messages.explain_reply, timeout)

    def query(
        self,
        query: str,
        params: Optional[Mapping[str, Any]],
        duplicates: bool,
        timeout: Optional[float],
        origins: bool = False,
    ) -> "Rows":
        """Start a query; the rows are read as they are asked for, with ``origins`` also who published them.

        ``timeout`` bounds the whole, None does not.
        """
        request = messages.query_request(query, params, duplicates)
        metadata, token = self.metadata(timeout)
        channel = self._channel()
        with self._on(channel):
            call = open_rows(channel, methods.ENSQL, request, metadata, self._settings, timeout)
        decode = decode_row_with_origin if origins else decode_row
        cancelled = functools.partial(self._cancelled, channel)
        return Rows(call, decode, lambda: self._tokens.invalidate(token), cancelled, self._liveness, self._clock.now)

    def open_stream(self, method: Method) -> Tuple[Call, Callable[[], None]]:
        """Start a bidirectional call; returns it, and what to do if its token is refused."""
        metadata, token = self.metadata()
        channel = self._channel()
        with self._on(channel):
            call = open_call(channel, method, metadata, self._settings)
        return call, lambda: self._tokens.invalidate(token)

    # how they are made

    @contextlib.contextmanager
    def _on(self, channel: grpc.Channel) -> Iterator[None]:
        """Tell, if a block finds the channel closed, why it is."""
        try:
            yield
        except EnsignError:
            raise
        except ValueError as error:
            raise self._closed(channel, error) from error

    def _cancelled(self, channel: grpc.Channel, failure: EnsignError) -> EnsignError:
        """Return why a call was cancelled: whoever closes a channel cancels all calls on it."""
        return self._closed(channel, failure) if self._pauses.is_set() or self._channel() is not channel else failure

    def _closed(self, channel: grpc.Channel, error: Exception) -> EnsignError:
        """Make the error for a call whose channel was closed, and another taken if the client was not closed."""
        if self._pauses.is_set() or self._channel() is channel:
            return EnsignClientClosingError(f"the client was closed during this call: {error}")
        details = f"the connection was replaced during this call: {error}"
        return EnsignConnectionError(self._settings.endpoint, "UNAVAILABLE", details)

    def _call(
        self,
        method: Method,
        request: bytes,
        decode: Callable[[bytes], _T],
        timeout: float,
        failed_tries: Optional[List[Exception]] = None,
    ) -> _T:
        deadline = Deadline(timeout, self._clock)
        history = History()
        unreachable: Optional[EnsignError] = None
        while True:
            try:
                return decode(self._once(method, request, max(_SHORTEST, deadline.remaining() or 0.0)))
            except EnsignError as error:
                pause = self._pause_before_retry(error, history, deadline)
                if pause is None:
                    if unreachable is not None and isinstance(error, EnsignTimeoutError):
                        raise unreachable from error  # the last try had no time left; this is what was wrong
                    raise
                unreachable = error if isinstance(error, ConnectionError) else None
                history = history._replace(
                    attempts=history.attempts + 1,
                    refusals=history.refusals + 1 if retry.is_token_refused(error) else 0,
                )
                if failed_tries is not None and not retry.is_token_refused(error):
                    failed_tries.append(error)
                self.pause(pause, self._pauses)

    def _pause_before_retry(self, error: EnsignError, history: History, deadline: Deadline) -> Optional[float]:
        if isinstance(error, EnsignTimeoutError) or deadline.passed or self._pauses.is_set():
            return None
        if not (isinstance(error, ConnectionError) or retry.is_token_refused(error)):
            return None
        pause = retry.decide(error, history, random.random(), self._policy)
        remaining = deadline.remaining()
        if pause is None or (remaining is not None and pause >= remaining):
            return None
        return pause

    def _once(self, method: Method, request: bytes, timeout: float) -> bytes:
        deadline = Deadline(timeout, self._clock)
        metadata, token = self.metadata(timeout)
        seconds = max(_SHORTEST, deadline.remaining() or 0.0)
        channel, began = self._channel(), self._clock.now()
        try:
            with self._on(channel), direct_call.letting_go(channel), self._liveness.waiting(deadline):
                call = channel.unary_unary(method.path)
                reply, answered = call.with_call(request, timeout=seconds, metadata=metadata)
            told = [str(value) for key, value in answered.initial_metadata() if key == methods.FEATURES]
            self._features = frozenset(name for text in told for name in text.split(","))
            self._liveness.lives(began)
            return bytes(reply)
        except grpc.RpcError as error:
            failure = to_exception(error, method.name, self._settings)
        if retry.is_token_refused(failure):
            self._tokens.invalidate(token)
        if failure.code == "CANCELLED":
            raise self._cancelled(channel, failure) from failure
        if failure.code == "DEADLINE_EXCEEDED":
            self._liveness.suspect(self._clock.now())
            raise EnsignTimeoutError(
                f"{method.name} got no answer from {self._settings.endpoint} within {timeout:.3g} s"
            ) from failure
        raise failure


class Rows:
    """The rows of a running query. One thread at a time reads; any may cancel."""

    def __init__(
        self,
        call: Call,
        decode: Callable[[bytes], Delivery],
        token_refused: Callable[[], None],
        cancelled: Callable[[EnsignError], EnsignError],
        liveness: Liveness,
        now: Callable[[], float],
    ) -> None:
        self._cancelled, self._liveness, self._now = cancelled, liveness, now
        self._decode = decode
        self._call = call
        self._token_refused = token_refused

    def __iter__(self) -> Iterator[Delivery]:
        try:
            decode = self._decode
            for data in self._call.messages():
                yield decode(data)
        except EnsignError as failure:
            if retry.is_token_refused(failure):
                self._token_refused()
            if failure.code == "DEADLINE_EXCEEDED":
                self._liveness.suspect(self._now())
            if failure.code == "CANCELLED":
                raise self._cancelled(failure) from failure
            raise

    def cancel(self) -> None:
        """End the query; the reader's iteration ends with a CANCELLED error."""
        self._call.cancel()

    def expire(self) -> None:
        """Do so since no row came in time."""
        self._liveness.suspect(self._now())
        self.cancel()
