"""A node and everybody who may come to it, and every call that they may try; for the tables of credentials."""

import base64
import contextlib
import functools
import hashlib
import hmac
import http.client
import itertools
import json
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import grpc

from ensign_sync.api.v1beta1 import topic_pb2
from ensign_sync.enum import DeduplicationStrategy
from ensign_sync.ids import ULID
from ensign_sync.node import Node, claims
from ensign_sync.node.keys import PERMISSIONS
from ensign_sync.protocol import frames
from ensign_sync.topics import Deduplication
from ensign_sync.wire import codec, messages, methods, records
from tests.node.raw import Raw, RawStream, event, opening, subscription

ACCESS, EARLIEST_REFRESH, REFRESH = 3600, 2700, 7200  # seconds: when a token ends, or begins, to be good
MARGIN = 30  # what a test may take

DENIED = ("PERMISSION_DENIED", "not authorized to perform this action")
WORDS = {
    "-": DENIED,
    "missing": ("UNAUTHENTICATED", "missing credentials"),
    "invalid": ("UNAUTHENTICATED", "invalid credentials"),
    "no-topics": ("FAILED_PRECONDITION", "no topics available"),
    "no-topic": ("NOT_FOUND", "topic not found"),
    "no-project": ("INVALID_ARGUMENT", "missing project id field"),
    "unknown": ("INVALID_ARGUMENT", "unknown topic in query"),
    "no-op": ("INVALID_ARGUMENT", "invalid operation field"),
}
QUERY = "SELECT * FROM weather"
STRICT_EXPLAIN = ("UNIMPLEMENTED", "explain query is not implemented yet")

#: The rows of the tables of calls: the call, and what makes it. The last one makes something, so that it comes last.
CALLS = {
    "Publish": (methods.PUBLISH, "publish"),
    "Subscribe": (methods.SUBSCRIBE, "subscribe"),
    "EnSQL": (methods.ENSQL, "query"),
    "Explain": (methods.EXPLAIN, "explain"),
    "ListTopics": (methods.LIST_TOPICS, "list"),
    "RetrieveTopic": (methods.RETRIEVE_TOPIC, "retrieve"),
    "DeleteTopic:archive": (methods.DELETE_TOPIC, "archive"),
    "DeleteTopic:destroy": (methods.DELETE_TOPIC, "destroy"),
    "DeleteTopic:nothing": (methods.DELETE_TOPIC, "nothing"),
    "TopicNames": (methods.TOPIC_NAMES, "names"),
    "TopicExists": (methods.TOPIC_EXISTS, "exists"),
    "SetTopicPolicy": (methods.SET_TOPIC_POLICY, "policy"),
    "Info": (methods.INFO, "info"),
    "Status": (methods.STATUS, "status"),
    "Check": (methods.HEALTH_CHECK, "check"),
    "Watch": (methods.HEALTH_WATCH, "watch"),
    "CreateTopic": (methods.CREATE_TOPIC, "create"),
}

Metadata = List[Tuple[str, Any]]


def word_of(status: Tuple[str, str]) -> str:
    """Return the word for how a call ended; a status that has none stands for itself."""
    return next((word for word, known in WORDS.items() if known == status), ": ".join(status))


class Credential(NamedTuple):
    """What a caller brings along, and how many seconds after it was made."""

    metadata: Metadata
    at: float = 0.0


def bearer(token: str, at: float = 0.0) -> Credential:
    """Return the usual form of a token."""
    return Credential([("authorization", f"Bearer {token}")], at)


def person(name: str) -> Dict[str, Any]:
    """Return what somebody says of themselves to be registered."""
    secret = {"password": "correct horse 7", "pwcheck": "correct horse 7"}
    agreed = {"terms_agreement": True, "privacy_agreement": True}
    return {"name": name, "email": f"{name}@example.com", "organization": name, "domain": name, **secret, **agreed}


@functools.lru_cache(maxsize=None)
def foreign_key() -> claims.Key:
    """Return a signing key of another node."""
    return claims.make_key()


def coded(value: Any) -> str:
    """Return a part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(part: str) -> Dict[str, Any]:
    """Return what a part of a token says."""
    found: Dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


class World:
    """A node, and everybody who may come to it."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.node = Node(topics=["weather"], strict=strict, registration=True, page=True, faults=False)
        self.raw = Raw(self.node)
        self.access, self.refresh = self.tokens_of(self.node.client_id, self.node.client_secret)
        self.topic = ULID(self.raw.topic_id())
        self.raw.publish([opening(), event(self.topic.bytes)])
        self.numbers = itertools.count()

    def close(self) -> None:
        """Stop the node."""
        self.raw.channel.close()
        self.node.stop()

    # holders of tokens

    def tokens_of(self, client_id: str, client_secret: str) -> Tuple[str, str]:
        """Return the access and the refresh token of a key."""
        body = self.rest("POST", "/v1/authenticate", {"client_id": client_id, "client_secret": client_secret})[1]
        return body["access_token"], body["refresh_token"]

    def key(self, permissions: List[str], project: str = "") -> str:
        """Return the access token of a new key."""
        return self.tokens_of(*self.node.create_api_key(permissions, project))[0]

    def user(self, name: str) -> str:
        """Return the access token of a new user."""
        assert self.rest("POST", "/v1/register", person(name))[0] == 201
        return str(self.rest("POST", "/v1/login", person(name))[1]["access_token"])

    def project(self, user: str) -> str:
        """Return a new project of a user."""
        body = self.rest("POST", "/v1/projects", {"project_id": str(ULID.new())}, user)[1]
        return str(body["project_id"])

    def once(self, user: str, project: str) -> str:
        """Return the user's token for one project."""
        return str(self.rest("POST", "/v1/projects/access", {"project_id": project}, user)[1]["access_token"])

    def user_key(self, user: str, project: str) -> Dict[str, Any]:
        """Return a new key that a user made."""
        wanted = {"name": "k", "project_id": project, "permissions": list(PERMISSIONS)}
        status, made = self.rest("POST", "/v1/apikeys", wanted, user)
        assert status == 201
        return made

    def forged(self, key: Optional[claims.Key] = None, **changes: Any) -> str:
        """Return a token with other claims, signed by the node or with another key under the node's name for it."""
        signer = self.node._auth.signer
        if key is not None:
            signer = claims.Signer(key._replace(id=signer.key.id))
        return signer.sign({**decoded(self.access.split(".")[1]), **changes})

    def under(self, **header: str) -> str:
        """Return a good token but for its header, signed by the node for just this header."""
        signer = self.node._auth.signer
        head, body, _ = self.access.split(".")
        text = f"{coded({**decoded(head), **header})}.{body}"
        message = claims._padded(text)
        signature = sum(pow(message % prime, exponent, prime) * lift for prime, exponent, lift in signer._parts)
        return f"{text}.{coded((signature % signer.key.modulus).to_bytes(claims.KEY_BITS // 8, 'big'))}"

    # calls

    def outcomes(self, credential: Credential) -> Dict[str, str]:
        """Make every call, and return how each ended; what was refused must have changed nothing."""
        names = [f"scrap-{next(self.numbers)}" for _ in range(2)]
        self.node.ensure_topics(names)
        ids = {topic.name: ULID(topic.id) for topic in self.node._log.all_topics()}
        caller = _Caller(self, credential.metadata, *(ids[name] for name in names))
        found: Dict[str, str] = {}
        self.node.token_clock.advance(credential.at)
        try:
            for name, (_, probe) in CALLS.items():
                before = self.state()
                found[name] = self.outcome(getattr(caller, probe))
                if found[name] not in ("yes", "empty", "no"):
                    assert self.state() == before, f"{name} was refused and did something"
        finally:
            self.node.token_clock.advance(-credential.at)
        return found

    def publish(self) -> Optional[str]:
        """Publish an event with the node's own key; returns the word for how that ended if it was not stored."""
        return _Caller(self, self.raw.metadata(None), self.topic, self.topic).publish()

    def outcome(self, call: Callable[[], Any]) -> str:
        """Return the word for what a call does."""
        try:
            return call() or "yes"
        except grpc.RpcError as error:
            return word_of((error.code().name, error.details()))

    def state(self) -> Any:
        """Return what a call could change."""
        topics = self.node._log.all_topics()
        return topics, [self.node._log.count(topic.number) for topic in topics]

    # routes

    def rest(self, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> Tuple[int, Any]:
        """Make a request; returns its status, and its body where that is JSON."""
        host, port = self.node.auth_url.rpartition("/")[2].split(":")
        sent = {"Authorization": f"Bearer {token}", **headers} if token else headers
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            told = reply.read()
            return reply.status, json.loads(told) if told[:1] in (b"{", b"[") else told


class _Caller:
    """Makes calls with one credential. Each returns another word than "yes" if it had nothing to see, or raises."""

    def __init__(self, world: World, token: Metadata, to_archive: ULID, to_destroy: ULID) -> None:
        self.world, self.raw, self.token = world, world.raw, token
        self.call = functools.partial(world.raw, token=token)
        self.to_archive, self.to_destroy = to_archive, to_destroy

    def publish(self) -> Optional[str]:
        """Publish an event."""
        replies, end = self.raw.publish([opening(), event(self.world.topic.bytes)], token=self.token)
        return None if any(isinstance(reply, frames.Ack) for reply in replies) else word_of(end)

    def subscribe(self) -> Optional[str]:
        """Open a subscription."""
        stream = RawStream(self.raw, methods.SUBSCRIBE, codec.decode_subscribe_reply, self.token)
        stream.send(subscription())
        first = stream.take()
        stream.cancel()
        return None if isinstance(first, frames.Ready) else word_of(stream.status)

    def query(self) -> Optional[str]:
        """Read a topic."""
        return None if self.raw.rows("SELECT * FROM weather", self.token) else "empty"

    def explain(self) -> None:
        """Have a query explained; on a strict node who may is told that it cannot be done."""
        try:
            assert messages.explain_reply(self.call(methods.EXPLAIN, messages.query_request(QUERY, None, False)))
        except grpc.RpcError as error:
            if not self.world.strict or (error.code().name, error.details()) != STRICT_EXPLAIN:
                raise

    def list(self) -> Optional[str]:
        """List the topics."""
        return None if messages.topics_page_reply(self.call(methods.LIST_TOPICS)).items else "empty"

    def retrieve(self) -> None:
        """Ask for a topic."""
        reply = self.call(methods.RETRIEVE_TOPIC, messages.retrieve_topic_request(self.world.topic))
        assert messages.topic_reply(reply).name == "weather"

    def archive(self) -> None:
        """Archive a topic."""
        self.delete(self.to_archive, messages.ARCHIVE)

    def destroy(self) -> None:
        """Destroy a topic."""
        self.delete(self.to_destroy, messages.DESTROY)

    def nothing(self) -> None:
        """Do nothing to a topic."""
        self.delete(self.to_destroy, 0)

    def delete(self, id: ULID, operation: int) -> None:
        """Do one of the three."""
        reply = self.call(methods.DELETE_TOPIC, messages.delete_topic_request(id, operation))
        assert messages.topic_status_reply(reply)[0] == str(id)

    def names(self) -> Optional[str]:
        """Ask for the names."""
        page = topic_pb2.TopicNamesPage.FromString(self.call(methods.TOPIC_NAMES))
        return None if page.topic_names else "empty"

    def exists(self) -> Optional[str]:
        """Ask for a name."""
        reply = self.call(methods.TOPIC_EXISTS, messages.topic_exists_request("weather"))
        return None if messages.topic_exists_reply(reply) else "no"

    def policy(self) -> None:
        """Set the policy that a topic has."""
        policy = Deduplication(DeduplicationStrategy.NONE)
        reply = self.call(methods.SET_TOPIC_POLICY, messages.policy_request(self.world.topic, policy))
        assert messages.topic_status_reply(reply)[0] == str(self.world.topic)

    def info(self) -> Optional[str]:
        """Ask for the counts."""
        return None if messages.info_reply(self.call(methods.INFO)).num_topics else "empty"

    def status(self) -> None:
        """Ask how the node is."""
        assert messages.status_reply(self.call(methods.STATUS)).status == 1

    def check(self) -> None:
        """Ask once whether it serves."""
        assert self.call(methods.HEALTH_CHECK) == records.health_reply(1)

    def watch(self) -> None:
        """Ask to be told whether it serves."""
        watching = self.raw.channel.unary_stream(methods.HEALTH_WATCH.path)(b"", metadata=self.token, timeout=30)
        assert next(watching) == records.health_reply(1)
        watching.cancel()

    def create(self) -> None:
        """Make a topic."""
        name = f"made-{next(self.world.numbers)}"
        reply = self.call(methods.CREATE_TOPIC, messages.create_topic_request(name, ULID.new()))
        assert messages.topic_reply(reply).name == name


def strangers(world: World) -> Dict[str, Tuple[Credential, str]]:
    """Return what is no credential, and the word for its refusal."""
    token = world.access
    head, body, signature = token.split(".")
    kid = decoded(head)["kid"]
    modulus = world.node._auth.signer.key.modulus
    now = decoded(body)["iat"]
    confused = f"{coded({'alg': 'HS256', 'kid': kid, 'typ': 'JWT'})}.{body}"
    by_public_key = hmac.new(modulus.to_bytes(256, "big"), confused.encode(), hashlib.sha256).digest()
    values = {
        "empty": "",
        "rubbish": "rubbish",
        "a scheme alone": "Bearer",
        "a scheme and a space": "Bearer ",
        "rubbish behind the scheme": "Bearer x",
        "three points": "Bearer ...",
        "another scheme": "Basic eDp5",
        "the scheme in lower case": f"bearer {token}",
        "the scheme in upper case": f"BEARER {token}",
        "another scheme with a good token": f"Basic {token}",
        "no scheme": token,
        "no space": f"Bearer{token}",
        "two spaces": f"Bearer  {token}",
        "a space before": f" Bearer {token}",
        "something behind": f"Bearer {token} x",
        "what base64 passes over": f"Bearer {token}!!!!",
        "a part too many": f"Bearer {token}.{signature}",
        "no signature": f"Bearer {head}.{body}.",
        "two parts": f"Bearer {head}.{body}",
        "a bad signature": f"Bearer {head}.{body}.{signature[:-4]}AAAA",
        "the signature of another token": f"Bearer {head}.{body}.{world.refresh.split('.')[2]}",
        "changed claims": f"Bearer {head}.{coded({**decoded(body), 'permissions': []})}.{signature}",
        "alg none": f"Bearer {coded({'alg': 'none', 'kid': kid, 'typ': 'JWT'})}.{body}.",
        "alg none with the signature": f"Bearer {coded({'alg': 'none', 'kid': kid})}.{body}.{signature}",
        "alg HS256 with the public key": f"Bearer {confused}.{coded(by_public_key)}",
        "another key": f"Bearer {world.forged(foreign_key())}",
        "an unknown key id": f"Bearer {claims.Signer(foreign_key()).sign(decoded(body))}",
        "a good signature under alg none": f"Bearer {world.under(alg='none')}",
        "a good signature under another alg": f"Bearer {world.under(alg='RS512')}",
        "a good signature under another key id": f"Bearer {world.under(kid=str(ULID.new()))}",
        "another audience": f"Bearer {world.forged(aud=['https://elsewhere'])}",
        "no audience": f"Bearer {world.forged(aud=[])}",
        "another issuer": f"Bearer {world.forged(iss='http://127.0.0.1:1')}",
        "not yet valid": f"Bearer {world.forged(nbf=now + 600)}",
        "issued in the future": f"Bearer {world.forged(iat=now + 600)}",
        "no end": f"Bearer {world.forged(exp=None)}",
        "ended": f"Bearer {world.forged(exp=now - 1)}",
        "a refresh token before its time": f"Bearer {world.refresh}",
    }
    found = {name: (Credential([("authorization", value)]), "invalid") for name, value in values.items()}
    found["no metadata"] = (Credential([]), "missing")
    found["no token"] = (Credential([("x-trace", "1")]), "missing")
    found["under another name"] = (Credential([("authorization-bin", token.encode())]), "missing")
    two = [("authorization", "Bearer x"), ("authorization", f"bearer {token}")]
    found["two bad ones"] = (Credential(two), "invalid")
    found["expired"] = (bearer(token, ACCESS), "invalid")
    found["a refresh token shortly before its time"] = (bearer(world.refresh, EARLIEST_REFRESH - MARGIN), "invalid")
    found["a refresh token after its time"] = (bearer(world.refresh, REFRESH), "invalid")
    found["before the clock was set back"] = (bearer(token, -MARGIN), "invalid")
    return found
