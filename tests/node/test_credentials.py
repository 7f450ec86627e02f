"""Who may do what: every call and every route, with every kind of credential. The tables are the documentation.

A cell of a table of calls is a word of ``world.WORDS``, which says how the call ends; ``yes`` is that it did what it is
for. A cell of a table of routes is a status, and ``REFUSALS`` has the text that belongs to it.
"""

import contextlib
import functools
from typing import Dict

import pytest

from ensign_sync.api.v1beta1 import topic_pb2
from ensign_sync.ids import ULID
from ensign_sync.node.keys import PERMISSIONS
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods
from tests.node.raw import Raw, RawStream, event, opening
from tests.node.world import (
    ACCESS,
    CALLS,
    EARLIEST_REFRESH,
    MARGIN,
    REFRESH,
    WORDS,
    Credential,
    World,
    bearer,
    person,
    strangers,
)

pytestmark = pytest.mark.ends

#: What anybody may call.
PUBLIC = ("Status", "Check", "Watch")

#: Keys of the node's project, each with one permission, with none, with two, and with all.
BY_PERMISSION = """
                     none     pub      sub      create   edit     destroy  read     metrics  both     all
Publish              -        yes      -        -        -        -        -        -        -        yes
Subscribe            -        -        yes      -        -        -        -        -        -        yes
EnSQL                -        -        yes      -        -        -        yes      -        yes      yes
Explain              -        -        yes      -        -        -        -        -        -        yes
ListTopics           -        -        -        -        -        -        yes      -        yes      yes
RetrieveTopic        -        -        -        -        -        -        yes      -        yes      yes
DeleteTopic:archive  -        -        -        -        yes      -        -        -        -        yes
DeleteTopic:destroy  -        -        -        -        -        yes      -        -        -        yes
DeleteTopic:nothing  no-op    no-op    no-op    no-op    no-op    no-op    no-op    no-op    no-op    no-op
TopicNames           -        yes      yes      -        -        -        yes      -        yes      yes
TopicExists          -        yes      yes      -        -        -        yes      -        yes      yes
SetTopicPolicy       -        -        -        -        yes      -        -        -        -        yes
Info                 -        -        -        -        -        -        -        -        yes      yes
Status               yes      yes      yes      yes      yes      yes      yes      yes      yes      yes
Check                yes      yes      yes      yes      yes      yes      yes      yes      yes      yes
Watch                yes      yes      yes      yes      yes      yes      yes      yes      yes      yes
CreateTopic          -        -        -        yes      -        -        -        -        -        yes
"""
_PERMISSION_OF = {
    "pub": ["publisher"],
    "sub": ["subscriber"],
    "create": ["topics:create"],
    "edit": ["topics:edit"],
    "destroy": ["topics:destroy"],
    "read": ["topics:read"],
    "metrics": ["metrics:read"],
    "both": ["topics:read", "metrics:read"],
    "none": [],
    "all": list(PERMISSIONS),
}

#: Whose tokens they are. ``other``: a key with every permission in another project. ``user``: somebody who logged in,
#: whose token names no project. ``once``: a token for one project, which a user may ask for. ``late``: a refresh token
#: in its time, used to call. ``deleted``: the token of a key, in a project of its own, that was deleted since.
BY_HOLDER = """
                     own        other      user       once       late       deleted
Publish              yes        no-topics  -          -          -          no-topics
Subscribe            yes        no-topics  -          -          -          no-topics
EnSQL                yes        unknown    -          unknown    -          unknown
Explain              yes        unknown    -          -          -          unknown
ListTopics           yes        empty      -          empty      -          empty
RetrieveTopic        yes        no-topic   -          no-topic   -          no-topic
DeleteTopic:archive  yes        no-topic   -          no-topic   -          no-topic
DeleteTopic:destroy  yes        no-topic   -          no-topic   -          no-topic
DeleteTopic:nothing  no-op      no-op      no-op      no-op      no-op      no-op
TopicNames           yes        empty      empty      empty      -          empty
TopicExists          yes        no         no-project no         -          no
SetTopicPolicy       yes        no-topic   -          no-topic   -          no-topic
Info                 yes        empty      -          empty      -          empty
Status               yes        yes        yes        yes        yes        yes
Check                yes        yes        yes        yes        yes        yes
Watch                yes        yes        yes        yes        yes        yes
CreateTopic          yes        yes        no-project yes        -          yes
"""

#: ``nobody``: no token. ``own``: the node's own key. ``key``: another key of its project. ``late``: the refresh token
#: of the node's own key in its time. ``once``: the user's token for the project. ``stranger``: another user. ``user``:
#: the one who made the project and the key that the paths name.
ROUTES = """
                             nobody  own  key  late  once  stranger  user
GET     /v1/projects         401     403  403  403   403   200       200
POST    /v1/projects         401     403  403  403   403   200       200
GET     /v1/projects/PROJECT 401     403  403  403   403   404       200
POST    /v1/projects/access  401     404  404  403   200   404       200
GET     /v1/apikeys          401     403  403  403   403   200       200
POST    /v1/apikeys          401     403  403  403   403   400       201
GET /v1/apikeys/permissions  401     200  200  200   200   200       200
GET     /v1/apikeys/KEY      401     403  403  403   403   404       200
PUT     /v1/apikeys/KEY      401     403  403  403   403   404       200
DELETE  /v1/apikeys/KEY      401     403  403  403   403   404       200
GET     /v1/backup           401     200  403  403   403   403       403
GET     /v1/nowhere          404     404  404  404   404   404       404
GET     /v1/status           200     200  200  200   200   200       200
GET  /.well-known/jwks.json  200     200  200  200   200   200       200
POST    /v1/authenticate     200     200  200  200   200   200       200
POST    /v1/refresh          403     403  403  403   403   403       403
POST    /v1/login            200     200  200  200   200   200       200
"""
REFUSALS = {
    401: "this endpoint requires authentication",
    403: "user does not have permission to perform this operation",
    404: "resource not found",
    405: "method not allowed",
}

#: The methods that each path has; any other is refused with 405.
METHODS = {
    "/v1/authenticate": "POST",
    "/v1/refresh": "POST",
    "/v1/register": "POST",
    "/v1/login": "POST",
    "/v1/status": "GET",
    "/.well-known/jwks.json": "GET",
    "/v1/projects": "GET POST",
    "/v1/projects/PROJECT": "GET",
    "/v1/projects/access": "GET POST",
    "/v1/apikeys": "GET POST",
    "/v1/apikeys/permissions": "GET PUT DELETE",
    "/v1/apikeys/KEY": "GET PUT DELETE",
    "/v1/backup": "GET",
}

#: The page has a token of its own. ``evil``: with it, but under a name that is not the node's.
PAGE = """
                      token  nobody  api-key  evil
GET   /               200    403     403      421
GET   /look/overview  200    403     403      421
GET   /look/events    200    403     403      421
POST  /look/query     200    403     403      421
GET   /look/nothing   404    403     403      421
PUT   /look/overview  405    403     403      421
"""


def table(text: str) -> Dict[str, Dict[str, str]]:
    """Read a table: column -> row -> cell. The cells of a row are its last words."""
    head, *lines = text.strip("\n").splitlines()
    columns = head.split()
    found: Dict[str, Dict[str, str]] = {column: {} for column in columns}
    for line in lines:
        words = line.split()
        row = " ".join(words[: -len(columns)])
        for column, word in zip(columns, words[-len(columns) :]):
            found[column][row] = word
    return found


@pytest.fixture
def world(request, monkeypatch):
    """A node and everybody who may come to it; strict, friendly, or strict on the public names of grpcio."""
    kind = getattr(request, "param", "strict")
    if kind == "public":
        monkeypatch.setenv("ENSIGN_SYNC_NODE_SERVER", "public")
    with contextlib.closing(World(kind != "friendly")) as made:
        yield made


both = pytest.mark.parametrize("world", ["strict", "friendly"], indirect=True)
all_three = pytest.mark.parametrize("world", ["strict", "friendly", "public"], indirect=True)


def compare(world, text, who):
    """Make every call of a table, and tell of all cells that are otherwise."""
    wrong = []
    for column, cells in table(text).items():
        assert list(cells) == list(CALLS)
        found = world.outcomes(who[column])
        for row, word in cells.items():
            if world.strict and (row, word) == ("Explain", "unknown"):
                word = "yes"  # it does not come so far as to look for the topic
            if found[row] != word:
                wrong.append(f"{row} by {column}: {found[row]}, and not {word}")
    assert not wrong, "\n".join(wrong)


def test_every_call_is_in_the_tables():
    """No call of the service is without its row."""
    there = {value for value in vars(methods).values() if isinstance(value, methods.Method)}
    assert {method for method, _ in CALLS.values()} == there


@both
def test_permissions(world):
    """A key may do what its permissions say, and nothing else."""
    compare(world, BY_PERMISSION, {name: bearer(world.key(given)) for name, given in _PERMISSION_OF.items()})


@both
def test_holders(world):
    """What a token is good for depends on whose it is, and nobody reaches the topics of another project."""
    user = world.user("ada")
    own = world.project(user)
    made = world.user_key(user, world.project(user))
    deleted, _ = world.tokens_of(made["client_id"], made["client_secret"])
    assert world.rest("DELETE", f"/v1/apikeys/{made['id']}", token=user)[0] == 200
    who = {
        "own": bearer(world.access),
        "other": bearer(world.key(list(PERMISSIONS), world.node.create_project())),
        "user": bearer(user),
        "once": bearer(world.once(user, own)),
        "late": bearer(world.refresh, EARLIEST_REFRESH),
        "deleted": bearer(deleted),
    }
    compare(world, BY_HOLDER, who)


@all_three
def test_strangers(world):
    """Without a good token only Status and the health checks answer, and nobody is told what was wrong with it."""
    wrong = []
    for name, (credential, word) in strangers(world).items():
        for call, found in world.outcomes(credential).items():
            wanted = "yes" if call in PUBLIC else word
            if found != wanted:
                wrong.append(f"{call} with {name}: {found}, and not {wanted}")
    assert not wrong, "\n".join(wrong)


@all_three
def test_the_first_good_value_counts(world):
    """Of several values of the header one good one is enough, wherever it stands; a token is good until it ends."""
    good = ("authorization", f"Bearer {world.access}")
    everything = table(BY_HOLDER)["own"]
    for credential in (
        Credential([("authorization", "Bearer x"), good]),
        Credential([("authorization", "Basic eDp5"), ("authorization", ""), good]),
        Credential([good, ("authorization", "Bearer x")]),
        Credential([good], ACCESS - MARGIN),
    ):
        assert world.outcomes(credential) == everything


@all_three
def test_streams_are_refused_before_their_first_message(world):
    """Who may not open a stream is told so at once, though nothing was sent."""
    none = world.key([])
    empty = world.key(list(PERMISSIONS), world.node.create_project())
    for credential, word in (
        (Credential([]), "missing"),
        (bearer("x"), "invalid"),
        (bearer(none), "-"),
        (bearer(empty), "no-topics"),
    ):
        for method, decode in (
            (methods.PUBLISH, codec.decode_publisher_reply),
            (methods.SUBSCRIBE, codec.decode_subscribe_reply),
        ):
            stream = RawStream(world.raw, method, decode, credential.metadata)
            assert stream.take() is None
            stream.half_close()
            assert stream.status == WORDS[word]


@both
def test_an_open_stream_outlives_its_token(world):
    """Tokens are looked at when a call begins: a stream goes on when its token has ended, a new one is refused."""
    publisher, topics = world.raw.publisher()
    subscriber = world.raw.subscriber()
    world.node.token_clock.advance(REFRESH)
    publisher.send(event(topics["weather"]))
    assert isinstance(publisher.take(), frames.Ack)
    assert subscriber.take().topic_id == topics["weather"]
    publisher.cancel()
    subscriber.cancel()
    assert world.outcome(world.publish) == "invalid"


@both
def test_the_project_of_another(world):
    """To name somebody else's project in a request is refused, with a project of one's own and without."""
    foreign = ULID(world.node._keys.own.project)
    create = topic_pb2.Topic(name="mine", project_id=foreign.bytes).SerializeToString()
    exists = topic_pb2.TopicName(name="weather", project_id=str(foreign)).SerializeToString()
    for token in (world.user("ada"), world.key(list(PERMISSIONS), world.node.create_project())):
        for method, request in ((methods.CREATE_TOPIC, create), (methods.TOPIC_EXISTS, exists)):
            before = world.state()
            call = functools.partial(world.raw, method, request, token=bearer(token).metadata)
            assert world.outcome(call) == "-"
            assert world.state() == before


@both
def test_projects_do_not_see_each_other(world):
    """A subscription to all topics of one project gets nothing of another one's, and neither does a filter by id."""
    other = Raw(world.node, world.node.create_api_key(project=world.node.create_project()))
    with other:
        assert other.publish([opening(str(world.topic))])[1] == WORDS["no-topics"]
        other(methods.CREATE_TOPIC, messages.create_topic_request("weather", ULID.new()))
        subscriber = other.subscriber()
        assert world.publish() is None
        other.publish([opening(), event(other.topic_id())])
        assert subscriber.take().topic_id == other.topic_id()
        nacked, end = other.publish([opening(), event(world.topic.bytes)])
        assert (int(nacked[1].code), nacked[1].error, end[0]) == (2, "topic unknown or unhandled", "OK")
        subscriber.cancel()


def test_a_token_for_one_project_is_short(world):
    """It is good for five minutes, and the user's own token goes on."""
    user = world.user("ada")
    once = bearer(world.once(user, world.project(user)), 300 - MARGIN)
    assert world.outcomes(once)["ListTopics"] == "empty"
    assert set(world.outcomes(once._replace(at=300)).values()) == {"invalid", "yes"}
    assert world.outcomes(bearer(user, 300))["TopicNames"] == "empty"


def test_a_header_that_is_right(world):
    """A token that the tests sign by themselves is as good as one from the service: what is refused is its header."""
    assert world.outcomes(bearer(world.under()))["ListTopics"] == "yes"


def test_a_deleted_key(world):
    """A key that was deleted gets no tokens, neither for its secret nor for its refresh token."""
    user = world.user("ada")
    made = world.user_key(user, world.project(user))
    secret = {name: made[name] for name in ("client_id", "client_secret")}
    _, refresh = world.tokens_of(**secret)
    world.node.token_clock.advance(EARLIEST_REFRESH)
    assert world.rest("POST", "/v1/refresh", {"refresh_token": refresh})[0] == 200
    assert world.rest("DELETE", f"/v1/apikeys/{made['id']}", token=user)[0] == 200
    text = "Logged out of your account - please log back in!"
    assert world.rest("POST", "/v1/refresh", {"refresh_token": refresh}) == (403, {"success": False, "error": text})
    refused = (403, {"success": False, "error": "invalid credentials"})
    assert world.rest("POST", "/v1/authenticate", secret) == refused


class TestRoutes:
    """The REST calls."""

    @pytest.fixture
    def ada(self, world):
        """The token of a user, a project and a key of theirs."""
        user = world.user("ada")
        project = world.project(user)
        return user, project, world.user_key(user, project)["id"]

    def bodies(self, world, project):
        """Return what each route wants to be sent."""
        return {
            "POST /v1/projects": {"project_id": str(ULID.new())},
            "POST /v1/projects/access": {"project_id": project},
            "POST /v1/apikeys": {"name": "k", "project_id": project, "permissions": ["publisher"]},
            "PUT /v1/apikeys/KEY": {"name": "renamed"},
            "POST /v1/authenticate": {"client_id": world.node.client_id, "client_secret": world.node.client_secret},
            "POST /v1/refresh": {"refresh_token": "x"},
            "POST /v1/login": person("ada"),
        }

    @both
    def test_who_may(self, world, ada):
        """Each route has its permission; what belongs to another organization is not there."""
        user, project, key = ada
        tokens = {
            "nobody": "",
            "own": world.access,
            "key": world.key(list(PERMISSIONS)),
            "late": world.refresh,
            "once": world.once(user, project),
            "stranger": world.user("eve"),
            "user": user,
        }
        wrong = []
        for column, cells in table(ROUTES).items():
            late = EARLIEST_REFRESH if column == "late" else 0
            world.node.token_clock.advance(late)
            for row, status in cells.items():
                method, path = row.replace("PROJECT", project).replace("KEY", key).split()
                found, body = world.rest(method, path, self.bodies(world, project).get(row), tokens[column])
                if found != int(status):
                    wrong.append(f"{row} by {column}: {found}, and not {status}: {body!r:.100}")
                elif found in REFUSALS and row != "POST /v1/refresh":
                    assert body == {"success": False, "error": REFUSALS[found]}, f"{row} by {column}"
            world.node.token_clock.advance(-late)
        assert not wrong, "\n".join(wrong)

    def test_no_credential(self, world, ada):
        """What is no good token is 401 wherever one is needed, whatever the body, and changes nothing where none is."""
        _, project, key = ada
        # The scheme may be written otherwise here than in a call, so that is left open.
        skipped = ("no space", "the scheme in lower case", "two spaces", "a space before", "two bad ones")
        needed = [row for row, status in table(ROUTES)["nobody"].items() if status == "401"]
        wrong = []
        for name, (credential, word) in strangers(world).items():
            if name in skipped or word == "missing":
                continue
            headers = {"Authorization": credential.metadata[0][1]}
            world.node.token_clock.advance(credential.at)
            for row in needed:
                method, path = row.replace("PROJECT", project).replace("KEY", key).split()
                # Alternately with a body that would be refused, too: it is not looked at.
                body = b"{" if len(row + name) % 2 else self.bodies(world, project).get(row)
                if world.rest(method, path, body, **headers)[0] != 401:
                    wrong.append(f"{row} with {name}")
            assert world.rest("POST", "/v1/login", person("ada"), **headers)[0] == 200
            world.node.token_clock.advance(-credential.at)
        assert not wrong, "\n".join(wrong)

    def test_methods(self, world, ada):
        """A path is asked with one of its methods, by anybody; otherwise the answer is 405."""
        _, project, key = ada
        for path, allowed in METHODS.items():
            real = path.replace("PROJECT", project).replace("KEY", key)
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
                if method not in allowed.split():
                    assert world.rest(method, real) == (405, {"success": False, "error": REFUSALS[405]}), (method, path)
            assert world.rest("HEAD", real)[0] == 405
        refused = (404, {"success": False, "error": REFUSALS[404]})
        for path in ("/nowhere", "/v1", "/v1/", "/v1/projects/a/b", "/v1/apikeysx", "/metrics"):
            assert world.rest("GET", path, token=world.access) == refused, path

    def test_bodies(self, world, ada):
        """A body that is no JSON object is 400 to who may make the call."""
        user, _, key = ada
        refused = (400, {"success": False, "error": "could not parse request"})
        for method, path in (("POST", "/v1/projects"), ("POST", "/v1/apikeys"), ("PUT", f"/v1/apikeys/{key}")):
            for body in (b"", b"{", b"[]", b"1", b"null", b"\xff", b'"x"', b"[" * 100_000):
                assert world.rest(method, path, body, user) == refused, (path, body[:10])


@both
def test_the_page(world):
    """The page answers who has its token, under the node's names; keys are of no use there, nor its token elsewhere."""
    address = world.node.page_url
    host, token = address.split("/")[2], address.rpartition("=")[2]
    headers = {
        "token": {"Host": host, "Authorization": f"Bearer {token}"},
        "nobody": {"Host": host},
        "api-key": {"Host": host, "Authorization": f"Bearer {world.access}"},
        "evil": {"Host": "evil.example:80", "Authorization": f"Bearer {token}"},
    }
    in_address = {"token": token, "evil": token, "api-key": world.access, "nobody": ""}
    wrong = []
    for column, cells in table(PAGE).items():
        for row, status in cells.items():
            method, path = row.split()
            path += f"?token={in_address[column]}" if path == "/" else f"?topic={world.topic}"
            body = b'{"query": "SELECT * FROM weather"}' if method == "POST" else None
            found = world.rest(method, path, body, **headers[column])[0]
            if found != int(status):
                wrong.append(f"{row} with {column}: {found}, and not {status}")
    assert not wrong, "\n".join(wrong)
    for name in ("localhost", "127.0.0.1", "[::1]"):
        there = {"Host": f"{name}:{host.rpartition(':')[2]}", "Authorization": f"Bearer {token}"}
        assert world.rest("GET", "/look/overview", **there)[0] == 200
    for path in ("/v1/apikeys/permissions", "/v1/backup"):
        assert world.rest("GET", path, token=token)[0] == 401
