"""Parse the parts of a query of the full dialect: names, values and the condition behind WHERE."""

from typing import List

from .full_lexer import FullLexer, Piece, Sort, shorten
from .lexer import quote
from .parameters import Parameter, Parameters, number_of
from .tree import Compare, Junction, Not, Path, Predicate, Value

#: How many parentheses and NOTs may be open at once.
MAX_DEPTH = 100
#: How long the pattern of a LIKE may be, in characters: what keeps the matching of any pattern quick.
MAX_PATTERN = 10_000

#: The words that the server calls reserved; the other keywords are operators to it.
RESERVED = "SELECT FROM WHERE AS OFFSET LIMIT".split()
#: Why a token behind a whole term is refused.
JUNK = "cannot append or update condition in group"

_COMPARISONS = {"<>": "!=", **{sign: sign for sign in "= != > >= < <= LIKE ILIKE".split()}}
_PATTERNS = ("LIKE", "ILIKE")
_TRUE, _FALSE = ("TRUE", "T"), ("FALSE", "F")


class Reader:
    """The parts that every place of a query is made of."""

    def __init__(self, lexer: FullLexer, parameters: Parameters) -> None:
        self.lexer = lexer
        self.parameters = parameters

    def keyword(self, *words: str) -> str:
        """Take one of the keywords and return it; return "" and take nothing if another token is next."""
        piece = self.lexer.piece
        return self.lexer.take().text if piece.is_keyword(*words) else ""

    def sign(self, sign: str) -> bool:
        """Take the sign if it is next."""
        if not self.lexer.piece.is_sign(sign):
            return False
        self.lexer.take()
        return True

    def name(self, reason: str) -> str:
        """Take a name."""
        piece = self.lexer.piece
        if piece.sort is Sort.NAME or (piece.sort is Sort.WORD and not piece.text.startswith("-")):
            return self.lexer.take().text
        raise self.lexer.error(reason)

    def path(self, reason: str) -> Path:
        """Take names with dots between them."""
        parts = [self.name(reason)]
        while self.sign("."):
            parts.append(self.name(reason))
        return tuple(parts)

    def value(self, reason: str) -> Parameter:
        """Return the value that is next, and leave it, so that errors can point to it."""
        piece = self.lexer.piece
        if piece.is_word(*_TRUE, *_FALSE):
            return piece.is_word(*_TRUE)
        if piece.sort is Sort.TEXT:
            return piece.text
        if piece.sort is Sort.NUMBER:
            number = number_of(piece.text)
            if number is None:
                raise self.lexer.error("number out of range")
            return number
        if piece.sort is Sort.PARAMETER:
            return self._parameter(piece)
        if piece.sort is Sort.NAME:
            reason += " (double quotes are for names)"
        raise self.lexer.error(reason)

    def _parameter(self, piece: Piece) -> Parameter:
        name = piece.text[1:]
        if name not in self.parameters:
            raise self.lexer.error(f"parameter {quote(shorten(name))} has no value")
        return self.parameters[name]


class _Group:
    """The terms between two parentheses, as alternatives of terms that AND joins."""

    def __init__(self) -> None:
        self.alternatives: List[List[Predicate]] = [[]]
        self.negations = 0

    def add(self, term: Predicate) -> None:
        """Add a term, with the NOTs that stand before it."""
        for _ in range(self.negations):
            term = Not(term)
        self.negations = 0
        self.alternatives[-1].append(term)

    def fold(self) -> Predicate:
        """Make one condition of the terms."""
        return _joined("OR", [_joined("AND", terms) for terms in self.alternatives])


def _joined(operator: str, terms: List[Predicate]) -> Predicate:
    return terms[0] if len(terms) == 1 else Junction(operator, tuple(terms))


class ConditionReader(Reader):
    """What may stand behind WHERE; a stack of groups, since no depth of a query may exhaust the interpreter's."""

    def condition(self) -> Predicate:
        """Take a whole condition."""
        groups = [_Group()]
        while True:
            self._term(groups)
            self._close(groups)
            junction = self.keyword("AND", "OR")
            if not junction:
                break
            if junction == "OR":
                groups[-1].alternatives.append([])
        if len(groups) > 1:
            raise self.lexer.error('expected ")"' if self._at_end() else JUNK)
        return groups[0].fold()

    def _at_end(self) -> bool:
        piece = self.lexer.piece
        ends = self.lexer.at_end or piece.is_sign(";")
        return ends or piece.is_word("BEFORE", "AFTER") or piece.is_keyword(*RESERVED)

    def _term(self, groups: List[_Group]) -> None:
        """Take NOTs, parentheses and the comparison behind them."""
        reason = "invalid where clause"
        while True:
            if self._is_not():
                groups[-1].negations += 1
            elif self.lexer.piece.is_sign("("):
                groups.append(_Group())
                reason = "where clause predicates expressions must start with an identifier"
            else:
                break
            if sum(group.negations for group in groups) + len(groups) - 1 > MAX_DEPTH:
                raise self.lexer.error(f"more than {MAX_DEPTH} parentheses or NOTs inside each other")
            self.lexer.take()
        groups[-1].add(self._comparison(reason))

    def _is_not(self) -> bool:
        """Tell whether NOT is next, and not a field of that name."""
        if not self.lexer.piece.is_word("NOT"):
            return False
        behind = self.lexer.following()
        return not (behind.is_sign(".", *_COMPARISONS) or behind.is_keyword(*_PATTERNS))

    def _close(self, groups: List[_Group]) -> None:
        """Take the closing parentheses behind a term."""
        while self.lexer.piece.is_sign(")"):
            if len(groups) == 1:
                raise self.lexer.error("cannot close expression parentheses")
            self.lexer.take()
            closed = groups.pop().fold()
            groups[-1].add(closed)

    def _comparison(self, reason: str) -> Predicate:
        path = self.path(reason)
        negated = self.lexer.piece.is_word("NOT")
        if negated:
            self.lexer.take()
        operator = self._operator(negated)
        value = self.value("invalid where clause")
        if isinstance(value, bytes):
            value = self._text(value)
        if operator in _PATTERNS and isinstance(value, str) and len(value) > MAX_PATTERN:
            raise self.lexer.error(f"a pattern has at most {MAX_PATTERN} characters")
        self.lexer.take()
        compared = Compare(path, operator, value)
        return Not(compared) if negated else compared

    def _operator(self, negated: bool) -> str:
        piece = self.lexer.piece
        if piece.is_keyword("AND", "OR"):
            raise self.lexer.error("where clause expressions require comparison operators")
        if not (piece.is_keyword(*_PATTERNS) or (piece.is_sign(*_COMPARISONS) and not negated)):
            raise self.lexer.error("expected LIKE or ILIKE" if negated else "invalid where clause")
        return _COMPARISONS[self.lexer.take().text]

    def _text(self, value: bytes) -> Value:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.lexer.error("the bytes of the parameter are no text in UTF-8") from error
