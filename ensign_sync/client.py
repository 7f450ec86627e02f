"""The client: settings, life-cycle, and the way to everything else."""

import atexit
import logging
import os
import threading
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from . import settings
from .ack import Ack
from .catalog import Catalog
from .cursor import Asked, Cursor, checked_query, open_cursor
from .events import Event, EventState
from .exceptions import (
    ConcurrencyError,
    EnsignClientClosingError,
    EnsignSettingsError,
    EnsignTimeoutError,
)
from .handover.clock import Deadline, Patience
from .handover.locking import holding
from .handover.receipt import PublishFuture
from .settings import Reconnect, Redeliver
from .status import ServerStatus
from .streams.batch import PLAIN, Batch, Encode, encode_for, hand_over, outcome_of_future, prepare, publish_alone
from .streams.connection import Connection, Options
from .streams.line import Outage
from .streams.publishing import Window, request_limit
from .subscription import Asked as Wish
from .subscription import Gap, Subscription, open_subscription, spelling

logger = logging.getLogger("ensign_sync")

_PUBLISHED = EventState.PUBLISHED

#: How long a client that was never closed may take at the end of the program, in seconds.
EXIT_SECONDS = 2.0

#: More unacknowledged events than this can stop a whole server (docs/protocol.rst, "Publisher windows").
MOST_IN_FLIGHT = 16_000


class Ensign(Catalog):
    """A client of an Ensign server. Any thread may use it; it connects on first use.

    Timeouts: None means the client's ``timeout``, counted since the last progress (an ack, a row, room in the
    window); a number given in a call is the total.

    Args:
        client_id, client_secret: The API key; else from ``cred_path``, else ENSIGN_CLIENT_ID and
            ENSIGN_CLIENT_SECRET.
        cred_path: A JSON file with ClientID and ClientSecret, perhaps Endpoint and AuthURL.
        endpoint: ``host:port``, or ``embedded:`` for a node in this process; else ENSIGN_ENDPOINT.
        insecure: Speak plaintext; else ENSIGN_INSECURE.
        auth_url: The auth service; else ENSIGN_AUTH_URL.
        disable_topic_cache: Look the id of a topic up each time.
        timeout: Seconds, see above.
        max_in_flight, max_in_flight_bytes: How much may be unacknowledged at once; publishing waits beyond it.
        resend: Send what was not acknowledged again on the next connection (the server may then have it twice);
            False fails it instead.
        idempotent: Before an event is sent again, look in the log whether it is stored, so that it is not there twice
            (docs/publishing.rst). Each event gets a pair of metadata for that, ``ensign-sync-id``.
        reconnect: The pauses between tries.
        heartbeat: Every so many seconds a subscription sees whether the server still answers, and whether the names of
            its topics still mean what they meant. While an answer is owed, of any kind, silence is believed for at most
            10 of them. A connection on which nothing comes back is replaced (docs/protocol.rst, "Keepalive").
        tls: The path of a CA file, or ``TLS(ca_file, cert_file, key_file)``.
        channel_options: Further options of the gRPC channel. Of these ``grpc.max_send_message_length`` says how large
            an event may be on the wire, in bytes, instead of the 4 MiB less 1 KiB that a server takes by default.
        on_disconnect, on_reconnect: Called with an Outage on a thread for callbacks.

    Raises:
        EnsignSettingsError: (a ValueError) A setting is missing or cannot be understood.
        TypeError: An argument is of the wrong type.
    """

    def __init__(
        self,
        client_id: str = "",
        client_secret: str = "",
        cred_path: str = "",
        endpoint: str = "",
        insecure: Optional[bool] = None,
        auth_url: str = "",
        disable_topic_cache: bool = False,
        *,
        timeout: float = 30.0,
        max_in_flight: int = 512,
        max_in_flight_bytes: int = 64 * 2**20,
        resend: bool = True,
        idempotent: bool = False,
        reconnect: Reconnect = Reconnect(),  # noqa: B008 - immutable
        heartbeat: float = 30.0,
        tls: Any = None,
        channel_options: Sequence[Tuple[str, Any]] = (),
        on_disconnect: Optional[Callable[[Outage], Any]] = None,
        on_reconnect: Optional[Callable[[Outage], Any]] = None,
    ) -> None:
        self._settings = settings.load(client_id, client_secret, cred_path, endpoint, insecure, auth_url, tls)
        if not timeout > 0:
            raise EnsignSettingsError(f"timeout must be a positive number of seconds, got {timeout!r}")
        if not 1 <= max_in_flight <= MOST_IN_FLIGHT:
            raise EnsignSettingsError(f"max_in_flight must be from 1 to {MOST_IN_FLIGHT}, got {max_in_flight!r}")
        if max_in_flight_bytes < 1:
            raise EnsignSettingsError(f"max_in_flight_bytes must be positive, got {max_in_flight_bytes!r}")
        if not heartbeat > 0:
            raise EnsignSettingsError(f"heartbeat must be a positive number of seconds, got {heartbeat!r}")
        self._timeout = float(timeout)
        self._idempotent = bool(idempotent)
        self._cache = None if disable_topic_cache else {}
        self._options = Options(
            window=Window(max_in_flight, max_in_flight_bytes, request_limit(channel_options)),
            resend=resend,
            reconnect=reconnect,
            channel_options=tuple(channel_options),
            spelling=spelling,
            heartbeat=float(heartbeat),
            on_disconnect=on_disconnect,
            on_reconnect=on_reconnect,
        )
        self._lock = threading.Lock()
        self._connection: Optional[Connection] = None
        self._node: Any = None
        self._closed = False

    # publishing

    def publish(
        self,
        topic: str,
        *events: Any,
        on_ack: Optional[Callable[[Any], Any]] = None,
        on_nack: Optional[Callable[[Any], Any]] = None,
        ensure_exists: bool = False,
        timeout: Optional[float] = None,
        idempotent: Optional[bool] = None,
    ) -> List[Ack]:
        """Store events; blocks until the server has acknowledged every one.

        A single list, tuple or iterator is spread. Each event is an Event or what ``from_object`` converts. All are
        checked before the first is sent; an iterator is sent as its items come.

        Args:
            topic: Its name or id.
            events: What to store.
            on_ack: Called with each Ack, in this thread, before this returns.
            on_nack: Called with each Nack; such events then leave None in the list instead of an error.
            ensure_exists: Make the topic if it does not exist.
            timeout: See the class.
            idempotent: Overrides the client's.

        Returns:
            The acks, in the order of the events.

        Raises:
            NackError: The server refused events.
            PublishTimeoutError: The time ran out; tells for each event whether it was never sent or may be stored.
            PublishError: Other events than refused ones failed.
            UnknownTopicError: There is no such topic.
            EventTooLargeError, ValueError, TypeError: An event cannot be sent; nothing was.
            ClientClosedError, AuthenticationError, EnsignConnectionError, EnsignRPCError: As their names say.
        """
        self._check_topic(topic)
        patience = self._patience(timeout)
        if len(events) == 1 and type(events[0]) in _ALONE and on_ack is on_nack is None and not ensure_exists:
            encode = self._encode(topic, patience, idempotent)
            alone = publish_alone(self._connected(), topic, events[0], patience, encode)
            if alone is not None:
                return alone
        objects, whole = _spread(events)
        if ensure_exists:
            self._ensure(topic, patience.remaining)
        encode = self._encode(topic, patience, idempotent)
        batch = Batch(self._connected(), topic, patience, on_ack, on_nack, encode)
        if whole:
            batch.publish_all(objects)
        else:
            batch.publish_each(objects, keep_acks=True)
            if not batch.acks:
                raise ValueError("no events provided")
        acks: List[Any] = batch.acks
        return acks

    def publish_from(
        self,
        topic: str,
        event_iterator: Iterable[Any],
        on_ack: Optional[Callable[[Any], Any]] = None,
        on_nack: Optional[Callable[[Any], Any]] = None,
        timeout: Optional[float] = None,
        idempotent: Optional[bool] = None,
    ) -> int:
        """Store the events of an iterable of any length, in bounded memory; blocks until all are acknowledged.

        At the first failure it stops, waits for the events before it, and raises what ``publish`` would, with the
        index of the item first in ``failures``. Returns how many events were acknowledged.
        """
        self._check_topic(topic)
        patience = self._patience(timeout)
        encode = self._encode(topic, patience, idempotent)
        batch = Batch(self._connected(), topic, patience, on_ack, on_nack, encode)
        batch.publish_each(event_iterator)
        return batch.acknowledged

    def submit(
        self, topic: str, event: Any, timeout: Optional[float] = None, idempotent: Optional[bool] = None
    ) -> "PublishFuture":
        """Hand an event over and go on; returns a ``concurrent.futures.Future`` of its Ack.

        Blocks for at most ``timeout`` seconds, for a first connection and for room in the window; an unknown topic
        and a bad event raise here, as in ``publish``. From then on the event is pending, over any number of
        reconnects, until it is acknowledged or refused (NackError) or the client is closed (PublishTimeoutError).
        Callbacks of the future run on a thread of their own.
        """
        if type(topic) is not str or not topic:
            self._check_topic(topic)
        if timeout is not None:
            self._patience(timeout)  # which checks it
        connection = self._connected()
        stream = connection.publisher()
        encode = PLAIN
        if self._idempotent if idempotent is None else idempotent:
            encode = encode_for(connection, topic, self._patience(timeout))
        item, payload = prepare(event, stream, encode)
        future = PublishFuture(connection.post, outcome_of_future, item)
        state, handle = item._state, item._handle
        # First, since the outcome may be there before the next line.
        item._state, item._handle = _PUBLISHED, future
        try:
            hand_over(connection, stream, topic, payload, future, self._patience, timeout)
        except BaseException:
            item._state, item._handle = state, handle
            raise
        return future

    def flush(self, timeout: Optional[float] = 2.0) -> None:
        """Block until every submitted event is settled; EnsignTimeoutError says how many are open."""
        connection = self._connection
        left = connection.flush(self._patience(timeout)) if connection is not None else 0
        if left:
            raise EnsignTimeoutError(f"{left} events are not acknowledged yet; they stay pending")

    # subscribing and querying

    def subscribe(
        self,
        *topics: Any,
        query: str = "",
        params: Optional[Mapping[str, Any]] = None,
        consumer_group: Optional[Any] = None,
        start: Any = "recent",
        checkpoint: Any = None,
        auto_ack: bool = True,
        max_buffered: int = 1000,
        max_buffered_bytes: int = 64 * 2**20,
        on_gap: Optional[Callable[[Gap], Any]] = None,
        redeliver: Redeliver = Redeliver(),  # noqa: B008 - immutable
        on_dead_letter: Optional[Callable[[Event], Any]] = None,
    ) -> Subscription:
        """Open a subscription; an event that is published after this returned is delivered.

        Blocks until the server has answered and the beginning is found in its log, for at most the client's timeout.
        What the server does not deliver live is read from the log, so no event after the start is missed.

        Args:
            topics: Names or ids. A single list or tuple is spread; none means all topics of the project, also those
                that are made later.
            query, params: Only the events that a query wants, with the payload that it asks for; evaluated here.
            consumer_group: Share the events with the other members, where the server keeps groups; else it is ignored
                with a warning.
            start: "recent" (from now on, and what this client itself published in the last minute), "latest" (from
                now on), "earliest", the id of an event (those after it), a datetime (those stored then or later; in
                its millisecond as exactly as the server says), or a mapping from topics to these.
            checkpoint: Where the position is kept over restarts: a path, or an object, see ``checkpoint.py``. Where
                it holds a position that outranks ``start``.
            auto_ack: Acknowledge an event of an iteration when the next one is asked for.
            max_buffered, max_buffered_bytes: How much waits for the program at most; beyond it the log is read later.
            on_gap: Called with each Gap, on a thread for callbacks: events that are missed and not to be had. Without
                it a warning is logged.
            redeliver: How often and when an event comes again that is refused with DELIVER_AGAIN_ANY or
                DELIVER_AGAIN_NOT_ME, where the server does not see to that itself.
            on_dead_letter: Called on that thread with an event that was refused too often.

        Raises:
            UnknownTopicError: Names the topics that do not exist.
            EnsignSettingsError: (a ValueError) An argument cannot be understood.
            InvalidQueryError: The query is not valid.
            CheckpointError: The checkpoint is damaged, foreign or in use.
            AuthenticationError, EnsignConnectionError, EnsignRPCError: As their names say.
        """
        wanted = topics[0] if len(topics) == 1 and isinstance(topics[0], (list, tuple)) else topics
        for topic in wanted:
            self._check_topic(topic)
        wish = Wish(
            wanted,
            query,
            params,
            consumer_group,
            start,
            checkpoint,
            auto_ack,
            max_buffered,
            max_buffered_bytes,
            on_gap,
            redeliver,
            on_dead_letter,
        )
        return open_subscription(self._connected(), wish, self._patience(None), self._settings.endpoint)

    def query(
        self,
        query: str,
        params: Optional[Mapping[str, Any]] = None,
        include_duplicates: bool = False,
        timeout: Optional[float] = None,
    ) -> Cursor:
        """Read the log with EnSQL; blocks until the first row is there.

        OFFSET counts the stored events, LIMIT those that are returned. What a server does not evaluate (the real one
        knows ``SELECT * FROM topic [OFFSET n] [LIMIT n]``) is evaluated here: every event from the OFFSET on is read
        for it. For params and all that can be asked for see docs/node.rst, "The query language".

        Raises:
            InvalidQueryError: The query is not valid; the text says where and why.
            QueryNoRows: It selects nothing.
        """
        connection, patience = self._connected(), self._patience(timeout)
        parsed = checked_query(query, params, lambda: connection.unary.features(patience.remaining()))
        return open_cursor(connection, parsed, Asked(query, params, include_duplicates, timeout), patience)

    def explain_query(
        self, query: str, params: Optional[Mapping[str, Any]] = None, include_duplicates: bool = False
    ) -> str:
        """Return how the server would run a query; the real server answers EnsignRPCError UNIMPLEMENTED."""
        unary = self._connected().unary
        checked_query(query, params, lambda: ["where"])
        return unary.explain(query, params, include_duplicates, self._timeout)

    # the server and the client itself

    def status(self) -> ServerStatus:
        """Return what the server says of itself; blocks for at most the client's timeout."""
        return self._connected().unary.status(self._timeout)

    def ping(self, timeout: Optional[float] = None) -> ServerStatus:
        """Return the status within ``timeout`` seconds, or raise."""
        return self._connected().unary.status(self._timeout if timeout is None else timeout)

    def stats(self) -> Dict[str, Any]:
        """Return counts so far: published, acked, nacked, failed, resent, in_flight, received and so on."""
        connection = self._connection
        if connection is None:
            connection = Connection(self._settings, self._options)  # opens nothing; gives the zeros
        counts: Dict[str, Any] = connection.stats()
        return counts

    def close(self, timeout: float = 5.0) -> None:
        """End the client: wait for acks, close the streams, join the threads; at most ``timeout`` seconds.

        Events that are not acknowledged by then fail with PublishTimeoutError, and one warning counts them. May be
        called from any thread and any number of times.
        """
        connection = self._begin_to_close()
        # Whoever was interrupted here can close again: nothing is let go before it has ended.
        if connection is not None and connection.pid == os.getpid():
            given_up = connection.close(Deadline(timeout))
            if given_up:
                logger.warning("the client was closed with %d events unacknowledged; they may be lost", given_up)
        if self._node is not None:
            self._release_node()
        _open_clients.discard(self)

    def __enter__(self) -> "Ensign":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The endpoint that the client was made for."""
        return self._settings.endpoint

    def __repr__(self) -> str:
        return f"Ensign(endpoint={self._settings.endpoint!r})"

    # inside

    def _connected(self) -> Connection:
        """Return the connection of this process, made on first use."""
        connection = self._connection
        if connection is not None and connection.pid == os.getpid() and not self._closed:
            return connection
        return self._connect()

    @holding("_lock")
    def _connect(self) -> Connection:
        # One connection per process, none after close.
        if self._closed:
            raise EnsignClientClosingError("the client is closed: make a new one")
        if self._connection is None or self._connection.pid != os.getpid():
            self._connection = Connection(self._reachable_settings(), self._options)
            _open_clients.add(self)
        return self._connection

    @holding("_lock")
    def _begin_to_close(self) -> Optional[Connection]:
        self._closed = True
        return self._connection

    @holding("_lock")
    def _release_node(self) -> None:
        from .node import embedded

        node, self._node = self._node, None
        if node is not None:
            embedded.release(node)

    def _reachable_settings(self) -> settings.Settings:
        """Start the embedded node if the endpoint asks for one. Needs the lock."""
        wanted = self._settings.embedded
        if wanted is None:
            return self._settings
        from .node import embedded

        if self._node is not None and self._node.pid != os.getpid():
            raise ConcurrencyError(
                "this client was made before a fork and its embedded node runs in the parent: serve one for all"
                " processes with 'ensign-sync serve', or make the client in the child"
            )
        if self._node is None:
            self._node = embedded.acquire(wanted)
        return self._settings._replace(
            endpoint=self._node.endpoint,
            auth_url=self._node.auth_url,
            credentials=settings.Credentials(self._node.client_id, self._node.client_secret),
        )

    def _encode(self, topic: str, patience: Patience, idempotent: Optional[bool]) -> Encode:
        if not (self._idempotent if idempotent is None else idempotent):
            return PLAIN
        return encode_for(self._connected(), topic, patience)

    def _patience(self, timeout: Optional[float]) -> Patience:
        if timeout is not None:
            if not isinstance(timeout, (int, float)):
                raise TypeError(f"timeout must be a number of seconds or None, got {timeout!r}")
            if not timeout >= 0:
                raise ValueError(f"timeout must be a number of seconds, not negative, got {timeout!r}")
        return Patience(timeout, self._timeout)

    def _check_topic(self, topic: Any) -> None:
        if not isinstance(topic, str):
            raise TypeError(f"expected type 'str' for topic, got '{type(topic).__name__}'")
        if not topic:
            raise ValueError("topic is required")


#: What is one event for sure, not several.
_ALONE = frozenset((Event, bytes, str, dict))

#: The clients that have a connection. They are kept even if the program forgets them: their events are on the way.
_open_clients: Set[Ensign] = set()


@atexit.register
def _close_all() -> None:
    """Close what the program left open. Runs while daemon threads still do, and starts none."""
    deadline = Deadline(EXIT_SECONDS)
    for client in list(_open_clients):
        client.close(deadline.remaining() or 0.0)


def _spread(events: Tuple[Any, ...]) -> Tuple[Iterable[Any], bool]:
    """Return the events of a call, and whether they are all there already."""
    if len(events) == 1:
        only = events[0]
        if isinstance(only, (list, tuple)):
            events = tuple(only)
        elif isinstance(only, Iterator):
            return only, False
    if not events:
        raise ValueError("no events provided")
    return events, True
