"""Everything of a client that belongs to one process: channel, tokens, streams, threads."""

import functools
import itertools
import logging
import os
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..events import Event
from ..exceptions import EnsignClientClosingError, EnsignError, EnsignTopicNotFoundError
from ..handover.callbacks import CallbackThread
from ..handover.clock import Clock, Deadline, Patience
from ..handover.inbox import Inbox
from ..handover.locking import LockTimeoutError, hold, holding
from ..handover.spawn import gather
from ..handover.watchdog import Watchdog
from ..ids import RLID, ULID, is_ulid
from ..protocol.catchup_values import LookBack
from ..protocol.frames import Delivery, Made, Payload
from ..protocol.start import Starts, before_milliseconds
from ..settings import Reconnect, Redeliver, Settings
from ..transport.auth import TokenSource
from ..transport.channel import open_channel
from ..transport.direct_call import letting_go
from ..transport.liveness import Liveness
from ..transport.unary import Unary
from ..wire import codec, methods
from ..wire.methods import Method
from .doubt import Doubts
from .healing import Doors, GapDoor, Healing, Plan
from .heartbeat import Heartbeat
from .line import Hooks, Line, Outage
from .log import Log, Spelling
from .progress import Progress
from .publishing import PublishStream, Window
from .redelivery import Redelivery
from .stream import Stream
from .subscribing import SubscribeStream

logger = logging.getLogger("ensign_sync")


#: How long ``close`` waits for threads at least, in seconds, even if events took all of its time.
ENDING_SECONDS = 1.0


#: So many seconds of them for threads that end by themselves, before the channel is closed.
_SHORTLY = 0.3

#: What a client published less than this before it subscribes is delivered to it, in seconds.
RECENT_SECONDS = 60.0


def _seconds_before(milliseconds: int) -> bytes:
    return before_milliseconds(milliseconds - int(RECENT_SECONDS * 1000))


class Subscribed(NamedTuple):
    """What a subscription is to be like, besides its topics.

    Attributes:
        start: Where its topics begin, as the program says it.
        checkpoint: Where it goes on, if anywhere.
        group: Its consumer group, empty for none.
        server_redelivers: The server keeps the group and delivers again what is refused, so nothing is done here.
        redeliver: How refused events are delivered again.
        gap, give_up: What to do about a gap, and about an event that was refused too often; they must not wait.
    """

    start: Any
    checkpoint: Any
    group: str
    server_redelivers: bool
    redeliver: Redeliver
    gap: GapDoor
    give_up: Callable[[Delivery, str], None]


class Options(NamedTuple):
    """How a connection behaves, as the client was told; ``spelling`` is how queries name topics."""

    window: Window
    resend: bool
    reconnect: Reconnect
    spelling: Spelling
    channel_options: Tuple[Tuple[str, Any], ...] = ()
    heartbeat: float = 30.0
    on_disconnect: Optional[Callable[[Outage], None]] = None
    on_reconnect: Optional[Callable[[Outage], None]] = None


class Connection:
    """The connection of one client in one process. Any thread may use it; everything is made on first need."""

    decode_event = staticmethod(codec.decode_event)

    def __init__(self, settings: Settings, options: Options, clock: Optional[Clock] = None) -> None:
        self.settings = settings
        self.options = options
        self.pid = os.getpid()
        self._clock = clock or Clock()
        self.now = self._clock.now
        self._lock = threading.Lock()
        self._channel: Any = None
        self._closed = False  # no new work is taken
        self._closing = threading.Lock()  # held by who ends it
        self._finished = False
        self._publisher: Optional[PublishStream] = None
        self._subscribers: List[SubscribeStream] = []
        self._past_origins: Set[str] = set()
        self._past_counts = dict.fromkeys(
            ("published", "acked", "nacked", "failed", "resent", "found", "reconnects"), 0
        )
        self.tokens = TokenSource(settings, clock=self._clock)
        self.callbacks = CallbackThread()
        self.post = self.callbacks.post
        self.watchdog = Watchdog()
        self.liveness = Liveness(
            self._open_channel,
            self._replace_channel,
            self._signs,
            settings,
            options.heartbeat,
            self.watchdog,
            self._clock,
        )
        self.unary = Unary(self.channel, self.tokens, settings, self.liveness, self._clock)
        self._log = Log(self.unary, options.spelling)
        # What is accepted is seen to until the end of ``close``, which takes nothing more from the program.
        self._last_unary = Unary(self._open_channel, self.tokens, settings, self.liveness, self._clock)
        self._key_numbers = itertools.count(int.from_bytes(ULID.new().bytes, "big"))
        self._searchable: Set[str] = set()  # topics whose log can be searched for events in doubt
        self.hooks = Hooks(self._hook(options.on_disconnect), self._hook(options.on_reconnect))

    @holding("_lock")
    def channel(self) -> Any:
        """Return the gRPC channel, opened on first need."""
        if self._closed:
            raise EnsignClientClosingError("the client is closed: make a new one")
        if self._channel is None:
            self._channel = open_channel(self.settings, self.options.channel_options)
        return self._channel

    def _open_channel(self) -> Any:
        """Do the same, also for what goes on after ``close`` has begun, if there is one."""
        return self.channel() if self._channel is None or self._finished else self._channel

    def _replace_channel(self, error: EnsignError) -> None:
        """Make a new channel, since nothing comes back on that which there is; streams and calls go on with it."""
        try:
            old, streams = self._replaced_channel()
        except EnsignError as settings_error:
            logger.warning("there is no new connection: %s", settings_error)
            return
        for stream in streams:
            stream.lose(error)
        if old is not None:
            old.close()

    @holding("_lock")
    def _replaced_channel(self) -> Tuple[Any, List[Stream]]:
        old = self._channel
        if self._finished or old is None:
            return None, []
        self._channel = open_channel(self.settings, self.options.channel_options)
        return old, self._streams()

    def _signs(self) -> Dict[int, Any]:
        return {id(stream): stream.signs() for stream in self._streams()}

    def _streams(self) -> List[Stream]:
        return [*([self._publisher] if self._publisher is not None else []), *self._subscribers]

    def publisher(self) -> PublishStream:
        """Return the publish stream; a new one if the last one ended."""
        publisher = self._publisher
        if publisher is not None and not publisher.machine.over and not self._closed:
            return publisher
        return self._new_publisher()

    @holding("_lock")
    def _new_publisher(self) -> PublishStream:
        if self._closed:
            raise EnsignClientClosingError("the client is closed: make a new one to publish")
        if self._publisher is not None and self._publisher.over:
            self._remember(self._publisher)
            self._publisher = None
        if self._publisher is None:
            # Which makes a new connection, if need be, for what was accepted before ``close`` began.
            line = self._line(
                self._last_unary, methods.PUBLISH, codec.encode_publisher_frame, codec.decode_publisher_reply
            )
            publisher = PublishStream(
                line,
                self.options.window,
                self.topic_exists,
                self.options.reconnect,
                self.hooks,
                Doubts(Log(self._last_unary, self.options.spelling), self.watchdog, self._clock),
                self.options.resend,
                self._clock,
            )
            self._look_after(publisher, self.liveness.impatience, publisher.lose)
            self._publisher = publisher
        return self._publisher

    def encode_keyed(self, event: Event) -> Payload:
        """Encode an event so that it can be found in the log again; raises what ``encode_event`` does."""
        publisher, clock = self._publisher, self._clock
        ack = publisher.machine.last_ack if publisher is not None else None
        made = Made(clock.now(), clock.time(), ack._committed if ack is not None else None)
        return codec.encode_keyed(event, next(self._key_numbers), made)

    def is_searchable(self, topic: str) -> bool:
        """Tell whether it is known that the log of a topic can be searched for events in doubt."""
        return topic in self._searchable

    def check_log(self, stream: PublishStream, topic: str, timeout: float) -> None:
        """See whether it can; raises EnsignSettingsError if not, EnsignError if that is not to be found out now."""
        if stream.check_log(topic, timeout):
            self._searchable.add(topic)

    def subscriber(self, topics: Sequence[str], inbox: Inbox, asked: Subscribed) -> SubscribeStream:
        """Make a subscribe stream; the caller opens it.

        Raises:
            EnsignSettingsError: The start cannot be understood.
            CheckpointError: What the checkpoint holds cannot be used.
        """
        starts = Starts(asked.start, topics)
        line = self._line(self.unary, methods.SUBSCRIBE, codec.encode_subscriber_frame, codec.decode_subscribe_reply)
        progress = Progress(asked.checkpoint, self.watchdog, self.post, self._clock)
        resume = progress.load()
        stream = SubscribeStream(
            line, topics, inbox, self.options.reconnect, self.hooks, progress, asked.group, self._clock
        )
        if asked.server_redelivers:
            self._look_after(stream, self.options.heartbeat, None)
        else:
            self._heal(stream, asked, Plan(starts.of, resume, self._look_back, self._origins), not topics)
        try:
            self._add(stream)
        except BaseException:
            stream.forsake()
            progress.close()
            raise
        return stream

    def _look_after(
        self,
        stream: Stream,
        seconds: float,
        give_up: Optional[Callable[[EnsignError], None]],
    ) -> None:
        """Have the connection checked when a stream is silent for so long that should not be."""
        heartbeat = Heartbeat(self.liveness, self.watchdog, seconds, stream.owes, stream.heard, give_up, self._clock)
        stream.look_after(heartbeat)

    def _heal(self, stream: SubscribeStream, asked: Subscribed, plan: Plan, all_topics: bool) -> None:
        """Have a subscriber read what the stream leaves out, and deliver again what is refused for that."""
        healing = Healing(
            stream.inbox,
            self._log,
            plan,
            Doors(stream.reopen, asked.gap),
            stream.progress,
            self.watchdog,
            self.liveness,
            all_topics,
            self._clock,
        )
        redelivery = Redelivery(asked.redeliver, healing.again, asked.give_up, self.watchdog, self._clock)
        stream.heal(healing, redelivery)

    def _origins(self) -> Set[str]:
        """Return as whom this client publishes and has published."""
        publisher = self._publisher
        return self._past_origins | ({publisher.machine.client_id} if publisher is not None else set())

    def _look_back(self, topic: bytes) -> Optional[LookBack]:
        """Return what tells from where on events of ours are recent, None if there are none of this topic."""
        publisher = self._publisher
        if publisher is None or topic not in publisher.machine.used:
            return None
        machine, heard_at = publisher.machine, publisher.heard_at
        ack = machine.last_ack
        if ack is None or ack.committed is None:
            # None was acknowledged so far, so those that are in the log were stored lately.
            return (lambda end: _seconds_before(RLID(end).milliseconds)) if machine.unsettled else None
        since = self._clock.now() - heard_at
        server_now = ack.committed.ns // 1_000_000 + int(since * 1000)
        if since >= RECENT_SECONDS and not machine.unsettled:
            return None
        return lambda end: _seconds_before(server_now)

    @holding("_lock")
    def _add(self, stream: SubscribeStream) -> None:
        if self._closed:
            raise EnsignClientClosingError("the client is closed: make a new one to subscribe")
        self._subscribers = [s for s in self._subscribers if not s.over] + [stream]

    def topic_exists(self, topic: str, timeout: float) -> bool:
        """Ask the server whether a topic exists, by name or by id."""
        deadline = Deadline(timeout, self._clock)
        if self.unary.topic_exists(topic, timeout):
            return True
        if not is_ulid(topic):
            return False
        try:
            self.unary.retrieve_topic(ULID(topic), deadline.remaining() or 0.0)
        except EnsignError as error:
            if error.code == "NOT_FOUND" or isinstance(error, EnsignTopicNotFoundError):
                return False
            raise
        return True

    def forget_topic(self, topic: ULID) -> None:
        """A topic was destroyed. The server would go on to acknowledge what is published to it, and keep none of it."""
        publisher = self._publisher
        if publisher is not None:
            publisher.forget_topic(topic.bytes)

    def flush(self, patience: Patience) -> int:
        """Wait for acks; returns how many events are still open."""
        publisher = self._publisher
        return publisher.flush(patience) if publisher is not None else 0

    def close(self, deadline: Deadline) -> int:
        """End everything by the deadline; returns how many accepted events were given up.

        If it was interrupted, or another thread is at it, calling it again goes on where that stopped.
        """
        self._refuse_more()
        # A callback must not wait for who waits for it.
        patience = 0.0 if self.callbacks.is_current else deadline.remaining() or 0.0
        try:
            given_up: int = hold(self._closing, patience, lambda: 0 if self._finished else self._finish(deadline))
        except LockTimeoutError:
            return 0
        return given_up

    @holding("_lock")
    def _refuse_more(self) -> None:
        self._closed = True

    def _finish(self, deadline: Deadline) -> int:
        publisher = self._publisher
        for subscriber in self._subscribers:
            subscriber.close()
        given_up = publisher.close(deadline) if publisher is not None else 0
        # What was waited for may have taken all the time, but the threads end in a moment.
        ending = Deadline(max(deadline.remaining() or 0.0, ENDING_SECONDS), self._clock)
        self.liveness.close()
        self.unary.close()
        self._last_unary.close()
        streams = self._streams()
        # A thread that waits for the answer to a single call ends when the channel does.
        shortly = Deadline(min(_SHORTLY, ending.remaining() or 0.0), self._clock)
        for stream in streams:
            stream.join(shortly)
        self.liveness.join(ending)
        if self._channel is not None:
            with letting_go(self._channel):
                self._channel.close()
        stubborn = [name for stream in streams for name in stream.join(ending)]
        if self._channel is not None:
            gather([thread for stream in streams for thread in stream.channel_threads()], ending)
        self.tokens.close()
        self.watchdog.close(ending)
        self.callbacks.close(ending)
        if stubborn:
            logger.warning("these threads did not stop in time: %s", ", ".join(stubborn))
        self._finished = True
        return given_up

    def stats(self) -> Any:
        """Return the counts of the streams so far."""
        publisher, subscribers, streams = self._publisher, list(self._subscribers), self._streams()
        counts = dict(self._past_counts)
        if publisher is not None:
            _add(counts, publisher)
        errors = [stream.last_error for stream in streams if stream.last_error is not None]
        return {
            **counts,
            "in_flight": publisher.unsettled if publisher else 0,
            "received": sum(s.received for s in subscribers),
            "events_acked": sum(s.counts["acked"] for s in subscribers),
            "events_nacked": sum(s.counts["nacked"] for s in subscribers),
            "reconnects": counts["reconnects"] + sum(s.reconnects for s in subscribers),
            "last_error": str(errors[-1]) if errors else None,
            "publisher": publisher.state if publisher else "IDLE",
            "subscribers": [s.state for s in subscribers],
        }

    # inside

    def _remember(self, publisher: PublishStream) -> None:
        publisher.forsake()
        _add(self._past_counts, publisher)
        self._past_origins.add(publisher.machine.client_id)

    def _line(
        self, unary: Unary, method: Method, encode: Callable[[Any], codec.Message], decode: Callable[[bytes], Any]
    ) -> Line:
        opened, liveness = functools.partial(unary.open_stream, method), self.liveness
        return Line(opened, encode, decode, unary.pause, self.watchdog, liveness.suspect)

    def _hook(self, function: Optional[Callable[[Outage], None]]) -> Callable[[Outage], None]:
        def call_it(outage: Outage) -> None:
            if function is not None:
                self.callbacks.post(function, outage)

        return call_it


def _add(counts: Any, publisher: PublishStream) -> None:
    for name, value in publisher.counts.items():
        counts[name] += value
    counts["acked"] += publisher.acked
    counts["resent"] += publisher.resent
    counts["found"] += publisher.found
    counts["reconnects"] += publisher.reconnects
