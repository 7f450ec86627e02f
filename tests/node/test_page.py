"""The page of a node on the level of HTTP: who is answered, with what, and what a browser is told not to do."""

import json
import re
import urllib.parse

import pytest

from ensign_sync.events import Event, received
from ensign_sync.exceptions import InvalidQueryError, NodeStorageError, UnknownTopicError
from ensign_sync.ids import RLID
from ensign_sync.node.page import LARGEST_BODY, LARGEST_QUERY, Look, Page, event_preview
from ensign_sync.times import Instant
from tests.tables import each

TOKEN = "the-token_of-this-start"
HOST = "127.0.0.1:4711"
PATHS = ("/", "/look/overview", "/look/events?topic=a", "/look/query")
OVERVIEW = {
    "node": {"name": "n", "version": "1.0.0", "strict": True, "uptime_s": 1.5, "path": ":memory:"},
    "topics": [{"id": "a", "name": "weather", "events": 1, "bytes": 2, "readonly": False, "status": "READY"}],
    "clients": [],
    "server_time": 1700000000.25,
}


def last_events(topic, most):
    """Answer with what was asked."""
    if topic == "unknown":
        raise UnknownTopicError(topic)
    return [{"id": topic, "size": most}]


def query(text, most):
    """Answer with what was asked, or with the error that the text names."""
    errors = {"wrong": InvalidQueryError("syntax error"), "ended": NodeStorageError("closed")}
    if text in errors:
        raise errors[text]
    return {"rows": [{"data": text, "size": most}], "more": True}


HOSTS = [HOST, "localhost:4711", "[::1]:4711", "node:80", "Safe.example:443"]
LOOK = Look(lambda: OVERVIEW, last_events, query)
PAGE = Page(LOOK, TOKEN, lambda: HOSTS)


def ask(path, method="GET", body=b"", host=HOST, token=TOKEN, **headers):
    """Return the answer to a request that is right unless told otherwise."""
    given = {"Host": host, "Authorization": None if token is None else f"Bearer {token}", **headers}
    return PAGE.answer(method, path, {name: value for name, value in given.items() if value is not None}, body)


def ask_query(told, **options):
    """Return the answer to the body of a query."""
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    return ask("/look/query", "POST", body, **options)


def told(answer):
    """Return what the JSON of an answer says."""
    assert dict(answer.headers)["Content-Type"] == "application/json"
    return json.loads(answer.body.decode("ascii"))


def test_what_belongs_to_the_page():
    """The page takes its own paths and leaves those of the auth service."""
    paths = [*PATHS, "/?token=x", "/look/unknown"]
    assert [PAGE.handles(path) for path in paths] == [True] * len(paths)
    others = ["/v1/status", "/v1/authenticate", "/.well-known/jwks.json", "/favicon.ico", "/looks", "/look", "//", ""]
    assert [PAGE.handles(path) for path in others] == [False] * len(others)


def test_the_address_that_serve_prints():
    """The address with the token gives the page."""
    answer = ask(f"/?token={TOKEN}", token=None)
    assert answer.status == 200
    assert dict(answer.headers)["Content-Type"] == "text/html; charset=utf-8"
    assert b"<title>Ensign node</title>" in answer.body


@each("path", ["/", "/?t=1", *(f"/?token={given}" for given in ("", "wrong", TOKEN + "x", TOKEN[:-1], "%C3%A9%FF"))])
def test_an_address_without_the_token(path):
    """Any other address gives a text that says where to get the right one, and nothing else; a header does not help."""
    answer = ask(path)
    assert answer.status == 403
    assert b"ensign-sync serve" in answer.body
    assert b"<table" not in answer.body and TOKEN.encode() not in answer.body


@each("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "\u00e9", "\udc80"])
@each("path", PATHS[1:])
def test_requests_without_the_token(path, token):
    """The data needs the token in the header, and an address that holds it does not help."""
    method = "POST" if path.endswith("query") else "GET"
    path += f"{'&' if '?' in path else '?'}token={TOKEN}"
    answer = ask(path, method, b'{"query": "x"}', token=token)
    assert answer.status == 403
    assert "ensign-sync serve" in told(answer)["error"]


def test_the_scheme_of_the_header():
    """The token is a bearer token, whatever the case of the word and of the names of headers."""
    for name, value, status in (
        ("Authorization", f"Basic {TOKEN}", 403),
        ("Authorization", TOKEN, 403),
        ("authorization", f"bearer {TOKEN}", 200),
        ("AUTHORIZATION", f"BEARER  {TOKEN} ", 200),
    ):
        assert PAGE.answer("GET", "/look/overview", {"host": HOST, name: value}, b"").status == status, value


@each("host", [HOST, "localhost:4711", "LOCALHOST:4711", "[::1]:4711", "node", "node:80", "safe.example"])
def test_known_hosts(host):
    """The node answers to its names, in any case; browsers leave out the usual ports."""
    assert ask("/look/overview", host=host).status == 200


@each("host", [None, "", ":4711", "evil.example", "evil.example:4711", "127.0.0.1", "localhost:4712", "[::1]"])
@each("path", [f"/?token={TOKEN}", *PATHS, "/look/unknown"])
def test_foreign_hosts(host, path):
    """Whoever calls the node by another name, or by none, gets nothing, with the token or without."""
    for token in (TOKEN, None):
        answer = ask(path, host=host, token=token)
        assert answer.status == 421
        assert list(told(answer)) == ["error"]


def test_the_hosts_may_change():
    """The names are asked for with each request, since the port is known late."""
    hosts = []
    page = Page(LOOK, TOKEN, lambda: hosts)
    headers = {"Host": HOST, "Authorization": f"Bearer {TOKEN}"}
    assert page.answer("GET", "/look/overview", headers, b"").status == 421
    hosts.append(HOST)
    assert page.answer("GET", "/look/overview", headers, b"").status == 200


def test_a_page_without_a_token_is_none():
    """An empty token would be one that everybody has."""
    with pytest.raises(ValueError, match="needs a token"):
        Page(LOOK, "", lambda: [HOST])


@each("path", ["/", f"/?token={TOKEN}"])
def test_the_policy(path):
    """Only what carries the nonce of this answer runs; each answer has another."""
    nonces = set()
    for _ in range(2):
        answer = ask(path)
        policy = dict(answer.headers)["Content-Security-Policy"]
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        nonce = re.match(r"'nonce-([\w-]{24})'\Z", parts["script-src"]).group(1)
        nonces.add(nonce)
        assert parts["style-src"] == f"'nonce-{nonce}'"
        for name in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
            assert parts[name] == "'none'", name
        assert parts["require-trusted-types-for"] == "'script'"
        assert parts["connect-src"] == "'self'"
        text = answer.body.decode()
        tags = re.findall(r"<(?:script|style)\b[^>]*>", text)
        assert len(tags) == 2 and all(f'nonce="{nonce}"' in tag for tag in tags)
        assert "{{" not in text
    assert len(nonces) == 2


def test_the_page_stands_alone():
    """Nothing is loaded from elsewhere, nothing runs from attributes, and no text becomes markup."""
    text = ask(f"/?token={TOKEN}").body.decode()
    assert re.findall(r"""\b(?:src|srcset|action|style|on\w+)=["']""", text) == []
    assert [link[:5] for link in re.findall(r"""\bhref=["']([^"']*)""", text)] == ["data:"]
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|@import", text) == []


@each("path", [f"/?token={TOKEN}", *PATHS, "/look/unknown"])
@each("host", [HOST, "evil.example"])
def test_headers_on_every_answer(path, host):
    """No answer is kept, guessed at, framed or used by another origin, and none sets a cookie."""
    headers = dict(ask(path, host=host).headers)
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert not any(name.startswith("Access-Control") or name == "Set-Cookie" for name in headers)
    assert len(headers) == len(ask(path, host=host).headers), "no header comes twice"


@each("method,path,allowed", [(m, p, "POST" if p.endswith("query") else "GET") for p in PATHS for m in ("PUT", "HEAD")])
def test_other_methods(method, path, allowed):
    """A method that a path does not take is refused, and the answer says which it takes."""
    answer = ask(path, method)
    assert (answer.status, dict(answer.headers)["Allow"]) == (405, allowed)


def test_unknown_paths():
    """What is not there is not found, by who has the token."""
    assert told(ask("/look/nothing")) == {"error": "there is no /look/nothing"}
    assert ask("/look/nothing").status == 404
    assert ask("/look/nothing", token=None).status == 403


def test_overview():
    """The overview is what the node says."""
    answer = ask("/look/overview")
    assert (answer.status, told(answer)) == (200, OVERVIEW)


def test_events():
    """The last events of a topic, 50 unless another number is asked for."""
    assert told(ask("/look/events?topic=a")) == {"events": [{"id": "a", "size": 50}]}
    for most in (1, 200):
        assert told(ask(f"/look/events?topic=a&most={most}")) == {"events": [{"id": "a", "size": most}]}
    name = 'a&b=c d/\u00e9"<'
    assert told(ask("/look/events?topic=" + urllib.parse.quote(name)))["events"][0]["id"] == name


NO_NUMBERS = ("0", "201", "-1", "x", "1.0", "1_0", "%D9%A3", "9" * 5000)


@each("query", ["", "topic=", "most=3", *(f"topic=a&most={number}" for number in NO_NUMBERS)])
def test_wrong_parameters(query):
    """A topic that is missing and a number that is none are told."""
    answer = ask(f"/look/events?{query}")
    assert answer.status == 400
    assert "topic" in told(answer)["error"] or "from 1 to 200" in told(answer)["error"]


def test_an_unknown_topic():
    """A topic that is not there is not found."""
    answer = ask("/look/events?topic=unknown")
    assert answer.status == 404
    assert "unknown" in told(answer)["error"]


def test_query():
    """A query goes to the node as it is, and its rows come back."""
    text = "SELECT * FROM weather WHERE city = 'S\u00e3o Paulo'\nLIMIT 3"
    assert told(ask_query({"query": text})) == {"rows": [{"data": text, "size": 50}], "more": True}
    assert told(ask_query({"query": text, "most": 200}))["rows"][0]["size"] == 200


@each("body", [b"", b"SELECT", b"\xff", b"[" * 100_000, b"[]", b"1", {}, {"query": 1}, {"query": None}, {"q": "x"}])
def test_a_body_that_is_no_query(body):
    """What is not JSON with a query is told how to be."""
    answer = ask_query(body)
    assert answer.status == 400
    assert '{"query": "SELECT ..."}' in told(answer)["error"]


@each("most", [0, -1, 201, "3", 1.0, True, None, [], 10**400])
def test_a_query_with_a_wrong_number(most):
    """The number of rows is a number within the limit."""
    answer = ask_query({"query": "x", "most": most})
    assert (answer.status, "from 1 to 200" in told(answer)["error"]) == (400, True)


def test_the_size_of_queries():
    """A query of the largest size is taken, however JSON spells it, and one byte more is not."""
    assert told(ask_query({"query": "x" * LARGEST_QUERY}))["rows"]
    assert told(ask_query({"query": "\u00e9" * (LARGEST_QUERY // 2)}))["rows"]
    spelled = b'{"query": "' + b"\\u0078" * LARGEST_QUERY + b'"}'
    assert told(ask_query(spelled))["rows"][0]["data"] == "x" * LARGEST_QUERY
    for query in ("x" * (LARGEST_QUERY + 1), "\u00e9" * (LARGEST_QUERY // 2 + 1)):
        answer = ask_query({"query": query})
        assert (answer.status, str(LARGEST_QUERY) in told(answer)["error"]) == (400, True)
    assert ask_query(b" " * (LARGEST_BODY + 1)).status == 413


def test_errors_of_a_query():
    """What the node has against a query is told in its own words."""
    wrong, ended = ask_query({"query": "wrong"}), ask_query({"query": "ended"})
    assert (wrong.status, told(wrong)) == (400, {"error": "syntax error"})
    assert (ended.status, told(ended)) == (503, {"error": "closed"})
    half = ask_query(b'{"query": "\\ud800"}')
    assert (half.status, told(half)) == (400, {"error": "the query contains half a character"})


def stored(data, mimetype=1, meta=None, id=None, committed=None, created=None, schema=None):
    """Return an event as a node stores it."""
    return received(data, mimetype, schema or ("Reading", (1, 4, 0)), meta or {}, created, id, committed, "weather")


def test_preview():
    """A preview says all of a small event."""
    id = RLID.of(1_700_000_000_250, 7)
    event = stored(b"caf\xc3\xa9\r\n\tau lait", meta={"station": "KSEA"}, id=id)
    assert event_preview(event) == {
        "id": str(id),
        "time": "2023-11-14T22:13:20.25Z",
        "mimetype": "text/plain",
        "schema": "Reading v1.4.0",
        "meta": {"station": "KSEA"},
        "meta_more": 0,
        "data": "caf\u00e9\r\n\tau lait",
        "hex": False,
        "size": 15,
        "truncated": False,
    }


def test_the_time_of_a_preview():
    """The time is when the node took the event, as exactly as it is known, else when it was made, else nothing."""
    id, early, late = RLID.of(2000, 1), Instant.from_ns(1_000_000_000), Instant.from_ns(3_000_000_001)
    assert event_preview(stored(b"x", id=id, committed=late, created=early))["time"] == "1970-01-01T00:00:03.000000001Z"
    assert event_preview(stored(b"x", id=id, created=early))["time"] == "1970-01-01T00:00:02Z"
    assert event_preview(stored(b"x", created=early))["time"] == "1970-01-01T00:00:01Z"
    assert event_preview(stored(b"x"))["time"] == ""


def test_an_event_that_was_never_stored():
    """An event of a program has no id yet."""
    preview = event_preview(Event(b"{}"))
    assert (preview["id"], preview["mimetype"], preview["data"]) == ("", "application/json", "{}")


@each(
    "data,shown,hex,truncated",
    [
        (b"", "", False, False),
        (b"a\x00b", "610062", True, False),
        (b"\x1b[31mred", "1b5b33316d726564", True, False),
        ("\u0085".encode(), "c285", True, False),
        (b"caf\xe9", "636166e9", True, False),
        (b"caf\xc3", "636166c3", True, False),
        ("\U0001f469\u200d\U0001f4bb".encode(), "\U0001f469\u200d\U0001f4bb", False, False),
        (b"x" * 2048, "x" * 2048, False, False),
        (b"x" * 2049, "x" * 2048, False, True),
        (b"x" * 2047 + "\u20ac".encode(), "x" * 2047, False, True),
        (b"x" * 2046 + b"\xe2\x82", "78" * 1024, True, True),
        (b"x" * 2048 + b"\x00", "x" * 2048, False, True),
        (b"\xff" * 1024, "ff" * 1024, True, False),
        (b"\xff" * 1025, "ff" * 1024, True, True),
    ],
)
def test_data_in_a_preview(data, shown, hex, truncated):
    """Data is text where its beginning can be shown as such, else hexadecimal, and no more than 2048 characters."""
    preview = event_preview(stored(data))
    assert (preview["data"], preview["hex"], preview["truncated"]) == (shown, hex, truncated)
    assert preview["size"] == len(data)


def test_large_metadata_in_a_preview():
    """However much an event carries, little of it is sent every second."""
    meta = {f"{n:04d}" + "k" * 5000: "v" * 5000 for n in range(40)}
    preview = event_preview(stored(b"x", meta=meta, schema=("S" * 5000, (0, 0, 0)), mimetype=77))
    assert (len(preview["meta"]), preview["meta_more"], preview["mimetype"]) == (32, 8, "77")
    assert preview["meta"]["0000" + "k" * 251 + "\u2026"] == "v" * 255 + "\u2026"
    assert len(preview["schema"]) == 256
    assert len(json.dumps(preview)) < 20_000
