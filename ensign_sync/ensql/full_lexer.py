"""Split the text of a query of the full dialect into tokens.

Unlike the server's lexer it knows where a word ends, so ``orders`` is a name and not OR with something behind it.
"""

import enum
import re
from typing import NamedTuple, Optional, Pattern, Tuple

from ensign_sync.exceptions import InvalidQueryError

from .lexer import WHITE_SPACE, quote


class Sort(enum.Enum):
    """What a token of the full dialect is."""

    END = "end"
    KEYWORD = "keyword"
    WORD = "word"
    NAME = "name"
    TEXT = "text"
    NUMBER = "number"
    PARAMETER = "parameter"
    SIGN = "sign"
    STRAY = "stray"


class Piece(NamedTuple):
    """One token: ``text`` is its meaning (a keyword in upper case, no quotes, no escapes), ``start`` its place."""

    sort: Sort
    text: str
    start: int
    end: int

    def is_word(self, *words: str) -> bool:
        """Tell whether this is one of the words, which are in upper case and no keywords, in any case."""
        return self.sort is Sort.WORD and self.text.isascii() and self.text.upper() in words

    def is_keyword(self, *words: str) -> bool:
        """Tell whether this is one of the keywords, which are in upper case."""
        return self.sort is Sort.KEYWORD and self.text in words

    def is_sign(self, *signs: str) -> bool:
        """Tell whether this is one of the signs."""
        return self.sort is Sort.SIGN and self.text in signs


#: The words that no name can be without double quotes. NOT, BEFORE and AFTER are known by their place alone, so that
#: every name of the server's dialect stays one.
KEYWORDS = frozenset("SELECT FROM WHERE AS OFFSET LIMIT AND OR LIKE ILIKE".split())

# The stray character is whatever else there is, so the end is found at the end alone.
_PIECE = re.compile(
    "[" + re.escape(WHITE_SPACE) + "]*"
    r"(?:(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![\w-]))"
    r"|(?P<word>[\w-]+)"
    r"|(?P<parameter>:[\w-]+)"
    r"|(?P<sign>!=|<>|>=|<=|[=<>*,.();])"
    r"|(?P<text>')"
    r'|(?P<name>")'
    r"|(?P<stray>.)"
    r"|(?P<end>))",
    re.DOTALL,
)


class _Quotes(NamedTuple):
    """How something in quotes goes on until the quote that closes it; how a quote is written inside; what it is."""

    body: "Pattern[str]"
    mark: Tuple[str, str]
    what: str


_QUOTES = {
    Sort.TEXT: _Quotes(re.compile(r"[^']*(?:(?<=\\)'[^']*)*"), ("\\'", "'"), "string"),
    Sort.NAME: _Quotes(re.compile(r'[^"]*(?:""[^"]*)*'), ('""', '"'), "name"),
}
_SORTS = {sort.value: sort for sort in Sort}

_NEAR = 40
_NEAR_QUOTE = 5


def shorten(text: str) -> str:
    """Cut a text to what an error can show of it."""
    return text if len(text) <= _NEAR else text[:_NEAR] + "…"


class FullLexer:
    """Read a query token by token.

    Attributes:
        text: The trimmed query.
        piece: The next token, not yet taken.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip(WHITE_SPACE)
        self.piece = self._read(0)

    @property
    def at_end(self) -> bool:
        """Whether all of the query was taken."""
        return self.piece.sort is Sort.END

    def take(self) -> Piece:
        """Return the next token and go behind it."""
        taken = self.piece
        self.piece = self._read(taken.end)
        return taken

    def following(self) -> Piece:
        """Return the token after the next one and stay."""
        return self._read(self.piece.end)

    def error(self, reason: str, at: Optional[Piece] = None) -> InvalidQueryError:
        """Return an error in the server's form for a token, by default the next one."""
        piece = self.piece if at is None else at
        return self._error(reason, piece.text, piece.start)

    def _error(self, reason: str, near: str, start: int) -> InvalidQueryError:
        # The server counts bytes.
        position = len(self.text[:start].encode("utf-8", "surrogatepass"))
        return InvalidQueryError(f"syntax error at position {position} near {quote(shorten(near))}: {reason}")

    def _read(self, place: int) -> Piece:
        match = _PIECE.match(self.text, place)
        assert match is not None and match.lastgroup is not None
        group, end = match.lastgroup, match.end()
        sort, text, start = _SORTS[group], match.group(group), match.start(group)
        if sort is Sort.WORD and text.isascii() and text.upper() in KEYWORDS:
            sort, text = Sort.KEYWORD, text.upper()
        elif sort in _QUOTES:
            text, end = self._quoted(_QUOTES[sort], start)
        return Piece(sort, text, start, end)

    def _quoted(self, kind: _Quotes, start: int) -> Tuple[str, int]:
        """Return what stands in the quotes that open at a place, and the place behind them."""
        body = kind.body.match(self.text, start + 1)
        if body is None or body.end() == len(self.text):
            reason = f"quoted {kind.what} missing closing quote"
            raise self._error(reason, self.text[start : start + _NEAR_QUOTE], start)
        return body.group().replace(kind.mark[0], kind.mark[1]), body.end() + 1
