"""Settings: which source wins, what is refused, and that no error and no text shows a secret."""

import copy
import json
import pathlib
import pickle

import pytest

from ensign_sync.exceptions import EnsignSettingsError
from ensign_sync.settings import (
    DEFAULT_AUTH_URL,
    DEFAULT_ENDPOINT,
    TLS,
    Credentials,
    Embedded,
    Reconnect,
    Settings,
    check_endpoint,
    load,
    parse_embedded,
)
from tests.tables import each

SECRET = "s3cr3t-of-a-key"
KEY = {"client_id": "me", "client_secret": SECRET}
NAMES = {"client_id": "ClientID", "client_secret": "ClientSecret", "endpoint": "Endpoint", "auth_url": "AuthURL"}


def value_from(name, source):
    """Return a value of a setting that tells its source."""
    if name == "endpoint":
        return f"{source}:443"
    return f"https://{source}.example" if name == "auth_url" else source


def write(path, content):
    """Write a credentials file and return its path as text."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def chain(error):
    """Yield an error and every error that is attached to it."""
    seen, waiting = [], [error]
    while waiting:
        current = waiting.pop()
        if current is not None and current not in seen:
            seen.append(current)
            waiting += [current.__cause__, current.__context__]
    return seen


def assert_silent(error):
    """Check that neither an error nor one attached to it holds the secret, in its text or in its attributes."""
    for one in chain(error):
        told = [str(one), repr(one), repr(one.args), repr(vars(one))]
        told += [repr(getattr(one, name, "")) for name in ("doc", "object", "reason", "msg")]
        assert SECRET not in " ".join(told), f"{type(one).__name__} shows the secret"


# Where a setting comes from


@pytest.mark.parametrize("name", NAMES)
def test_precedence(name, tmp_path):
    """The argument wins over the file of the caller, that over the environment, that over the environment's file."""
    file, shared = (write(tmp_path / source, {NAMES[name]: value_from(name, source)}) for source in ("file", "shared"))
    for chosen in range(1, 16):
        sources = [source for bit, source in enumerate(("shared", "env", "file", "argument")) if chosen >> bit & 1]
        arguments = {other: value for other, value in KEY.items() if other != name}
        if "argument" in sources:
            arguments[name] = value_from(name, "argument")
        arguments["cred_path"] = file if "file" in sources else ""
        env = {f"ENSIGN_{name.upper()}": value_from(name, "env")} if "env" in sources else {}
        found = load(env={**env, "ENSIGN_CREDENTIALS": shared if "shared" in sources else ""}, **arguments)
        value = getattr(found.credentials, name) if name in KEY else getattr(found, name)
        assert value == value_from(name, sources[-1]), sources


def test_defaults():
    """A key alone is enough: the official server, encrypted."""
    found = load(env={}, **KEY)
    assert found == Settings(DEFAULT_ENDPOINT, False, DEFAULT_AUTH_URL, Credentials("me", SECRET), TLS(), None)
    assert (DEFAULT_ENDPOINT, DEFAULT_AUTH_URL) == ("ensign.rotational.app:443", "https://auth.rotational.app")


def test_environment_of_the_process(monkeypatch):
    """Without a mapping the environment of the process is read."""
    for name in ("ENDPOINT", "INSECURE", "AUTH_URL", "NO_AUTHENTICATION", "CREDENTIALS"):
        monkeypatch.delenv(f"ENSIGN_{name}", raising=False)
    monkeypatch.setenv("ENSIGN_CLIENT_ID", "me")
    monkeypatch.setenv("ENSIGN_CLIENT_SECRET", SECRET)
    assert load().credentials == Credentials("me", SECRET)


@each("empty", ["", None])
def test_empty_argument(empty):
    """An argument that is empty or None was not given."""
    env = {"ENSIGN_CLIENT_ID": "me", "ENSIGN_CLIENT_SECRET": SECRET, "ENSIGN_ENDPOINT": "h:1"}
    found = load(empty, empty, empty, empty, None, empty, env=env)
    assert (found.credentials, found.endpoint) == (Credentials("me", SECRET), "h:1")


def test_cred_path_may_be_a_path(tmp_path):
    """The path of the file may be text or a path."""
    path = tmp_path / "key.json"
    write(path, {"ClientID": "me", "ClientSecret": SECRET, "Other": 5})
    assert load(cred_path=path, env={}) == load(cred_path=str(path), env={}) == load(env={}, **KEY)


def test_parts_from_two_sources(tmp_path):
    """Each setting is looked for by itself."""
    path = write(tmp_path / "key.json", {"ClientID": "me", "Endpoint": "h:1"})
    found = load(cred_path=path, env={"ENSIGN_CLIENT_SECRET": SECRET})
    assert (found.credentials, found.endpoint) == (Credentials("me", SECRET), "h:1")


def test_file_of_the_environment_is_not_needed():
    """A program that names everything itself is not stopped by a file of the environment that is not there."""
    everything = dict(KEY, endpoint="here:1", auth_url="http://here:2")
    assert load(env={"ENSIGN_CREDENTIALS": "/nonexistent"}, **everything).credentials == Credentials("me", SECRET)


# What is missing or wrong


@each(
    ("arguments", "missing"),
    [
        ({}, ["client_id", "client_secret"]),
        ({"client_id": "me"}, ["client_secret"]),
        ({"client_secret": SECRET}, ["client_id"]),
    ],
)
def test_missing_credentials(arguments, missing):
    """What is missing is named, and with it every way to give it; the error is a ValueError."""
    with pytest.raises(EnsignSettingsError) as caught:
        load(env={}, **arguments)
    text = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert text.startswith(" and ".join(missing) + " required")
    for name in KEY:
        assert (f"ENSIGN_{name.upper()}" in text) == (name in missing)
    for way in ("arguments", "cred_path", "ENSIGN_CREDENTIALS", "embedded:"):
        assert way in text
    assert_silent(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "not found"),
        (f'{{"ClientSecret": "{SECRET}",'.encode(), "invalid JSON at line 1 column"),
        (f'{{"ClientSecret": "{SECRET}" "x"}}'.encode(), "invalid JSON at line 1 column"),
        (f'ClientSecret = "{SECRET}"'.encode(), "invalid JSON at line 1 column 1"),
        (b"", "invalid JSON at line 1 column 1"),
        (f'{{"ClientSecret": "{SECRET}", "x": "\xff"}}'.encode("latin-1"), "cannot be read"),
        ([SECRET], "must hold a JSON object with ClientID and ClientSecret"),
        (SECRET, "must hold a JSON object"),
        (5, "must hold a JSON object"),
        ({"ClientID": 5, "ClientSecret": SECRET}, "ClientID in credentials file .* must be text"),
        ({"ClientID": "me", "ClientSecret": [SECRET]}, "ClientSecret in credentials file .* must be text"),
        ({"ClientID": None, "ClientSecret": {"a": SECRET}}, "ClientID and ClientSecret in .* must be text"),
        ({"ClientID": "me", "ClientSecret": True}, "ClientSecret in credentials file .* must be text"),
        ({"Endpoint": 5, "ClientSecret": SECRET}, "Endpoint in credentials file .* must be text"),
        ({"ClientSecret": SECRET}, "client_id required"),
        ({"clientid": "me", "ClientSecret": SECRET}, "client_id required"),
        (b"[" * 100_000 + SECRET.encode(), "credentials file"),
        (b'{"ClientID": ' + b"1" * 5_000 + b"}", "credentials file"),
    ],
    ids="absent cut comma text empty latin list string number id secret null bool endpoint one case deep long".split(),
)
def test_bad_file(content, words, tmp_path):
    """A file that cannot be used is an error that names it, on either way, and never what stands in it."""
    path = str(tmp_path / "key.json") if content is None else write(tmp_path / "key.json", content)
    for arguments in ({"cred_path": path, "env": {}}, {"env": {"ENSIGN_CREDENTIALS": path}}):
        with pytest.raises(EnsignSettingsError, match=words) as caught:
            load(**arguments)
        if "required" not in words:
            assert path in str(caught.value)
        assert_silent(caught.value)


@each("path", ["a\0b", "."], ids=["zero", "folder"])
def test_bad_path(path):
    """A path that names no file is an error of the settings."""
    with pytest.raises(EnsignSettingsError, match="credentials file"):
        load(cred_path=path, env={})


@each("name", ["client_id", "client_secret", "cred_path", "endpoint", "auth_url"])
def test_not_a_text(name):
    """An argument of the wrong type is a TypeError that names it and its type, and not the value."""
    for value in (5, True, SECRET.encode(), [SECRET]):
        with pytest.raises(TypeError, match=f"{name} must be a string, got {type(value).__name__}") as caught:
            load(**{**KEY, "env": {}, name: value})
        assert_silent(caught.value)


@each("name", ["client_id", "client_secret", "endpoint", "auth_url"])
def test_only_a_path_may_be_a_path(name):
    """A path is no key, no endpoint and no URL."""
    with pytest.raises(TypeError, match=f"{name} must be a string"):
        load(**{**KEY, "env": {}, name: pathlib.Path("localhost:5356")})


# Endpoints


@each(
    "endpoint",
    ["localhost:5356", "127.0.0.1:1", "ensign.rotational.app:443", "[::1]:5356", "[fe80::1%eth0]:65535", "a_b-c.d:80"],
)
def test_endpoint(endpoint):
    """Host and port, with an IPv6 host in brackets."""
    check_endpoint(endpoint)
    assert load(endpoint=endpoint, env={}, **KEY).endpoint == endpoint
    assert load(env={"ENSIGN_ENDPOINT": endpoint}, **KEY).endpoint == endpoint


BAD_ENDPOINTS = [
    ("localhost", "must be host:port"),
    ("localhost:", "must be host:port"),
    (":443", "must be host:port"),
    ("localhost:http", "must be host:port"),
    ("localhost:0", "must be host:port"),
    ("localhost:65536", "must be host:port"),
    ("localhost:-1", "must be host:port"),
    ("localhost:4 4", "must be host:port"),
    ("localhost:²", "must be host:port"),
    ("https://ensign.rotational.app:443", "must be host:port"),
    ("https://ensign.rotational.app", "must be host:port"),
    ("localhost:443/", "must be host:port"),
    ("[::1]", "must be host:port"),
    ("::1", "needs brackets"),
    ("::1:5356", "needs brackets"),
    ("fe80::1:2:5356", "needs brackets"),
]


def test_bad_endpoint():
    """Anything else is an error that shows it and a right one."""
    for endpoint, words in BAD_ENDPOINTS:
        for refuse in (check_endpoint, lambda text: load(endpoint=text, env={}, **KEY)):
            with pytest.raises(EnsignSettingsError, match=words) as caught:
                refuse(endpoint)
            assert repr(endpoint) in str(caught.value)
            assert ":5356" in str(caught.value)
            assert_silent(caught.value)


@each(
    ("url", "expected"),
    [
        ("https://auth.example", "https://auth.example"),
        ("https://auth.example/", "https://auth.example"),
        ("http://127.0.0.1:8088", "http://127.0.0.1:8088"),
        ("http://[::1]:8088/prefix/", "http://[::1]:8088/prefix"),
    ],
)
def test_auth_url(url, expected):
    """A URL, with or without a slash at its end."""
    assert load(auth_url=url, env={}, **KEY).auth_url == expected


@each("url", ["auth.example", "auth.example:443", "ftp://a", "https://", "/", "http://[bad"])
def test_bad_auth_url(url):
    """Anything else is an error that shows it and a right one."""
    with pytest.raises(EnsignSettingsError, match="auth_url must be a URL") as caught:
        load(auth_url=url, env={}, **KEY)
    assert repr(url) in str(caught.value)
    assert_silent(caught.value)


# Embedded nodes


@each(
    ("endpoint", "path", "topics", "strict"),
    [
        ("embedded:", ":memory:", (), False),
        ("embedded:?topics=a", ":memory:", ("a",), False),
        ("embedded:?topics=a,b&strict=1", ":memory:", ("a", "b"), True),
        ("embedded:?strict=true", ":memory:", (), True),
        ("embedded:?strict=off&topics=", ":memory:", (), False),
        ("embedded:data.db", "data.db", (), False),
        ("embedded:/var/lib/data.db?topics=a,,b.c-d", "/var/lib/data.db", ("a", "b.c-d"), False),
        ("embedded:./x y.db?strict=Yes", "./x y.db", (), True),
    ],
)
def test_embedded(endpoint, path, topics, strict):
    """An embedded endpoint holds a path and two options, and needs no credentials."""
    assert parse_embedded(endpoint) == Embedded(path, topics, strict)
    expected = Settings(endpoint, True, "", None, TLS(), Embedded(path, topics, strict))
    assert load(endpoint=endpoint, env={}) == expected
    assert load(env={"ENSIGN_ENDPOINT": endpoint}) == expected
    assert load(endpoint=endpoint, env={}, **KEY) == expected


@each(
    ("endpoint", "words"),
    [
        ("embedded:?topic=a", "unknown option 'topic' in 'embedded:.topic=a': there are topics and strict"),
        ("embedded:?strict=1&x=1", "unknown option 'x'"),
        ("embedded:?strict=maybe", "strict must be one of .* got 'maybe'"),
    ],
)
def test_bad_embedded(endpoint, words):
    """An option that there is not, or a word that is no flag, is an error that names it."""
    with pytest.raises(EnsignSettingsError, match=words):
        load(endpoint=endpoint, env={})


def test_embedded_repeated_option():
    """Topics that are named twice are all there."""
    assert parse_embedded("embedded:?topics=a,b&topics=c").topics == ("a", "b", "c")


def test_embedded_needs_no_file():
    """An embedded node needs no key, so a file of the environment that is not there does not stop it."""
    assert load(endpoint="embedded:", env={"ENSIGN_CREDENTIALS": "/nonexistent"}).embedded is not None


# Flags


FLAGS = [
    *[(word, True) for word in "1 y t yes true on YES True ON".split()],
    *[(word, False) for word in "0 f n no false off NO False OFF".split()],
    ("", False),
    (" true ", True),
    (" ", False),
]


def test_flags():
    """The flags of the environment know the same words, in any case."""
    for word, expected in FLAGS:
        assert load(env={"ENSIGN_INSECURE": word}, **KEY).insecure is expected, word
        assert (load(env={"ENSIGN_NO_AUTHENTICATION": word}, **KEY).credentials is None) is expected, word


@each("name", ["ENSIGN_INSECURE", "ENSIGN_NO_AUTHENTICATION"])
def test_bad_flag(name):
    """Another word is an error that names flag, word and what there is."""
    for word in ("maybe", "2", "tru"):
        with pytest.raises(EnsignSettingsError, match=f"{name} must be one of true, false.*got '{word}'"):
            load(env={name: word}, **KEY)


@each(("argument", "word", "expected"), [(True, "0", True), (False, "1", False), (None, "1", True)])
def test_insecure_argument(argument, word, expected):
    """The argument wins over the environment, False too."""
    assert load(insecure=argument, env={"ENSIGN_INSECURE": word}, **KEY).insecure is expected


@each("word", ["false", "0", "no"])
def test_insecure_text(word):
    """A text that means no never turns encryption off: it is understood or refused."""
    try:
        assert load(insecure=word, env={}, **KEY).insecure is False
    except (TypeError, EnsignSettingsError) as error:
        assert "insecure" in str(error)


def test_no_authentication():
    """Where no authentication is wanted, no key is needed and none is used."""
    env = {"ENSIGN_NO_AUTHENTICATION": "1"}
    assert load(env=env).credentials is None
    assert load(env=env, **KEY).credentials is None


# Encryption


@each(
    ("tls", "expected"),
    [
        (None, TLS()),
        ("ca.pem", TLS("ca.pem")),
        (pathlib.Path("ca.pem"), TLS("ca.pem")),
        (TLS("ca.pem", "me.pem", "me.key"), TLS("ca.pem", "me.pem", "me.key")),
        ({"cert_file": "me.pem", "key_file": "me.key"}, TLS(None, "me.pem", "me.key")),
        ({}, TLS()),
    ],
)
def test_tls(tls, expected):
    """The files for encryption may be a path, a TLS or a mapping."""
    assert load(tls=tls, env={}, **KEY).tls == expected


def test_bad_tls():
    """What is none of these is an error that names the fields."""
    with pytest.raises(EnsignSettingsError, match="ca_file, cert_file and key_file.*'ca'"):
        load(tls={"ca": "x"}, env={}, **KEY)
    for value in (5, True, b"ca.pem"):
        with pytest.raises(TypeError, match="tls must be the path of a CA file"):
            load(tls=value, env={}, **KEY)


# What is shown


def test_texts_hide_the_secret():
    """No text of credentials or settings shows the secret; the credentials still have it."""
    found = load(env={}, **KEY)
    for value in (found, found.credentials, {"settings": found}, [found.credentials]):
        for text in (str(value), repr(value), f"{value}", f"{value!s} {value!r}"):
            assert SECRET not in text
            assert "***" in text and "me" in text
    assert found.credentials.client_secret == SECRET
    assert str(found.credentials) == "Credentials(client_id='me', client_secret='***')"


def test_copies():
    """Settings survive pickling, for a process of its own."""
    found = load(env={}, **KEY)
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found


def test_reconnect():
    """The defaults of coming back; by itself a stream never gives up."""
    assert Reconnect() == Reconnect(initial=0.1, maximum=30.0, factor=2.0, give_up_after=None)
