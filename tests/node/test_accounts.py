"""Projects, keys and users: by method, and by REST as the auth service does it."""

import base64
import json
import sqlite3
import urllib.error
import urllib.request

import pytest

from ensign_sync import AuthenticationError
from ensign_sync.ids import ULID
from ensign_sync.node import Node
from ensign_sync.node.keys import PERMISSIONS
from ensign_sync.node.rest import RateLimit
from ensign_sync.wire import methods
from tests.node.raw import Raw, refusal

PERSON = {
    "name": "Ada",
    "email": "ada@example.com",
    "password": "correct horse 7",
    "pwcheck": "correct horse 7",
    "organization": "Engines",
    "domain": "engines",
    "terms_agreement": True,
    "privacy_agreement": True,
}


def call(node, method, path, body=None, token=""):
    """Make a REST call; returns its status and body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(node.auth_url + path, data, headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def claims(token):
    """Return what a token says."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.fixture
def user(node):
    """The token of a registered user."""
    status, body = call(node, "POST", "/v1/register", PERSON)
    assert (status, body["message"], body["role"]) == (201, "Welcome to Ensign!", "Owner")
    status, body = call(node, "POST", "/v1/login", {"email": PERSON["email"], "password": PERSON["password"]})
    assert status == 200
    return body["access_token"]


def test_keys_by_method(node):
    """A key has the permissions that it was made with, and no others; its secret is told once."""
    key = node.create_api_key(["topics:read", "subscriber"], name="reader")
    assert "***" in repr(key)
    with Raw(node, key) as raw:
        assert raw.topic_id()
        assert refusal(raw, methods.CREATE_TOPIC, b"") == ("PERMISSION_DENIED", "not authorized to perform this action")
        assert raw.publish([]) == ([], ("PERMISSION_DENIED", "not authorized to perform this action"))
    with pytest.raises(ValueError, match="no:such"):
        node.create_api_key(["no:such"])
    with pytest.raises(ValueError, match="create_project"):
        node.create_api_key(project=str(ULID.new()))


def test_projects_are_worlds_of_their_own(node):
    """The topics of a project are there for its keys only; the same name in two of them is two topics."""
    project = node.create_project()
    with Raw(node, node.create_api_key(project=project)) as raw, node.client() as first:
        assert raw.publish([]) == ([], ("FAILED_PRECONDITION", "no topics available"))
        with node.client(**node.create_api_key(project=project)._asdict()) as second:
            second.create_topic("weather")
            second.publish("weather", "two")
            first.publish("weather", "one")
            for client, text in ((first, "one"), (second, "two")):
                assert [row.decode() for row in client.query("SELECT * FROM weather").fetchall()] == [text]
    assert [event.data for event in node.events("weather")] == [b"one"]


def test_keys_outlive_the_node_as_hashes_only(tmp_path):
    """In the data file stands no secret but that of the node's own key."""
    path = str(tmp_path / "data.db")
    with Node(path, topics=["weather"]) as node:
        key = node.create_api_key(["publisher"])
        call(node, "POST", "/v1/register", PERSON)
    with open(path, "rb") as file:
        content = file.read()
    assert key.client_id.encode() in content
    assert key.client_secret.encode() not in content
    assert PERSON["password"].encode() not in content
    with Node(path) as node, node.client(**key._asdict()) as client:
        client.publish("weather", "x")
        with node.client(client_id=key.client_id, client_secret="wrong") as wrong, pytest.raises(AuthenticationError):
            wrong.publish("weather", "x")
    with sqlite3.connect(path) as connection:
        kinds = {kind for (kind,) in connection.execute("SELECT kind FROM records")}
    connection.close()
    assert kinds == {"api-key", "user"}


def test_a_user_makes_a_project_and_a_key(node, user):
    """As the documentation of the auth service shows it: register, login, project, key; the key publishes."""
    said = claims(user)
    assert (said["name"], said["email"], "project" in said) == ("Ada", PERSON["email"], False)
    assert "publisher" not in said["permissions"]
    project = str(ULID.new())
    status, body = call(node, "POST", "/v1/projects", {"project_id": project}, user)
    assert (status, body["project_id"], body["org_id"]) == (200, project, said["org"])
    assert call(node, "POST", "/v1/projects", {"project_id": project}, user)[0] == 409
    assert call(node, "GET", f"/v1/projects/{project}", token=user)[1]["project_id"] == project
    assert [p["project_id"] for p in call(node, "GET", "/v1/projects", token=user)[1]["projects"]] == [project]
    wanted = {"name": "all", "project_id": project, "permissions": list(PERMISSIONS)}
    status, made = call(node, "POST", "/v1/apikeys", wanted, user)
    assert status == 201
    assert (len(made["client_id"]), len(made["client_secret"])) == (32, 64)
    with node.client(client_id=made["client_id"], client_secret=made["client_secret"]) as client:
        client.create_topic("mine")
        client.publish("mine", "x")
    (listed,) = call(node, "GET", "/v1/apikeys", token=user)[1]["apikeys"]
    assert listed["id"] == made["id"]
    assert "client_secret" not in listed
    path = f"/v1/apikeys/{made['id']}"
    assert call(node, "PUT", path, {"name": "renamed"}, user)[1]["name"] == "renamed"
    assert call(node, "GET", path, token=user)[1]["name"] == "renamed"
    assert call(node, "GET", "/v1/apikeys/permissions", token=user) == (200, list(PERMISSIONS))
    tokens = call(
        node, "POST", "/v1/authenticate", {"client_id": made["client_id"], "client_secret": made["client_secret"]}
    )[1]
    assert call(node, "DELETE", path, token=user)[0] == 200
    assert call(node, "GET", path, token=user)[0] == 404
    with Raw(node) as raw:
        good = [("authorization", f"Bearer {tokens['access_token']}")]
        assert raw(methods.LIST_TOPICS, token=good), "its tokens stay good until they expire"
    node.token_clock.advance(3000)
    assert call(node, "POST", "/v1/refresh", {"refresh_token": tokens["refresh_token"]})[0] == 403


def test_one_time_access(node, user):
    """A token for one project, with what the user may do to topics."""
    project = str(ULID.new())
    call(node, "POST", "/v1/projects", {"project_id": project}, user)
    status, body = call(node, "POST", "/v1/projects/access", {"project_id": project}, user)
    assert (status, sorted(body)) == (200, ["access_token"])
    said = claims(body["access_token"])
    assert (said["project"], said["exp"] - said["iat"]) == (project, 300)
    assert all(p.startswith(("topics:", "metrics:")) for p in said["permissions"])
    with Raw(node) as raw:
        token = [("authorization", f"Bearer {body['access_token']}")]
        from ensign_sync.wire import messages

        assert raw(methods.CREATE_TOPIC, messages.create_topic_request("by-user", ULID.new()), token=token)
        assert raw.publish([], token=token)[1][0] == "PERMISSION_DENIED"
    assert call(node, "POST", "/v1/projects/access", {"project_id": str(ULID.new())}, user)[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"id": "x"}, 400, "field restricted for request: id"),
        ({"client_secret": "x"}, 400, "field restricted for request: client_secret"),
        ({}, 400, "missing required field: name"),
        ({"name": "a"}, 400, "missing required field: project_id"),
        ({"name": "a", "project_id": "x"}, 400, "missing required field: permissions"),
        ({"name": "a", "project_id": "x", "permissions": ["x"]}, 400, "invalid permissions requested for apikey"),
        (
            {"name": "a", "project_id": "x", "permissions": ["projects:edit"]},
            400,
            "invalid permissions requested for apikey",
        ),
        (
            {"name": "a", "project_id": "x", "permissions": ["publisher"]},
            400,
            "validation error: invalid project id for apikey",
        ),
    ],
)
def test_bad_keys(node, user, body, status, text):
    """Each mistake is named."""
    assert call(node, "POST", "/v1/apikeys", body, user) == (status, {"success": False, "error": text})


def test_strangers(node, friendly):
    """Without a token 401, without the permission 403; a friendly node lets nobody register unless told to."""
    for method, path in (
        ("GET", "/v1/projects"),
        ("POST", "/v1/projects"),
        ("GET", "/v1/apikeys"),
        ("POST", "/v1/apikeys"),
        ("DELETE", "/v1/apikeys/x"),
    ):
        body = {} if method == "POST" else None
        assert call(node, method, path, body) == (
            401,
            {"success": False, "error": "this endpoint requires authentication"},
        )
        key = {"client_id": node.client_id, "client_secret": node.client_secret}
        token = call(node, "POST", "/v1/authenticate", key)[1]["access_token"]
        refused = {"success": False, "error": "user does not have permission to perform this operation"}
        assert call(node, method, path, body, token) == (403, refused)
    assert call(friendly, "POST", "/v1/register", PERSON)[0] == 403
    with Node(strict=False, registration=True) as open_node:
        assert call(open_node, "POST", "/v1/register", PERSON)[0] == 201
        assert call(open_node, "POST", "/v1/register", PERSON)[0] == 409


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": ""}, "missing required field: name"),
        ({"terms_agreement": False}, "missing required field: terms_agreement"),
        ({"pwcheck": "other"}, "invalid field: passwords do not match"),
        ({"password": "short", "pwcheck": "short"}, "password is too weak"),
        ({"password": "aaaaaaaaa", "pwcheck": "aaaaaaaaa"}, "password is too weak"),
    ],
)
def test_bad_registrations(node, change, text):
    """Each mistake is named."""
    status, body = call(node, "POST", "/v1/register", {**PERSON, **change})
    assert status == 400
    assert text in body["error"]


def test_bad_logins(node, user):
    """Nobody is told which half was wrong."""
    text = {"success": False, "error": "Unable to login with those details - please try again!"}
    for body in ({"email": PERSON["email"], "password": "no"}, {"email": "no@x", "password": PERSON["password"]}):
        assert call(node, "POST", "/v1/login", body) == (403, text)
    assert call(node, "POST", "/v1/login", {}) == (400, text)


def test_the_rate_limit():
    """When asked for: so many at once, then the words and headers of the real service."""
    with Node(rate_limit=RateLimit(per_second=0.001, burst=30)) as node:
        assert [call(node, "GET", "/v1/status")[0] for _ in range(30)] == [200] * 30
        refused = {"success": False, "error": "rate limit reached: too many requests"}
        assert call(node, "GET", "/v1/status") == (429, refused)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(node.auth_url + "/v1/status", timeout=30)
        with caught.value as error:
            shown = [error.headers[f"X-Ratelimit-{name}"] for name in ("Limit", "Remaining", "Reset")]
        assert shown == ["30", "0", "1"]


def test_a_bucket_fills_again():
    """Ten a second, for each address by itself, never more than the burst; a try that fails costs nothing."""
    now = [0.0]
    limit = RateLimit(clock=lambda: now[0])
    assert [limit.take("a") for _ in range(32)] == [*range(29, -1, -1), -1, -1]
    assert limit.take("b") == 29
    now[0] = 0.35
    assert [limit.take("a") for _ in range(4)] == [2, 1, 0, -1]
    now[0] = 1000.0
    assert limit.take("a") == 29
