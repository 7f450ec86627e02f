"""Decorators for programs with one client: ``@authenticate`` makes it, ``@publisher`` and ``@subscriber`` use it."""

import functools
import inspect
import threading
from typing import Any, Callable, Iterator, Optional, TypeVar, Union, cast

from .client import Ensign
from .events import from_object

_F = TypeVar("_F", bound=Callable[..., Any])


class _Shared:
    """The client of the program, while a function with ``@authenticate`` runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Optional[Ensign] = None

    def make(self, make: Callable[[], Ensign]) -> Optional[Ensign]:
        """Make the client and return it; None if it is there already."""
        # Decided inside: which of several threads makes it.
        with self._lock:
            if self._client is not None:
                return None
            self._client = make()
            return self._client

    def forget(self) -> None:
        """It is about to be closed."""
        with self._lock:
            self._client = None

    def get(self, who: str) -> Ensign:
        """Return the client."""
        client = self._client
        if client is None:
            raise RuntimeError(
                f"@{who} needs a client: decorate the function that calls this one, or the program's main function,"
                " with @authenticate()"
            )
        return client


_shared = _Shared()


def authenticate(*client_args: Any, **client_options: Any) -> Callable[[_F], _F]:
    """Make a client for as long as the decorated function runs, with the arguments of ``Ensign``, and close it then.

    Where there is one already, as in a function that is called by another with this decorator, that one is used. The
    function may be a generator function; the client is then there until the generator ends.
    """

    class Session:
        def __enter__(self) -> None:
            self.client = _shared.make(lambda: Ensign(*client_args, **client_options))

        def __exit__(self, *_: Any) -> None:
            if self.client is not None:
                _shared.forget()
                self.client.close()

    def decorate(function: _F) -> _F:
        _check(function)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generate(*args: Any, **options: Any) -> Iterator[Any]:
                with Session():
                    yield from function(*args, **options)

            return cast(_F, generate)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            with Session():
                return function(*args, **options)

        return cast(_F, call)

    return decorate


def publisher(topic: str, mimetype: Union[str, int, None] = None, encoder: Any = None) -> Callable[[_F], _F]:
    """Publish what the decorated function returns, or each thing that a generator function yields, and pass it on.

    None is passed on and not published. Needs a client of ``@authenticate``.

    Args:
        topic: Its name or id.
        mimetype, encoder: See ``from_object``, which makes the events.

    Raises (when the function is called):
        RuntimeError: There is no client.
        EnsignError: As ``Ensign.publish``.
    """

    def publish(value: Any) -> Any:
        client = _shared.get("publisher")
        if value is not None:
            client.publish(topic, from_object(value, mimetype=mimetype, encoder=encoder))
        return value

    def decorate(function: _F) -> _F:
        _check(function)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generate(*args: Any, **options: Any) -> Iterator[Any]:
                _shared.get("publisher")
                for value in function(*args, **options):
                    yield publish(value)

            return cast(_F, generate)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            _shared.get("publisher")
            return publish(function(*args, **options))

        return cast(_F, call)

    return decorate


def subscriber(*topics: str, stream: Optional[bool] = None, **subscribe_args: Any) -> Callable[[_F], _F]:
    """Give the decorated function the events of topics.

    A function whose first parameter is named ``events``, and a generator function, is called once, with the
    subscription; any other is called once for each event, as by ``Subscription.run``, until the client is closed.
    ``stream`` says outright which of the two. Needs a client of ``@authenticate``.

    Args:
        topics: Their names or ids.
        stream: True for the subscription, False for the events.
        subscribe_args: Those of ``Ensign.subscribe``.

    Raises (when the function is called):
        RuntimeError: There is no client.
        EnsignError: As ``Ensign.subscribe``, and what ends the subscription.
    """

    def decorate(function: _F) -> _F:
        _check(function)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generate(*args: Any, **options: Any) -> Iterator[Any]:
                with _shared.get("subscriber").subscribe(*topics, **subscribe_args) as events:
                    yield from function(events, *args, **options)

            return cast(_F, generate)
        parameters = list(inspect.signature(function).parameters)
        whole = parameters[:1] == ["events"] if stream is None else stream

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            with _shared.get("subscriber").subscribe(*topics, **subscribe_args) as events:
                if whole:
                    return function(events, *args, **options)
                return events.run(lambda event: function(event, *args, **options))

        return cast(_F, call)

    return decorate


def _check(function: Any) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__name__} is asynchronous: delete its async and await, nothing here needs them")
    if not callable(function):
        raise TypeError(f"expected a function or generator function, got {type(function).__name__}")
