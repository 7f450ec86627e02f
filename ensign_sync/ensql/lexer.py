"""Split the text of an EnSQL query into tokens as the server does (docs/protocol.rst, section "EnSQL").

The server reads bytes, not characters, and so does this module: every position and length counts bytes of UTF-8.
"""

import enum
import re
from typing import NamedTuple, Optional


class Kind(enum.Enum):
    """What a token is."""

    EMPTY = "empty"
    RESERVED = "reserved word"
    OPERATOR = "operator"
    ASTERISK = "asterisk"
    PUNCTUATION = "punctuation"
    IDENTIFIER = "identifier"
    QUOTED = "quoted string"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"


class Token(NamedTuple):
    """One token: reserved text in upper case, quoted text without its quotes; ``length`` bytes of the query."""

    text: str
    kind: Kind
    length: int


EMPTY = Token("", Kind.EMPTY, 0)

# The order is the server's. A word matches without a boundary, so that "orders" is the operator OR and then "ders".
_RESERVED = (
    (Kind.RESERVED, "SELECT FROM WHERE AS OFFSET LIMIT"),
    (Kind.OPERATOR, "= != <> >= <= > < AND OR LIKE ILIKE"),
    (Kind.ASTERISK, "*"),
    (Kind.PUNCTUATION, ", . ( ) ;"),
)
_KINDS = {word: kind for kind, words in _RESERVED for word in words.split()}
_BOOLEANS = frozenset(["t", "T", "True", "true", "TRUE", "f", "F", "False", "false", "FALSE"])

_TOKEN = re.compile(
    b"(?P<reserved>%s)" % b"|".join(re.escape(word).encode() for word in _KINDS)
    + rb"|(?P<quoted>'.*?(?<!\\)')"
    + rb"|(?P<unclosed>'.*)"
    + rb"|(?P<numeric>[-0-9][-.0-9]*)"
    + rb"|(?P<identifier>[a-zA-Z0-9_-]*)",
    re.IGNORECASE | re.DOTALL,
)

# Around the query the server trims the white space of Unicode. Between tokens it takes each byte for a character,
# which leaves the white space of Latin-1. Neither is what str.strip() removes.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SPACES = b"\t\n\v\f\r \x85\xa0"

_ESCAPES = {ord(char): "\\" + code for char, code in zip('\a\b\f\n\r\t\v\\"', 'abfnrtv\\"')}
_NEAR_QUOTE = 5


def _decode(data: bytes) -> str:
    # A cut through a character leaves bytes that quote() shows one by one.
    return data.decode("utf-8", "surrogateescape")


def _escape(char: str) -> str:
    code = ord(char)
    if code in _ESCAPES:
        return _ESCAPES[code]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char.isprintable():
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str) -> str:
    """Return the text in double quotes, escaped as the server's error texts are (the verb %q of Go)."""
    return '"' + "".join(map(_escape, text)) + '"'


class Lexer:
    """Read a query token by token.

    Attributes:
        data: The trimmed query in UTF-8.
        position: Where the next token starts, in bytes.
        unclosed: Where a quoted string starts that has no end, if one was met.
    """

    def __init__(self, text: str) -> None:
        self.data = text.strip(WHITE_SPACE).encode("utf-8", "surrogatepass")
        self.position = 0
        self.unclosed: Optional[int] = None

    @property
    def at_end(self) -> bool:
        """Whether all of the query was taken."""
        return self.position >= len(self.data)

    def peek(self) -> Token:
        """Return the next token and stay before it.

        A character that begins no token gives an identifier without text, which takes nothing.
        """
        match = None if self.at_end else _TOKEN.match(self.data, self.position)
        if match is None:
            return EMPTY
        text, length = _decode(match.group()), len(match.group())
        if match.lastgroup == "reserved":
            return Token(text.upper(), _KINDS[text.upper()], length)
        if match.lastgroup == "quoted":
            return Token(text[1:-1], Kind.QUOTED, length)
        if match.lastgroup == "unclosed":
            self.unclosed = self.position
            return Token("", Kind.EMPTY, length)
        if match.lastgroup == "numeric":
            return Token(text, Kind.NUMERIC, length)
        return Token(text, Kind.BOOLEAN if text in _BOOLEANS else Kind.IDENTIFIER, length)

    def pop(self) -> Token:
        """Return the next token and go behind it and the white space that follows."""
        token = self.peek()
        self.position += token.length
        while not self.at_end and self.data[self.position] in _SPACES:
            self.position += 1
        return token

    def rest(self, start: int, size: int = _NEAR_QUOTE) -> str:
        """Return the next few bytes from a position on, for an error text."""
        return _decode(self.data[start : start + size])
