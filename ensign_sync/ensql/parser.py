"""Parse EnSQL as the server's state machine does, errors and positions included.

Each step of the machine takes some tokens, looks at the next one and so chooses the step that follows; the machine
stops at the end of the text. What looks odd here is what the server does (docs/protocol.rst, section "EnSQL").
"""

from typing import Callable, Dict, List, Optional

from ensign_sync.exceptions import InvalidQueryError

from .lexer import Kind, Lexer, Token, quote
from .query import Comparison, ConditionBuilder, Field, Query


class ParserPanic(InvalidQueryError):
    """The parser of the real server panics on this query; the server then answers OK and not a single row."""


_COMPARISONS = frozenset(["=", "!=", "<>", ">", ">=", "<", "<=", "LIKE", "ILIKE"])
_LOGICALS = frozenset(["AND", "OR"])
_VALUES = frozenset([Kind.QUOTED, Kind.NUMERIC, Kind.BOOLEAN])
_NEAR_PANIC = 20


def _uint(text: str, bits: int, prefixed: bool = False) -> Optional[int]:
    """Return the unsigned number of so many bits, None if it is not one; prefixed means a leading 0 makes it octal."""
    octal = prefixed and text.startswith("0")
    digits = text.lstrip("0")
    if set(digits) - set("01234567" if octal else "0123456789") or len(digits) > bits:
        return None
    number = int(digits or "0", 8 if octal else 10)
    return number if number < 1 << bits else None


class _Parser:
    """The state machine: ``step`` is the state, the other attributes are what was read so far."""

    def __init__(self, text: str) -> None:
        self.lexer = Lexer(text)
        self.step: _Step = _Parser.start
        self.fields: List[Field] = []
        self.topic = ""
        self.schema = ""
        self.version: Optional[int] = None
        self.name = ""
        self.operator = ""
        self.conditions = ConditionBuilder()
        self.bounds: Dict[str, int] = {}

    def run(self) -> Query:
        """Take the whole text; return the query or raise InvalidQueryError."""
        while not self.lexer.at_end:
            self.step(self)
        start = self.lexer.unclosed
        if start is not None:
            raise self.error(self.lexer.rest(start), "quoted string missing closing quote", start)
        return self.finish()

    def finish(self) -> Query:
        """Make the query of what was read."""
        if not self.lexer.data:
            raise InvalidQueryError("empty query is invalid")
        if not self.topic:
            raise InvalidQueryError("topic name cannot be empty")
        everything = Field("*") in self.fields
        if everything and len(self.fields) > 1:
            raise InvalidQueryError("cannot select * and specify fields")
        return Query(
            fields=() if everything else tuple(self.fields),
            topic=self.topic,
            schema=self.schema,
            version=self.version,
            where=self.conditions.finish(),
            offset=self.bounds.get("offset"),
            limit=self.bounds.get("limit"),
        )

    def error(self, near: str, message: str, position: Optional[int] = None) -> InvalidQueryError:
        """Return the server's error for a text near a position, by default the current one."""
        where = self.lexer.position if position is None else position
        return InvalidQueryError(f"syntax error at position {where} near {quote(near)}: {message}")

    def expect(self, good: Callable[[Token], bool], message: str) -> Token:
        """Return the next token, without taking it, if it is good."""
        token = self.lexer.peek()
        if not good(token):
            raise self.error(token.text, message)
        return token

    def follow(self, steps: "_Steps", message: str) -> None:
        """Choose the next step by the text of the next token.

        The server compares texts alone here, so a quoted word serves as well as the word.
        """
        self.step = steps[self.expect(lambda token: token.text in steps, message).text]

    def start(self) -> None:
        """Take SELECT."""
        token = self.expect(lambda token: token.kind is Kind.RESERVED, "invalid query type")
        if token.text != "SELECT":
            raise self.error(token.text, "invalid query type")
        self.lexer.pop()
        self.step = _Parser.field

    def field(self) -> None:
        """Take a field."""
        token = self.lexer.peek()
        if token.kind is Kind.RESERVED:
            raise InvalidQueryError("SELECT requires field projection or *")
        self.expect(lambda token: token.kind in (Kind.IDENTIFIER, Kind.ASTERISK), "invalid field identifier")
        self.fields.append(Field(token.text))
        self.lexer.pop()
        self.follow(_AFTER_FIELD, "invalid select fields statement")

    def comma(self) -> None:
        """Take the comma before another field."""
        self.lexer.pop()
        self.step = _Parser.field

    def alias(self) -> None:
        """Take AS and an alias."""
        self.lexer.pop()
        token = self.expect(lambda token: token.kind is Kind.IDENTIFIER, "invalid alias identifier")
        if self.fields[-1].name == "*":
            raise self.error(token.text, "cannot alias *")
        self.fields[-1] = self.fields[-1]._replace(alias=token.text)
        self.lexer.pop()
        self.follow(_AFTER_ALIAS, "invalid select fields statement")

    def source(self) -> None:
        """Take FROM and the topic."""
        self.lexer.pop()
        self.topic = self.expect(lambda token: token.kind is Kind.IDENTIFIER, "invalid topic identifier").text
        self.lexer.pop()
        self.follow(_AFTER_TOPIC, "invalid from clause")

    def event_type(self) -> None:
        """Take a dot and the schema; a dot that ends the text is accepted."""
        self.lexer.pop()
        if self.lexer.at_end:
            return
        good = (Kind.IDENTIFIER, Kind.ASTERISK)
        self.schema = self.expect(lambda token: token.kind in good, "invalid schema identifier").text
        self.lexer.pop()
        if self.schema == "*":
            self.expect(lambda token: token.text != ".", "cannot specify version for * schema")
        self.follow(_AFTER_SCHEMA, "invalid from clause")

    def event_version(self) -> None:
        """Take a dot and the version; a dot that ends the text is accepted."""
        self.lexer.pop()
        if self.lexer.at_end:
            return
        token = self.expect(lambda token: token.kind is Kind.NUMERIC, "invalid version identifier")
        self.version = _uint(token.text, 32, prefixed=True)
        if self.version is None:
            raise self.error(token.text, "could not parse schema version")
        self.lexer.pop()
        self.follow(_CLAUSES, "invalid from clause")

    def where(self) -> None:
        """Take WHERE."""
        self.lexer.pop()
        self.expect_term()

    def expect_term(self) -> None:
        """Go on with a term, which starts with a field or a parenthesis."""
        self.expect(lambda token: token.kind is Kind.IDENTIFIER or token.text == "(", "invalid where clause")
        self.step = _Parser.where_field

    def where_field(self) -> None:
        """Take at most one opening parenthesis, and a field."""
        token = self.lexer.pop()
        if token.text == "(":
            self.conditions.open()
            token = self.lexer.pop()
        if token.kind is not Kind.IDENTIFIER:
            raise self.error(token.text, "where clause predicates expressions must start with an identifier")
        self.name = token.text
        self.expect(lambda token: token.kind is Kind.OPERATOR, "invalid where clause")
        self.step = _Parser.where_operator

    def where_operator(self) -> None:
        """Take a comparison operator."""
        token = self.lexer.pop()
        if token.text not in _COMPARISONS:
            raise self.error(token.text, "where clause expressions require comparison operators")
        self.operator = token.text
        self.expect(lambda token: token.kind in _VALUES, "invalid where clause")
        self.step = _Parser.where_value

    def where_value(self) -> None:
        """Take the value to compare with."""
        token = self.lexer.pop()
        self.conditions.add(Comparison(self.name, self.operator, token.text, token.kind))
        self.step = _AFTER_TERM.get(self.lexer.peek().text, _Parser.where_junk)

    def where_junk(self) -> None:
        """Refuse what follows a value and neither goes on nor ends."""
        raise self.error(self.lexer.pop().text, "cannot append or update condition in group")

    def where_logical(self) -> None:
        """Take AND or OR."""
        token = self.lexer.pop()
        if token.kind is not Kind.OPERATOR:
            raise self.error(token.text, "where clause predicates require logical operators")
        self.conditions.join(token.text)
        self.expect_term()

    def where_close(self) -> None:
        """Take a closing parenthesis."""
        token = self.lexer.pop()
        if token.text != ")":
            reason = f"expected {quote(')')} but received {quote(token.text)}"
            raise InvalidQueryError(f"parser has reached an unhandled state: {reason}")
        if not self.conditions.close():
            raise self.error(token.text, "cannot close expression parentheses")
        self.step = _AFTER_TERM.get(self.lexer.peek().text, _Parser.where_close)

    def offset(self) -> None:
        """Take OFFSET and its number."""
        self.bound("offset", dict(_ENDS, LIMIT=_Parser.limit))

    def limit(self) -> None:
        """Take LIMIT and its number."""
        self.bound("limit", dict(_ENDS, OFFSET=_Parser.offset))

    def bound(self, word: str, steps: "_Steps") -> None:
        """Take the word and the number behind it."""
        self.lexer.pop()
        token = self.expect(lambda token: token.kind is Kind.NUMERIC, f"invalid {word}")
        if word in self.bounds:
            raise self.error(token.text, f"{word} has already been set")
        number = _uint(token.text, 64)
        if number is None:
            raise self.error(token.text, f"could not parse {word}")
        self.bounds[word] = number
        self.lexer.pop()
        self.follow(steps, f"invalid {word} clause")

    def end(self) -> None:
        """Take a semicolon; at anything else the server panics."""
        start = self.lexer.position
        token = self.lexer.pop()
        if token.text == ";" or token.kind is Kind.EMPTY:
            return
        wanted = "the end of the query" if self.topic else "the name of a topic"
        hint = "names hold only letters, digits, _ and - and cannot be quoted; no comments, no second query"
        near = quote(self.lexer.rest(start, _NEAR_PANIC))
        raise ParserPanic(f"syntax error at position {start} near {near}: expected {wanted} ({hint})")


_Step = Callable[[_Parser], None]
_Steps = Dict[str, _Step]

# What may follow, by the text of the token. The empty text also stands for a character that begins no token: the step
# that expects the end then panics on it.
_ENDS: _Steps = {";": _Parser.end, "": _Parser.end}
_TAIL: _Steps = dict(_ENDS, OFFSET=_Parser.offset, LIMIT=_Parser.limit)
_CLAUSES: _Steps = dict(_TAIL, WHERE=_Parser.where)
_AFTER_ALIAS: _Steps = {",": _Parser.comma, "FROM": _Parser.source}
_AFTER_FIELD: _Steps = dict(_AFTER_ALIAS, AS=_Parser.alias)
_AFTER_SCHEMA: _Steps = {".": _Parser.event_version, **_CLAUSES}
_AFTER_TOPIC: _Steps = {".": _Parser.event_type, **_CLAUSES}
_AFTER_TERM: _Steps = {**dict.fromkeys(_LOGICALS, _Parser.where_logical), ")": _Parser.where_close, **_TAIL}


def parse(text: str) -> Query:
    """Parse a query.

    Raises:
        ParserPanic: The parser of the real server panics on the query, which looks like an empty result.
        InvalidQueryError: The query is refused by the real server with this text.
    """
    return _Parser(text).run()


def is_queryable(topic: str) -> bool:
    """Tell whether a query can name the topic.

    Names that begin with a reserved word, such as ``orders``, that begin with a digit, that hold dots, and ``t``,
    ``f``, ``true`` and ``false`` cannot be written in EnSQL.
    """
    try:
        return parse(f"SELECT * FROM {topic}").topic == topic
    except InvalidQueryError:
        return False
