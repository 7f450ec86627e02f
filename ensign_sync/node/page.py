"""A look inside: one page that shows what a node holds, for a person with a browser.

``ensign-sync serve`` prints an address with a token, and ``/`` answers that address only. The script of the page takes
the token out of the address bar, keeps it in the session storage of its tab and sends it in the header Authorization.
When the page is loaded again the address has no token any more: then the refusal brings a few lines of script that
put the stored one back. A cookie would be shorter, but a browser sends a cookie to every port of a host, and so to
every other server on the machine; session storage is kept apart for each port.

What a browser could be made to do, and why it fails here:

- A foreign name that resolves to this machine (DNS rebinding): only known values of Host are answered.
- Requests from other pages: nothing is sent along by itself, and no header of CORS lets them read an answer.
- Events that contain markup: the page makes text of them, and its policy runs no script without the nonce of this
  one answer and lets no text become markup.
"""

import hmac
import json
import pathlib
import re
import secrets
import urllib.parse
from typing import Any, Callable, Collection, Dict, List, Mapping, NamedTuple, Tuple

from ..events import Event
from ..exceptions import EnsignError, InvalidQueryError, TopicNotFoundError
from ..ids import SortableID
from ..mimetypes import names_by_value
from ..times import to_rfc3339

#: Events in one answer at most, and unless the request says how many.
MOST_EVENTS = 200
USUAL_EVENTS = 50
#: Bytes of a query in UTF-8, and of the request around it, where a character may take up to six bytes.
LARGEST_QUERY = 64 * 1024
LARGEST_BODY = 6 * LARGEST_QUERY + 1024
#: How much of an event is shown: characters of its data, entries of its metadata, characters of any other text.
PREVIEW = 2048
PREVIEW_META = 32
PREVIEW_TEXT = 256

Fields = Dict[str, Any]

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_REFUSAL = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>ensign-sync: the address is not complete</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style nonce="{{nonce}}">
:root { color-scheme: light dark }
body { font: 1.05rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }
</style>
<script nonce="{{nonce}}">
try {
  const kept = sessionStorage.getItem("ensign-token");
  const given = new URLSearchParams(location.search).get("token");
  if (kept && kept === given) sessionStorage.removeItem("ensign-token");
  else if (kept && given === null) location.replace("/?token=" + encodeURIComponent(kept));
} catch (error) { /* no storage: the text says what to do */ }
</script>
<h1>This address is not complete</h1>
<p>It has no token, or one that this node does not know: a node makes a new one each time it starts.</p>
<p>Open the whole address that <code>ensign-sync serve</code> printed: <code>http://127.0.0.1:&hellip;/?token=&hellip;</code></p>
</html>
"""


class Look(NamedTuple):
    """What a node lets the page see: three functions, called from any thread.

    Attributes:
        overview: Returns ``node`` (name, version, strict, uptime_s, path), ``topics`` (each id, name, events, bytes,
            readonly, status), ``clients`` (one for each open stream: peer, kind, client_id, user_agent, seconds,
            topics) and ``server_time`` in seconds. Totals only grow between two calls unless events were removed.
        last_events: Given the id of a topic and a number, returns the last events in the order of the log, each as
            ``event_preview`` makes it; TopicNotFoundError if there is no such topic.
        query: Given EnSQL and a number, returns ``rows`` (events likewise) and ``more`` (whether there are further
            rows); InvalidQueryError or TopicNotFoundError says what is wrong.
    """

    overview: Callable[[], Fields]
    last_events: Callable[[str, int], List[Fields]]
    query: Callable[[str, int], Fields]


class PageAnswer(NamedTuple):
    """A reply: its status, its headers (without Content-Length) and its body."""

    status: int
    headers: List[Tuple[str, str]]
    body: bytes


class _RefusedError(Exception):
    """A request cannot be answered; becomes the JSON that says why."""

    def __init__(self, status: int, text: str, *headers: Tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


class Page:
    """Answers the requests of the page. It has no state, so any thread may call any method."""

    def __init__(self, look: Look, token: str, hosts: Callable[[], Collection[str]]) -> None:
        """Make the page of a node.

        Args:
            look: What the page may see.
            token: What the address must carry; not empty.
            hosts: Returns the ``host:port`` values under which the server may be addressed.
        """
        if not token:
            raise ValueError("the page needs a token")
        self._look = look
        self._token = token.encode("utf-8")
        self._hosts = hosts
        self._routes: Dict[str, Tuple[str, Callable[[Dict[str, str], bytes], Fields]]] = {
            "/look/overview": ("GET", self._overview),
            "/look/events": ("GET", self._events),
            "/look/query": ("POST", self._query),
        }

    def handles(self, path: str) -> bool:
        """Tell whether a path, with or without a query, belongs to the page."""
        path = path.partition("?")[0]
        return path == "/" or path.startswith("/look/")

    def answer(self, method: str, path_with_query: str, headers: Mapping[str, str], body: bytes) -> PageAnswer:
        """Answer a request; whatever is wrong with it is told in the answer."""
        path, _, query = path_with_query.partition("?")
        given = {name.lower(): value for name, value in headers.items()}
        parameters = {name: values[-1] for name, values in urllib.parse.parse_qs(query).items()}
        try:
            self._check_host(given.get("host", ""))
            if path == "/":
                return self._page(method, parameters.get("token", ""))
            scheme, _, token = given.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self._is_token(token):
                raise _RefusedError(403, "this needs the token from the address that ensign-sync serve printed")
            if path not in self._routes:
                raise _RefusedError(404, f"there is no {path}")
            allowed, route = self._routes[path]
            _check_method(method, allowed)
            return _json(200, _told(route, parameters, body))
        except _RefusedError as refused:
            return _json(refused.status, {"error": str(refused)}, refused.headers)

    def _check_host(self, host: str) -> None:
        # Browsers leave out the port that is usual for HTTP or HTTPS.
        meant = {host.lower()} if re.search(r":\d+\Z", host) else {f"{host.lower()}:{port}" for port in (80, 443)}
        if not host or meant.isdisjoint(known.lower() for known in self._hosts()):
            raise _RefusedError(421, f"this is not {host!r}: open the address that ensign-sync serve printed")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)

    def _page(self, method: str, token: str) -> PageAnswer:
        _check_method(method, "GET")
        if not self._is_token(token):
            return _html(403, _REFUSAL)
        return _html(200, _TEMPLATE.read_text(encoding="utf-8"))

    def _overview(self, _: Dict[str, str], __: bytes) -> Fields:
        return self._look.overview()

    def _events(self, parameters: Dict[str, str], _: bytes) -> Fields:
        topic = parameters.get("topic", "")
        if not topic:
            raise _RefusedError(400, "the parameter topic is missing: give the id of a topic")
        most = parameters.get("most", str(USUAL_EVENTS))
        if not (most.isdigit() and most.isascii()):
            raise _RefusedError(400, f"most must be a number from 1 to {MOST_EVENTS}")
        return {"events": self._look.last_events(topic, _checked_most(int(most[:10])))}

    def _query(self, _: Dict[str, str], body: bytes) -> Fields:
        if len(body) > LARGEST_BODY:
            raise _RefusedError(413, f"the request is larger than {LARGEST_BODY} bytes")
        try:
            asked = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _RefusedError(400, 'the body must be JSON: {"query": "SELECT ..."}') from error
        if not isinstance(asked, dict) or not isinstance(asked.get("query"), str):
            raise _RefusedError(400, 'the body must be a JSON object with a text: {"query": "SELECT ..."}')
        return self._look.query(_checked_query(asked["query"]), _checked_most(asked.get("most", USUAL_EVENTS)))


def _told(route: Callable[[Dict[str, str], bytes], Fields], parameters: Dict[str, str], body: bytes) -> Fields:
    """Return what a route answers, or refuse with what the node says against it."""
    try:
        return route(parameters, body)
    except InvalidQueryError as error:
        raise _RefusedError(400, str(error)) from error
    except TopicNotFoundError as error:
        raise _RefusedError(404, str(error)) from error
    except EnsignError as error:
        raise _RefusedError(503, str(error)) from error


def _check_method(method: str, allowed: str) -> None:
    if method != allowed:
        raise _RefusedError(405, f"this takes {allowed} only", ("Allow", allowed))


def _checked_most(most: Any) -> int:
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MOST_EVENTS:
        raise _RefusedError(400, f"most must be a number from 1 to {MOST_EVENTS}")
    return most


def _checked_query(query: str) -> str:
    try:
        size = len(query.encode("utf-8"))
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise _RefusedError(400, "the query contains half a character") from error
    if size > LARGEST_QUERY:
        raise _RefusedError(400, f"the query takes {size} bytes and the limit is {LARGEST_QUERY}")
    return query


def _json(status: int, told: Fields, headers: Collection[Tuple[str, str]] = ()) -> PageAnswer:
    body = json.dumps(told).encode("ascii")
    return PageAnswer(status, [("Content-Type", "application/json"), *headers, *_guards("")], body)


def _html(status: int, text: str) -> PageAnswer:
    """Return a page whose own script and style run, and no other."""
    nonce = secrets.token_urlsafe(18)
    body = text.replace("{{nonce}}", nonce).encode("utf-8")
    allowed = (
        f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
        "require-trusted-types-for 'script'; trusted-types 'none'; "
    )
    return PageAnswer(status, [("Content-Type", "text/html; charset=utf-8"), *_guards(allowed)], body)


def _guards(allowed: str) -> List[Tuple[str, str]]:
    """Return the headers that keep a browser from doing more with an answer than it should."""
    policy = f"default-src 'none'; {allowed}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return [
        ("Content-Security-Policy", policy),
        ("Cache-Control", "no-store"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
    ]


def event_preview(event: Event) -> Fields:
    """Return what the page shows of an event.

    Returns:
        ``id``, ``time`` (RFC 3339: committed, else what the id says, else created), ``mimetype``, ``schema``,
        ``meta``, ``meta_more`` (entries left out), ``data`` (text, else hexadecimal digits), ``hex`` (which of the
        two), ``size`` in bytes and ``truncated`` (whether ``data`` is the beginning only).
    """
    data = event.data or b""
    text = _as_text(data)
    shown = data[: PREVIEW // 2].hex() if text is None else text
    entries = list(event.meta.items())
    return {
        "id": str(event.id or ""),
        "time": _time(event),
        "mimetype": names_by_value.get(event.mimetype, str(int(event.mimetype))),
        "schema": _cut(str(event.type)),
        "meta": {_cut(key): _cut(value) for key, value in entries[:PREVIEW_META]},
        "meta_more": max(0, len(entries) - PREVIEW_META),
        "data": shown,
        "hex": text is None,
        "size": len(data),
        "truncated": len(data) > (PREVIEW // 2 if text is None else PREVIEW),
    }


def _as_text(data: bytes) -> Any:
    """Return the beginning of the data as text; None if it is none that can be shown."""
    shown = data[:PREVIEW]
    try:
        text = shown.decode("utf-8")
    except UnicodeDecodeError as error:
        cut_through = len(data) > PREVIEW and error.reason == "unexpected end of data"
        if not cut_through:
            return None
        text = shown[: error.start].decode("utf-8")
    return None if _CONTROLS.search(text) else text


def _time(event: Event) -> str:
    made = event.id.time if isinstance(event.id, SortableID) else event.created
    at = event.committed or made
    return to_rfc3339(at) if at else ""


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW_TEXT else text[: PREVIEW_TEXT - 1] + "\u2026"
