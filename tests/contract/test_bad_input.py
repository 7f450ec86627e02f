"""A table of what people get wrong: each is a clear error of the right class, in time."""

import socket
import time
from datetime import datetime

import pytest

from ensign_sync import (
    AuthenticationError,
    CheckpointError,
    Ensign,
    EnsignConnectionError,
    EnsignError,
    Event,
    EventTooLargeError,
    InvalidQueryError,
    QueryNoRows,
    UnknownTopicError,
)


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    """Nothing of the environment gets in."""
    for name in ("CLIENT_ID", "CLIENT_SECRET", "ENDPOINT", "INSECURE", "AUTH_URL", "CREDENTIALS", "NO_AUTHENTICATION"):
        monkeypatch.delenv(f"ENSIGN_{name}", raising=False)


@pytest.fixture
def dead_port():
    """A port on which nothing listens, held so that nobody else gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_no_credentials():
    """Missing credentials are a ValueError that names both ways to give them."""
    with pytest.raises(ValueError, match="client_id and client_secret required") as caught:
        Ensign()
    assert "cred_path" in str(caught.value)
    assert "ENSIGN_CLIENT_ID" in str(caught.value)


def test_wrong_secret(node):
    """A wrong secret is an AuthenticationError that names the key and the service, and never the secret."""
    with Ensign(
        node.client_id, "wr0ng-secret", endpoint=node.endpoint, insecure=True, auth_url=node.auth_url
    ) as client:
        for call in (client.get_topics, lambda: client.publish("weather", b"x"), lambda: client.subscribe("weather")):
            started = time.monotonic()
            with pytest.raises(AuthenticationError, match="invalid credentials") as caught:
                call()
            assert time.monotonic() - started < 10
            assert node.client_id in str(caught.value)
            assert node.auth_url in str(caught.value)
            assert "wr0ng-secret" not in repr(caught.value) + str(caught.value)


CALLS = {
    "status": lambda client: client.status(),
    "publish": lambda client: client.publish("weather", b"x"),
    "submit": lambda client: client.submit("weather", b"x"),
    "publish_from": lambda client: client.publish_from("weather", [b"x"]),
    "subscribe": lambda client: client.subscribe("weather"),
    "query": lambda client: client.query("SELECT * FROM weather"),
    "get_topics": lambda client: client.get_topics(),
}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_no_server(node, dead_port, call):
    """Without a server every call raises a ConnectionError that names the endpoint, within its time."""
    endpoint = f"127.0.0.1:{dead_port}"
    with Ensign(
        node.client_id, node.client_secret, endpoint=endpoint, insecure=True, auth_url=node.auth_url, timeout=1.5
    ) as client:
        started = time.monotonic()
        with pytest.raises(EnsignConnectionError) as caught:
            CALLS[call](client)
        assert time.monotonic() - started < 15
        assert isinstance(caught.value, ConnectionError)
        assert endpoint in str(caught.value)
        assert "UNAVAILABLE" in str(caught.value)
        assert "Hint" in str(caught.value)


@pytest.mark.parametrize("call", [name for name in CALLS if name != "status"] + ["status"], ids=str)
def test_no_auth_server(node, dead_port, call):
    """Without the auth service every call raises an AuthenticationError that is a ConnectionError too."""
    url = f"http://127.0.0.1:{dead_port}"
    with Ensign(
        node.client_id, node.client_secret, endpoint=node.endpoint, insecure=True, auth_url=url, timeout=0.5
    ) as client:
        with pytest.raises(EnsignError) as caught:
            CALLS[call](client)
        assert url in str(caught.value)
        assert isinstance(caught.value, (AuthenticationError, ConnectionError))


def test_tls_against_plaintext(node):
    """TLS against a plaintext port says so in its hint."""
    with Ensign(
        node.client_id, node.client_secret, endpoint=node.endpoint, auth_url=node.auth_url, timeout=4.0
    ) as client:
        for call in (client.status, lambda: client.publish("weather", b"x")):
            with pytest.raises(EnsignConnectionError, match="insecure=True"):
                call()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Event(), ValueError, "no data provided"),
        (lambda: Event(b""), ValueError, "no data provided"),
        (lambda: Event("text"), TypeError, "encode"),
        (lambda: Event(7), TypeError, "bytes"),
        (lambda: Event(b"x", "image/png"), ValueError, "image/png"),
        (lambda: Event(b"x", None), ValueError, "no mimetype"),
        (lambda: Event(b"x", 7), ValueError, "7"),
        (lambda: Event(b"x", schema_version="one"), ValueError, "one"),
        (lambda: Event(b"x", schema_version="1.0"), ValueError, "1.0"),
        (lambda: Event(b"x", schema_name=" "), ValueError, "schema name"),
        (lambda: Event(b"x", meta={"a": 1}), TypeError, "meta"),
        (lambda: Ensign(endpoint="https://here:1"), ValueError, "host:port"),
        (lambda: Ensign(endpoint="here"), ValueError, "host:port"),
        (lambda: Ensign(endpoint="embedded:?color=red"), ValueError, "color"),
        (lambda: Ensign(endpoint="embedded:", timeout=0), ValueError, "timeout"),
        (lambda: Ensign(endpoint="embedded:", max_in_flight=0), ValueError, "max_in_flight"),
        (lambda: Ensign(endpoint="embedded:", max_in_flight=20_000), ValueError, "16000"),
        (lambda: Ensign(cred_path="/no/such/file"), ValueError, "/no/such/file"),
        (lambda: Ensign("id", 7), TypeError, "client_secret"),
    ],
)
def test_bad_values(make, error, text):
    """What is wrong is named, to the person who wrote it."""
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda c: c.publish("nowhere", b"x"), UnknownTopicError, "nowhere"),
        (lambda c: c.subscribe("weather", "nowhere"), UnknownTopicError, "nowhere"),
        (lambda c: c.subscribe("nowhere"), UnknownTopicError, "nowhere"),
        (lambda c: c.publish("weather", b"x" * (5 * 2**20)), EventTooLargeError, "limit"),
        (lambda c: c.publish("weather", b"x", timeout=-1), ValueError, "timeout"),
        (lambda c: c.query("SELECT * FROM nowhere"), InvalidQueryError, "nowhere"),
        (lambda c: c.query("SELEKT"), InvalidQueryError, "invalid query type"),
        (lambda c: c.query('SELECT * FROM "orders"'), InvalidQueryError, "quot"),
        (lambda c: c.query(""), InvalidQueryError, "empty"),
        (lambda c: c.query(None), TypeError, "str"),
        (lambda c: c.query("SELECT * FROM weather WHERE a ? 1"), InvalidQueryError, "syntax error at position"),
        (lambda c: c.query("SELECT * FROM weather WHERE a = :b", {"c": 1}), InvalidQueryError, ":b"),
        (lambda c: c.query("SELECT * FROM weather WHERE a = 1"), QueryNoRows, "no rows"),
        (lambda c: c.query("SELECT * FROM weather"), QueryNoRows, "no rows"),
        (lambda c: c.subscribe("weather", start="erliest"), ValueError, "'recent', 'latest', 'earliest'"),
        (lambda c: c.subscribe("weather", start="erliest_of_alls"), ValueError, "start"),
        (lambda c: c.subscribe("weather", start=datetime(2026, 1, 1)), ValueError, "time zone"),
        (lambda c: c.subscribe("weather", start={"whether": "latest"}), ValueError, "whether"),
        (lambda c: c.subscribe("weather", start=7), ValueError, "start=7"),
        (lambda c: c.subscribe("weather", checkpoint=7), TypeError, "load"),
        (lambda c: c.subscribe("weather", checkpoint=__file__), CheckpointError, "no checkpoint"),
        (lambda c: c.subscribe("weather", checkpoint="/nowhere/at/all"), CheckpointError, "/nowhere/at/all"),
        (lambda c: c.subscribe("weather", query="SELEKT"), InvalidQueryError, "invalid query type"),
        (lambda c: c.subscribe("weather", query="SELECT * FROM weather OFFSET 3"), InvalidQueryError, "start="),
        (lambda c: c.subscribe("weather", query="SELECT * FROM weather LIMIT 0"), InvalidQueryError, "LIMIT"),
        (lambda c: c.subscribe("other", query="SELECT * FROM weather"), ValueError, "weather"),
        (lambda c: c.subscribe("weather", params={"a": 1}), InvalidQueryError, "params"),
        (lambda c: c.subscribe("weather", max_buffered=0), ValueError, "max_buffered"),
        (lambda c: c.retrieve_topic("nowhere"), EnsignError, "nowhere"),
        (lambda c: c.create_topic("7up"), ValueError, "7up"),
        (lambda c: c.create_topic("weather"), EnsignError, "ALREADY_EXISTS"),
    ],
)
def test_bad_calls_harm_nobody(client, call, error, text):
    """What cannot be done is an error of its class that names it; the client goes on."""
    future = client.submit("weather", b"another") if error is not QueryNoRows else None
    with pytest.raises(error, match=text):
        call(client)
    if future is not None:
        assert future.result(30)
    client.publish("weather", b"after")


def test_a_data_file_of_something_else(tmp_path):
    """A foreign file is refused and not touched."""
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not a database\n" * 100)
    with Ensign(endpoint=f"embedded:{foreign}") as client, pytest.raises(EnsignError, match=r"notes\.txt"):
        client.status()
    assert foreign.read_text() == "not a database\n" * 100
