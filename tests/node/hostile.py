"""Requests that no client of good will makes: odd messages, broken bytes, odd queries, odd HTTP. Nothing is sent here.

All of it is drawn from one generator of random numbers, so a seed, or hypothesis, decides everything.
"""

import base64
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from google.protobuf.descriptor import FieldDescriptor

from ensign_sync.api.health.v1 import health_pb2
from ensign_sync.api.pagination import pagination_pb2
from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2, query_pb2, topic_pb2
from ensign_sync.ids import ULID
from ensign_sync.node.keys import PERMISSIONS
from ensign_sync.wire import methods
from ensign_sync.wire.codec import varint

#: What each call expects.
REQUESTS = {
    methods.PUBLISH: ensign_pb2.PublisherRequest,
    methods.SUBSCRIBE: ensign_pb2.SubscribeRequest,
    methods.ENSQL: query_pb2.Query,
    methods.EXPLAIN: query_pb2.Query,
    methods.LIST_TOPICS: ensign_pb2.PageInfo,
    methods.CREATE_TOPIC: topic_pb2.Topic,
    methods.RETRIEVE_TOPIC: topic_pb2.Topic,
    methods.DELETE_TOPIC: topic_pb2.TopicMod,
    methods.TOPIC_NAMES: ensign_pb2.PageInfo,
    methods.TOPIC_EXISTS: topic_pb2.TopicName,
    methods.SET_TOPIC_POLICY: topic_pb2.TopicPolicy,
    methods.INFO: ensign_pb2.InfoRequest,
    methods.STATUS: ensign_pb2.HealthCheck,
    methods.HEALTH_CHECK: health_pb2.HealthCheckRequest,
    methods.HEALTH_WATCH: health_pb2.HealthCheckRequest,
}

NUMBERS = [0, 1, 2, 3, 7, 10, 100, 255, 16_384, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1]
TEXTS = [
    "", " ", "a", "weather", "WEATHER", "t", "orders", "a.b", "-", "\x00", "\n", "\r\n", "'", '"', "\\", "%", "_", "{}",
    "ü", "\u202e", "\ufeff", "\ufffd", "\U0001f327", "é" * 13, "0" * 26, "7" + "Z" * 26, "Z" * 26, "%s%n", "../../etc",
    "<script>", "' OR 1=1 --", "SELECT * FROM weather", "x" * 512, "x" * 513, "ß" * 256, "\u0130", "x" * 20_000,
]  # fmt: skip
_TIMES = ["2023-11-20T10:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "2023-02-30T00:00:00Z"]

_WORDS = (
    "SELECT select FROM from WHERE AS OFFSET LIMIT AND OR NOT LIKE ILIKE BEFORE AFTER NULL true f * , . ( ) ; = != <> >"
    " >= < <= :p :q 0 1 -1 007 1e5 1.5 -- /* */ @ # ? $1 \" ` 'x' 'a\\'b' '%a_' \"weather\" weather a a.b n x-y"
).split()


class Known:
    """What a stranger may have found out about a node: names, ids, tokens, paths."""

    def __init__(self) -> None:
        self.names: List[str] = ["weather"]
        self.topic_ids: List[bytes] = [bytes(16)]
        self.project = bytes(16)
        self.event_ids: List[bytes] = [bytes(10)]
        self.page_tokens: List[str] = [""]
        self.tokens: List[str] = [""]  # of REST calls
        self.bodies: Dict[str, Dict[str, Any]] = {}  # what each path is rightly sent
        self.host = "127.0.0.1"


class Hostile:
    """Makes requests from random numbers."""

    def __init__(self, rnd: Any, known: Known) -> None:
        self.rnd = rnd
        self.known = known

    # choices

    def one(self, choices: Any) -> Any:
        """Return one of some."""
        return choices[self.rnd.randrange(len(choices))]

    def chance(self, part: int) -> bool:
        """Return True once in so many times."""
        return bool(self.rnd.randrange(part) == 0)

    # scalars

    def number(self, bits: int, signed: bool) -> int:
        """Return a number of some width, most often a special one."""
        number = self.rnd.getrandbits(16) if self.chance(4) else self.one(NUMBERS)
        if signed and self.chance(2):
            number = -number - self.rnd.randrange(2)
        number %= 2**bits
        return int(number - 2**bits if signed and number >= 2 ** (bits - 1) else number)

    def text(self, *likely: str) -> str:
        """Return a text, half of the time one of those that mean something."""
        if likely and self.chance(2):
            return str(self.one(likely))
        if self.chance(4):
            return "".join(chr(self.rnd.randrange(1, 0xD800)) for _ in range(self.rnd.randrange(6)))
        return str(self.one(TEXTS))

    def blob(self, *likely: bytes) -> bytes:
        """Return bytes, half of the time some that mean something."""
        if likely and self.chance(2):
            return bytes(self.one(likely))
        size = self.one([0, 1, 9, 10, 11, 15, 16, 17, 26, 32, 100, 5_000])
        start = bytes(self.rnd.getrandbits(8) for _ in range(min(size, 12)))
        return (start + bytes([self.rnd.getrandbits(8)]) * size)[:size]

    # messages

    def request(self, method: methods.Method) -> bytes:
        """Return a request of a call: right, odd, broken, or none at all."""
        if self.chance(20):
            return self.blob()
        proto = self.message(REQUESTS[method]())
        if self.chance(2):
            self._aim(method, proto)
        data: bytes = proto.SerializeToString()
        return self.broken(data) if self.chance(5) else data

    def _aim(self, method: methods.Method, proto: Any) -> None:
        """Make a request such that it will probably be carried out, odd as it is."""
        id = self.one(self.known.topic_ids)
        if method == methods.CREATE_TOPIC:
            proto.name = "made-" + str(self.rnd.getrandbits(16))
            proto.id = b""
            proto.project_id = self.one([b"", self.known.project])
        elif method == methods.RETRIEVE_TOPIC:
            proto.id = id
        elif method in (methods.DELETE_TOPIC, methods.SET_TOPIC_POLICY, methods.TOPIC_EXISTS):
            setattr(proto, "topic_id" if method == methods.TOPIC_EXISTS else "id", str(ULID(id)))
        if method == methods.DELETE_TOPIC:
            proto.operation = self.one([1, 1, 1, 2])
        elif method == methods.SET_TOPIC_POLICY:
            proto.sharding_strategy = 0
            proto.deduplication_policy.strategy = self.rnd.randrange(8)
        elif method == methods.TOPIC_EXISTS:
            proto.project_id = ""
        elif method == methods.INFO:
            del proto.topics[:]
        elif method in (methods.LIST_TOPICS, methods.TOPIC_NAMES):
            proto.next_page_token = self.one(self.known.page_tokens)

    def message(self, proto: Any, depth: int = 4) -> Any:
        """Fill a message with whatever its fields can hold."""
        for field in proto.DESCRIPTOR.fields:
            if not self.chance(3) and (field.message_type is None or depth):
                self._fill(proto, field, depth)
        return proto

    def _fill(self, proto: Any, field: Any, depth: int) -> None:
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED
        kind = field.message_type
        if not repeated and kind is None:
            setattr(proto, field.name, self._scalar(field))
        elif not repeated:
            getattr(proto, field.name).SetInParent()
            self.message(getattr(proto, field.name), depth - 1)
        elif kind is not None and kind.GetOptions().map_entry:
            for _ in range(self.rnd.randrange(4)):
                getattr(proto, field.name)[self.text("k", "n")] = self._scalar(kind.fields_by_name["value"])
        else:
            for _ in range(self.one([0, 1, 2, 3, 3, 30])):
                if kind is None:
                    getattr(proto, field.name).append(self._scalar(field))
                else:
                    self.message(getattr(proto, field.name).add(), depth - 1)

    def _scalar(self, field: Any) -> Any:
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._bytes(field.name) if field.type == FieldDescriptor.TYPE_BYTES else self._text(field.name)
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            values = [value.number for value in field.enum_type.values]
            return self.one(values) if not self.chance(4) else self.number(32, True)
        if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self.one([0.0, -0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324])
        bits = 32 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self.chance(2)
        return self.number(bits, field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64))

    def _bytes(self, name: str) -> bytes:
        if name == "event":
            return self.payload()
        if name == "data":
            return self.json().encode("utf-8", "replace") if not self.chance(3) else self.blob()
        if name == "duplicate_id":
            return self.blob(*self.known.event_ids)
        likely = [*self.known.topic_ids, *([self.known.project] if name == "project_id" else [])]
        return self.blob(*likely)

    def _text(self, name: str) -> str:
        if name == "query":
            return self.query()
        if name == "next_page_token":
            return self.page_token()
        if name in ("id", "topic_id", "project_id", "topics"):
            ids = [*self.known.topic_ids, self.known.project]
            return self.text(*(str(ULID(id)) for id in ids if len(id) == 16), *self.known.names)
        return self.text(*self.known.names)

    def page_token(self) -> str:
        """Return what may be taken for the token of a page."""
        cursor: bytes = self.message(pagination_pb2.Cursor()).SerializeToString()
        made = base64.urlsafe_b64encode(cursor).decode("ascii").rstrip("=")
        return self.text(made, *self.known.page_tokens)

    def payload(self) -> bytes:
        """Return an encoded event, or what stands in its place."""
        if self.chance(5):
            return self.blob()
        data: bytes = self.message(event_pb2.Event()).SerializeToString()
        return self.broken(data) if self.chance(6) else data

    # bytes

    def broken(self, data: bytes) -> bytes:
        """Return a message with some damage."""
        for _ in range(self.rnd.randrange(1, 4)):
            at = self.rnd.randrange(len(data) + 1)
            to = min(len(data), at + self.rnd.randrange(1, 9))
            damaged = [
                data[:at],
                data[at:],
                data[:at] + data[to:],
                data[:at] + data[at:to] * 2 + data[to:],
                data[:at] + bytes([self.rnd.getrandbits(8)]) + data[at + 1 :],
                data[:at] + self.blob() + data[at:],
                data + self.odd_field(),
                self.odd_field() + data,
            ]
            data = self.one(damaged)
        return data

    def odd_field(self) -> bytes:
        """Return a field that does not belong into any message, or not so."""
        number = self.one([1, 2, 3, 4, 5, 7, 9, 15, 16, 100, 2**29 - 1])
        kind, rest = self.one(
            [
                (0, b"\xff" * 10),  # a number that never ends
                (0, b"\x80" * 9 + b"\x02"),  # or is too large
                (2, b"\x03\xff\xfe\xfd"),  # no text in UTF-8
                (2, b"\x03\xed\xa0\x80"),  # half a character
                (2, b"\x7fshort"),  # longer than there is
                (2, b"\xff\xff\xff\xff\x0f"),  # much longer
                (1, b"1234"),  # cut short
                (3, b""),  # a group that begins
                (4, b""),  # a group that ends
                (6, b""),  # a kind that does not exist
                (2, b"\x02\x0a\x00"),
                (5, b"\x00\x00\x80\x7f"),
            ]
        )
        return varint(number << 3 | kind) + bytes(rest)

    def http2(self) -> bytes:
        """Return what a port for gRPC does not want to read."""
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        frames = b"".join(
            len(body).to_bytes(3, "big") + bytes([self.rnd.randrange(12), self.rnd.getrandbits(8)])
            + self.rnd.getrandbits(31).to_bytes(4, "big") + body
            for body in (self.blob() for _ in range(self.rnd.randrange(4)))
        )  # fmt: skip
        return bytes(self.one([preface + frames, frames, preface[: self.rnd.randrange(24)], b"GET / HTTP/1.1\r\n\r\n"]))

    # queries

    def query(self) -> str:
        """Return the text of a query, from good ones to rubbish."""
        kind = self.rnd.randrange(6)
        if kind == 0:
            return self.text()
        if kind == 1:
            return self.one(["", " "]).join(self.one(_WORDS) for _ in range(self.rnd.randrange(12)))
        if kind == 2:
            return self._long_query()
        words = ["SELECT", self._fields(), "FROM", self._source()]
        if self.chance(2):
            words += ["WHERE", self._condition(2)]
        for clause in ("OFFSET", "LIMIT", "BEFORE", "AFTER"):
            if self.chance(4):
                words += [clause, self._value()]
        text = str(self.one([" ", "\n", "\t "])).join(words)
        if kind == 3:
            at = self.rnd.randrange(len(text) + 1)
            text = text[:at] + self.one([self.one(_WORDS), self.text(), ""]) + text[at + self.rnd.randrange(3) :]
        return text

    def _fields(self) -> str:
        return str(self.one(["*", "n", "n AS m", "n, k", "a.b.c", '"x y"', "*, n", "n AS n, k AS n", ""]))

    def _source(self) -> str:
        name = str(self.one([*self.known.names, "nowhere"]))
        return str(self.one([name, f'"{name}"', f"{name}.S", f"{name}.S.1", f"{name}.*", f"{name}.S.99999999999"]))

    def _condition(self, depth: int) -> str:
        if depth and self.chance(3):
            return f"({self._condition(depth - 1)} {self.one(['AND', 'OR'])} {self._condition(depth - 1)})"
        if depth and self.chance(5):
            return f"NOT {self._condition(depth - 1)}"
        field = self.one(["n", "k", "a.b", '"x y"', "missing"])
        return f"{field} {self.one(['=', '!=', '<', '>=', 'LIKE', 'ILIKE', 'NOT LIKE'])} {self._value()}"

    def _value(self) -> str:
        ids = [f"'{id.hex()}'" for id in self.known.event_ids]
        times = [f"'{time}'" for time in _TIMES]
        plain = ["0", "1", "-1", "1.5", "1e400", "9" * 500, str(2**64), "'x'", "'%a%_%'", "''", "true", ":p", ":q"]
        return str(self.one([*plain, *ids, *times]))

    def _long_query(self) -> str:
        many = self.one([50, 150, 5_000])
        return str(
            self.one(
                [
                    "SELECT * FROM weather WHERE " + "(" * many + "n = 1" + ")" * many,
                    "SELECT * FROM weather WHERE " + "NOT " * many + "n = 1",
                    "SELECT * FROM weather WHERE " + " AND ".join(["n = 1"] * many),
                    "SELECT * FROM weather WHERE n LIKE '" + "%a" * many + "'",
                    "SELECT " + ", ".join(f"f{n}" for n in range(many)) + " FROM weather",
                    "SELECT a" + ".b" * many + " FROM weather",
                    "SELECT * FROM weather" + ";" * many,
                    "SELECT * FROM " + "w" * many,
                    "'" * many,
                    "\\'" * many,
                    '"' * many,
                    "-" * many,
                    " " * many,
                ]
            )
        )

    # JSON

    def json(self) -> str:
        """Return a JSON text, or nearly one."""
        deep = self.one([10, 300, 900, 1_000, 3_000])
        odd = [
            "[" * deep + "]" * deep,
            '{"n":' * deep + "1" + "}" * deep,
            '{"n": ' + "9" * deep + "}",
            '{"n": NaN, "k": -Infinity}',
            '{"n": 1, "n": 2}',
            '{"n": "\\ud800"}',
            '{"\\udc00": 1}',
            '{"n": 1e999}',
            "{",
            "",
            "\ufeff{}",
            "{" * deep,
        ]
        return str(self.one(odd)) if self.chance(3) else json.dumps(self.value(2))

    def value(self, depth: int) -> Any:
        """Return what JSON can hold."""
        if depth and self.chance(2):
            return {self.text("n", "k", "a", "b", "x y"): self.value(depth - 1) for _ in range(self.rnd.randrange(4))}
        if depth and self.chance(3):
            return [self.value(depth - 1) for _ in range(self.rnd.randrange(4))]
        return self.one([None, True, False, 0, -1, 1.5, 10**30, 1e300, "", "x", "\ud800", self.text()])

    # HTTP

    def http(self) -> "HttpRequest":
        """Return a request to the auth service or the page."""
        path = self._path()
        usual = "POST" if path in self.known.bodies or path == "/look/query" else "GET"
        method = usual if not self.chance(4) else self.one(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
        body = self._body(path) if method in ("POST", "PUT") or self.chance(8) else b""
        headers = self._headers()
        length = str(len(body))
        whole = True
        if self.chance(3):
            method, path, headers, length, whole = self._spoilt(method, path, headers, body)
        versions = ["HTTP/1.1"] if whole else ["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/x", "", "http/1.1"]
        version = self.one(versions)
        if length:
            headers.append(("Content-Length", length))
        lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in headers)]
        head = "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n"
        return HttpRequest(head, body, whole)

    def _path(self) -> str:
        known = [*self.known.bodies, "/v1/status", "/.well-known/jwks.json", "/v1/apikeys/permissions", "/v1/backup"]
        known += ["/", "/look/overview", "/look/events?topic=weather", "/look/query", "/v1/apikeys/x", "/v1/projects/x"]
        path = str(self.one(known))
        odd = ["", "?", "/", "//", "/%00", "/..", "?token=x&token=y", "?most=1&topic=%ff", "#x", "/%ed%a0%80"]
        odd.append("?" + "a=b&" * 50)
        return path + str(self.one(odd)) if self.chance(3) else path

    def _body(self, path: str) -> bytes:
        right = dict(self.known.bodies.get(path, {"query": "SELECT * FROM weather", "most": 5}))
        kind = self.rnd.randrange(4)
        if kind == 0:
            return self.blob() if self.chance(2) else self.json().encode("utf-8", "replace")
        if kind == 1 and right:
            right[self.one(list(right))] = self.one([self.value(2), self.query(), self.text()])
        if kind == 2:
            right[self.text("permissions", "project_id", "name", "org_id")] = self.value(2)
        return json.dumps(right).encode()

    def _headers(self) -> List[Tuple[str, str]]:
        host = self.known.host if not self.chance(6) else self.one(["", "evil.example", "[::1", "x" * 300, "ü"])
        headers = [("Host", host)]
        if not self.chance(3):
            scheme = "Bearer " if not self.chance(5) else self.one(["bearer ", "Basic ", "", "Bearer  "])
            headers.append(("Authorization", scheme + self.one([*self.known.tokens, "x", "é"])))
        more = [
            ("Expect", "100-continue"),
            ("Connection", "keep-alive"),
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Content-Type", "text/html"),
            ("Accept-Encoding", "gzip"),
            ("Range", "bytes=0-1"),
            ("X-Long", "x" * 5_000),
        ]
        return headers + [self.one(more) for _ in range(self.rnd.randrange(3))]

    def _spoilt(self, method: str, path: str, headers: List[Tuple[str, str]], body: bytes) -> Tuple[Any, ...]:
        """Return the pieces of a request with one of them spoilt."""
        lengths = ["", "-1", "x", "1e3", "0x10", "9" * 30, "9" * 5_000, "+3", " ", "1_0", str(len(body) + 1), "1, 2"]
        odd_headers = [
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "3"),
            ("", ""),
            ("No colon\r\nX", "y"),
            ("Folded", "a\r\n b"),
            ("X-Zero", "\x00"),
            ("X-Very-Long", "x" * 70_000),
            *[("X-Many", "y\r\nX-Many: y" * 60)] * 2,
        ]
        kind = self.rnd.randrange(4)
        length = str(len(body))
        if kind == 0:
            method = self.one(["TRACE", "CONNECT", "BREW", "", "get", "G\x00T", "x" * 70_000, "PRI"])
        elif kind == 1:
            path = self.one(["*", "x", "http://other/v1/status", "/" + "a" * 70_000, "/\x00", "/a b c", "/\u00e9"])
        elif kind == 2:
            headers = [*headers, self.one(odd_headers)]
        else:
            length = self.one(lengths)
        return method, path, headers, length, False


class HttpRequest(NamedTuple):
    """A request as it is sent.

    Attributes:
        head, body: The bytes.
        whole: Whether it is a good request as far as HTTP is concerned, so that there must be an answer.
    """

    head: bytes
    body: bytes
    whole: bool


def bodies(client_id: str, client_secret: str, refresh_token: str, project: Optional[str]) -> Dict[str, Dict[str, Any]]:
    """Return what the paths of the auth service are rightly sent."""
    secret = {"password": "correct horse 7", "pwcheck": "correct horse 7"}
    agreed = {"terms_agreement": True, "privacy_agreement": True}
    person = {"name": "eve", "email": "eve@example.com", "organization": "e", "domain": "e", **secret, **agreed}
    return {
        "/v1/authenticate": {"client_id": client_id, "client_secret": client_secret},
        "/v1/refresh": {"refresh_token": refresh_token},
        "/v1/register": person,
        "/v1/login": {name: person[name] for name in ("email", "password")},
        "/v1/projects": {"project_id": project},
        "/v1/projects/access": {"project_id": project},
        "/v1/apikeys": {"name": "k", "project_id": project, "permissions": list(PERMISSIONS)},
    }
