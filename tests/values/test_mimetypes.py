"""Mimetypes: names, numbers, and which text matches which."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync import mimetypes
from ensign_sync.mimetypes import MIME, parse, to_str
from tests.size import by_size
from tests.tables import each

QUICK = settings(max_examples=by_size(10, 50, 500, 5_000), deadline=None)

NAMES = [
    ("application/octet-stream", 0, "ApplicationOctetStream Unspecified Unknown"),
    ("text/plain", 1, "TextPlain"),
    ("text/csv", 2, "TextCSV"),
    ("text/html", 3, "TextHTML"),
    ("text/calendar", 4, "TextCalendar"),
    ("application/json", 50, "ApplicationJSON ApplicationJSONUTF8"),
    ("application/ld+json", 51, "ApplicationJSONLD"),
    ("application/jsonlines", 52, "ApplicationJSONLines AppplicationJSONLines"),
    ("application/ubjson", 53, "ApplicationUBJSON"),
    ("application/bson", 54, "ApplicationBSON"),
    ("application/xml", 100, "ApplicationXML"),
    ("application/atom+xml", 101, "ApplicationAtom"),
    ("application/msgpack", 252, "ApplicationMsgPack"),
    ("application/parquet", 253, "ApplicationParquet"),
    ("application/avro", 254, "ApplicationAvro"),
    ("application/protobuf", 255, "ApplicationProtobuf"),
    ("application/pdf", 512, "ApplicationPDF"),
    ("application/java-archive", 513, "ApplicationJavaArchive"),
    ("application/python-pickle", 514, "ApplicationPythonPickle"),
    *[(f"user/format-{n}", 1000 + n, f"UserSpecified{n}") for n in range(10)],
]


def test_names():
    """Every mimetype has its number, its text and its constants, and each leads to the others."""
    for name, number, constants in NAMES:
        assert parse(name) is parse(name.upper()) is parse(f"  {name} ") is parse(number) is MIME(number)
        assert parse(MIME(number)) == number
        assert to_str(number) == to_str(MIME(number)) == name
        for constant in constants.split():
            assert getattr(mimetypes, constant) is MIME(number)


def test_tables_are_complete():
    """There are exactly these mimetypes, and the two tables are each other's inverse."""
    assert mimetypes.names_by_value == {number: name for name, number, _ in NAMES}
    assert mimetypes.values_by_name == {name: number for name, number, _ in NAMES}
    assert {int(member) for member in MIME} == set(mimetypes.names_by_value)
    constants = {constant for _, _, words in NAMES for constant in words.split()}
    assert constants == {name for name, value in vars(mimetypes).items() if isinstance(value, MIME)}


MATCHES = [
    ("application/json; charset=utf-8", 50),
    ("Application/JSON; charset=utf-8", 50),
    ("APPLICATION/JSON; CHARSET=UTF-8", 50),
    ("application/json;  charset=utf-8", 50),
    ("application/json;\tcharset=utf-8", 50),
    ("application/json; a=b c=d", 50),
    ("text/plain; charset=iso-8859-1", 1),
    ("application/vnd.myapp.type+xml", 100),
    ("application/vnd.myapp.type+xml; charset=utf-8", 100),
    ("application/vnd.my-app_v1+msgpack", 252),
    ("application/ld+json; profile=x", 51),
    ("text/json", 50),
    ("text/xml", 100),
    ("text/atom+xml", 101),
    ("text/ld+json", 51),
    ("text/vnd.x+json", 50),
    ("application/csv", 2),
    ("application/foo+csv", 2),
    ("application/html", 3),
    ("application/json+unheard-of", 50),
]


def test_match():
    """A text matches as it stands, by name, by suffix, and with text and application swapped."""
    for text, number in MATCHES:
        assert parse(text) is MIME(number), text


NO_MATCHES = [
    "",
    " ",
    "json",
    "/",
    "application/",
    "application/json;charset=utf-8",
    "application/json;",
    "application/json; a=b; c=d",
    "application/json; charset",
    "application/json/x",
    "image/png",
    "application/x-foo",
    "application/x-foo+bar",
    "user/format-10",
    "user/format-11",
    "user/json",
    "text/format-1",
    "multipart/mixed",
]


def test_no_match():
    """What matches nothing is a ValueError that names it."""
    for text in NO_MATCHES:
        with pytest.raises(ValueError) as caught:
            parse(text)
        assert str(caught.value).endswith(f" mimetype: {text}")


@each("value", [True, False, None, 1.0, b"text/plain", [], object()], ids=repr)
def test_not_a_mimetype(value):
    """Neither a bool nor anything else but a text or a number is a mimetype; the error shows it."""
    with pytest.raises(ValueError) as caught:
        parse(value)
    assert repr(value) in str(caught.value)


@QUICK
@given(st.integers().filter(lambda number: number not in mimetypes.names_by_value))
def test_unknown_number(number):
    """A number without a mimetype is refused by name when it is ours, and let through when a server sent it."""
    for refuse in (parse, to_str):
        with pytest.raises(ValueError, match=f"unrecognized mimetype: {number}$"):
            refuse(number)
    assert mimetypes.from_wire(number) == number


def test_from_wire():
    """A known number of the wire is a member."""
    for number in mimetypes.names_by_value:
        assert mimetypes.from_wire(number) is MIME(number)


@QUICK
@given(st.text(max_size=40))
def test_any_text(text):
    """Whatever the text, the answer is a mimetype or a ValueError."""
    try:
        assert isinstance(parse(text), MIME)
    except ValueError as error:
        assert "mimetype" in str(error)
