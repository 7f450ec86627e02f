"""The mimetypes an event may have, their numbers on the wire, and how a text is matched to one.

See docs/protocol.rst, "Mimetypes".
"""

import enum
import functools
import re
from typing import Dict, Iterator, Optional, Union


class MIME(enum.IntEnum):
    """A mimetype as the wire has it."""

    APPLICATION_OCTET_STREAM = 0
    UNSPECIFIED = 0
    UNKNOWN = 0
    TEXT_PLAIN = 1
    TEXT_CSV = 2
    TEXT_HTML = 3
    TEXT_CALENDAR = 4
    APPLICATION_JSON = 50
    APPLICATION_JSON_UTF8 = 50
    APPLICATION_JSON_LD = 51
    APPLICATION_JSON_LINES = 52
    APPLICATION_UBJSON = 53
    APPLICATION_BSON = 54
    APPLICATION_XML = 100
    APPLICATION_ATOM = 101
    APPLICATION_MSGPACK = 252
    APPLICATION_PARQUET = 253
    APPLICATION_AVRO = 254
    APPLICATION_PROTOBUF = 255
    APPLICATION_PDF = 512
    APPLICATION_JAVA_ARCHIVE = 513
    APPLICATION_PYTHON_PICKLE = 514
    USER_SPECIFIED0 = 1000
    USER_SPECIFIED1 = 1001
    USER_SPECIFIED2 = 1002
    USER_SPECIFIED3 = 1003
    USER_SPECIFIED4 = 1004
    USER_SPECIFIED5 = 1005
    USER_SPECIFIED6 = 1006
    USER_SPECIFIED7 = 1007
    USER_SPECIFIED8 = 1008
    USER_SPECIFIED9 = 1009

    # In texts it is the number, as it is for the official client; left alone that depends on the Python.
    def __str__(self) -> str:
        return str(int(self))

    def __format__(self, spec: str) -> str:
        return format(int(self), spec)


Unspecified = MIME.UNSPECIFIED
Unknown = MIME.UNKNOWN
TextPlain = MIME.TEXT_PLAIN
TextCSV = MIME.TEXT_CSV
TextHTML = MIME.TEXT_HTML
TextCalendar = MIME.TEXT_CALENDAR
ApplicationOctetStream = MIME.APPLICATION_OCTET_STREAM
ApplicationJSON = MIME.APPLICATION_JSON
ApplicationJSONUTF8 = MIME.APPLICATION_JSON_UTF8
ApplicationJSONLD = MIME.APPLICATION_JSON_LD
ApplicationJSONLines = MIME.APPLICATION_JSON_LINES
AppplicationJSONLines = ApplicationJSONLines  # pyensign's spelling
ApplicationUBJSON = MIME.APPLICATION_UBJSON
ApplicationBSON = MIME.APPLICATION_BSON
ApplicationXML = MIME.APPLICATION_XML
ApplicationAtom = MIME.APPLICATION_ATOM
ApplicationMsgPack = MIME.APPLICATION_MSGPACK
ApplicationParquet = MIME.APPLICATION_PARQUET
ApplicationAvro = MIME.APPLICATION_AVRO
ApplicationProtobuf = MIME.APPLICATION_PROTOBUF
ApplicationPDF = MIME.APPLICATION_PDF
ApplicationJavaArchive = MIME.APPLICATION_JAVA_ARCHIVE
ApplicationPythonPickle = MIME.APPLICATION_PYTHON_PICKLE
UserSpecified0 = MIME.USER_SPECIFIED0
UserSpecified1 = MIME.USER_SPECIFIED1
UserSpecified2 = MIME.USER_SPECIFIED2
UserSpecified3 = MIME.USER_SPECIFIED3
UserSpecified4 = MIME.USER_SPECIFIED4
UserSpecified5 = MIME.USER_SPECIFIED5
UserSpecified6 = MIME.USER_SPECIFIED6
UserSpecified7 = MIME.USER_SPECIFIED7
UserSpecified8 = MIME.USER_SPECIFIED8
UserSpecified9 = MIME.USER_SPECIFIED9

names_by_value: Dict[int, str] = {
    0: "application/octet-stream",
    1: "text/plain",
    2: "text/csv",
    3: "text/html",
    4: "text/calendar",
    50: "application/json",
    51: "application/ld+json",
    52: "application/jsonlines",
    53: "application/ubjson",
    54: "application/bson",
    100: "application/xml",
    101: "application/atom+xml",
    252: "application/msgpack",
    253: "application/parquet",
    254: "application/avro",
    255: "application/protobuf",
    512: "application/pdf",
    513: "application/java-archive",
    514: "application/python-pickle",
    **{1000 + n: f"user/format-{n}" for n in range(10)},
}
values_by_name: Dict[str, int] = {name: value for value, name in names_by_value.items()}

_PATTERN = re.compile(
    r"^(?P<prefix>application|user|text)/(?P<mime>[\w\-_.]+)(\+(?P<ext>[\w-]+))?(;(\s+([\w.\-_]+=[\w.\-_]+))+)?$"
)


def _candidates(prefix: str, mime: str, ext: Optional[str]) -> Iterator[str]:
    alternate = "application" if prefix == "text" else "text"
    for kind in (prefix, alternate):
        yield f"{kind}/{mime}"
        if ext:
            yield f"{kind}/{mime}+{ext}"
            yield f"{kind}/{ext}"


def parse(mimetype: Union[str, int]) -> MIME:
    """Match a mimetype, by number or by text, to one that the wire knows.

    A text is matched as it stands, then by prefix and name, by its suffix (``application/vnd.x+xml`` is XML), and
    then with ``text`` and ``application`` swapped. ValueError names a value that matches nothing.
    """
    if type(mimetype) is str:
        return _parse_text(mimetype)
    if type(mimetype) is MIME:
        return mimetype
    if isinstance(mimetype, bool) or not isinstance(mimetype, (str, int)):
        raise ValueError(f"unrecognized mimetype: {mimetype!r}: give a text such as 'application/json'")
    if not isinstance(mimetype, str):
        if mimetype in names_by_value:
            return MIME(mimetype)
        raise ValueError(f"unrecognized mimetype: {mimetype}")
    return _parse_text(mimetype)


@functools.lru_cache(maxsize=256)
def _parse_text(mimetype: str) -> MIME:
    text = mimetype.lower().strip()
    if text in values_by_name:
        return MIME(values_by_name[text])
    match = _PATTERN.match(text)
    if not match:
        raise ValueError(f"unparseable mimetype: {mimetype}")
    for name in _candidates(match["prefix"], match["mime"], match["ext"]):
        if name in values_by_name:
            return MIME(values_by_name[name])
    raise ValueError(f"unrecognized mimetype: {mimetype}")


def to_str(mimetype: int) -> str:
    """Return the text of a mimetype's number; ValueError names a number that has none."""
    if mimetype in names_by_value:
        return names_by_value[mimetype]
    raise ValueError(f"unrecognized mimetype: {mimetype}")


_MEMBERS: Dict[int, MIME] = {int(member): member for member in MIME}


def from_wire(number: int) -> int:
    """Return the MIME of a number, or the number itself where it has none: a server checks nothing."""
    return _MEMBERS.get(number, number)
