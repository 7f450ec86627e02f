"""Parse the full dialect of EnSQL: what Ensign documents, and what this package adds to it::

    query     = "SELECT" ("*" | column {"," column}) "FROM" name ["." schema] ["WHERE" condition] {clause} {";"}
    column    = field ["AS" name]
    field     = name {"." name}
    schema    = "*" ["." "*"] | name ["." ("*" | number)]
    condition = term {("AND" | "OR") term}
    term      = "NOT" term | "(" condition ")" | field operator value | field "NOT" ("LIKE" | "ILIKE") value
    operator  = "=" | "!=" | "<>" | ">" | ">=" | "<" | "<=" | "LIKE" | "ILIKE"
    value     = number | text in single quotes | "true" | "false" | parameter
    clause    = "OFFSET" (number | event) | "LIMIT" number | ("BEFORE" | "AFTER") (event | time)

NOT binds tighter than AND, and AND tighter than OR. Each clause stands at most once, in any order. Keywords and truth
values are read in any case, ``t`` and ``f`` are truth values too. A name is a word of letters, digits, ``_`` and ``-``,
or anything in double quotes, a double quote inside doubled. In a text ``\\'`` stands for a quote and nothing else is
special, so a text that ends in a backslash can only be given as a parameter.

``:name`` is a parameter and stands in the place of any value, those of the clauses included. Its value goes into the
tree and never into the text. An event is written as the text of its id, a time as RFC 3339 with its zone.
"""

from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from ensign_sync import times
from ensign_sync.exceptions import InvalidQueryError
from ensign_sync.ids import RLID

from .conditions import JUNK, RESERVED, ConditionReader
from .full_lexer import FullLexer, Sort
from .parameters import Parameter, Parameters, number_of
from .tree import Column, Moment, Path, Select

_MOMENTS = dict.fromkeys(["before", "after"], "an RFC 3339 time with its zone, or the id of an event")
_REASONS = {word: f"invalid {word}: expected {moment}" for word, moment in _MOMENTS.items()}
_REASONS.update(offset="invalid offset", limit="invalid limit")
_MOMENTS["offset"] = "a number, or the id of an event"
_MAX_BOUND = 2**64
_MAX_MAJOR = 2**32


class _Parser(ConditionReader):
    """The statement."""

    def run(self) -> Select:
        """Take the whole text; return the query or raise InvalidQueryError."""
        if self.lexer.at_end:
            raise InvalidQueryError("empty query is invalid")
        if not self.keyword("SELECT"):
            raise self.lexer.error("invalid query type")
        columns = self._columns()
        topic, schema, major = self._source()
        where = self.condition() if self.keyword("WHERE") else None
        clauses = self._clauses(JUNK if where else "invalid from clause")
        while self.sign(";"):
            continue
        if not self.lexer.at_end:
            raise self.lexer.error("expected the end of the query")
        return Select(topic, columns, schema, major, where, **clauses)

    def _columns(self) -> Tuple[Column, ...]:
        """Take the selected fields and FROM."""
        columns: List[Optional[Column]] = []
        paths: Dict[str, Path] = {}
        while True:
            piece = self.lexer.piece
            column = self._column()
            if column and paths.setdefault(column.name, column.path) != column.path:
                raise self.lexer.error("another field has this name in the result: use an alias", piece)
            columns.append(column)
            if self.keyword("FROM"):
                break
            if not self.sign(","):
                raise self.lexer.error("invalid select fields statement")
        if None in columns and len(columns) > 1:
            raise InvalidQueryError("cannot select * and specify fields")
        return tuple(column for column in columns if column is not None)

    def _column(self) -> Optional[Column]:
        """Take a field; return None for the asterisk."""
        piece = self.lexer.piece
        if self.lexer.at_end:
            raise InvalidQueryError("topic name cannot be empty")
        if piece.is_keyword(*RESERVED):
            raise InvalidQueryError("SELECT requires field projection or *")
        everything = self.sign("*")
        path = () if everything else self.path("invalid field identifier")
        alias = None
        if self.keyword("AS"):
            piece = self.lexer.piece
            alias = self.name("invalid alias identifier")
            if everything:
                raise self.lexer.error("cannot alias *", piece)
        return None if everything else Column(path, alias)

    def _source(self) -> Tuple[str, str, Optional[int]]:
        """Take the topic, the schema and the version."""
        topic = self.name("invalid topic identifier")
        if not topic:
            raise InvalidQueryError("topic name cannot be empty")
        if not self.sign("."):
            return topic, "", None
        if self.sign("*"):
            dot = self.lexer.piece
            if self.sign(".") and not self.sign("*"):
                raise self.lexer.error("cannot specify version for * schema", dot)
            return topic, "", None
        piece = self.lexer.piece
        schema = self.name("invalid schema identifier")
        if not schema:
            raise self.lexer.error("invalid schema identifier", piece)
        return topic, schema, self._major() if self.sign(".") else None

    def _major(self) -> Optional[int]:
        if self.sign("*"):
            return None
        if self.lexer.piece.sort is not Sort.NUMBER:
            raise self.lexer.error("invalid version identifier")
        major = number_of(self.lexer.piece.text)
        if not isinstance(major, int) or not 0 <= major < _MAX_MAJOR:
            raise self.lexer.error("could not parse schema version")
        self.lexer.take()
        return major

    def _clauses(self, reason: str) -> Dict[str, Any]:
        """Take the clauses behind the condition; the reason is for what is none."""
        found: Dict[str, Any] = {}
        while True:
            piece = self.lexer.piece
            if self.lexer.at_end or piece.is_sign(";"):
                return found
            if not (piece.is_word("BEFORE", "AFTER") or piece.is_keyword("OFFSET", "LIMIT")):
                raise self.lexer.error(reason)
            word = self.lexer.take().text.lower()
            value = self.value(_REASONS[word])
            if word in found:
                raise self.lexer.error(f"{word} has already been set")
            found[word] = self._clause(word, value)
            self.lexer.take()
            reason = f"invalid {word} clause"

    def _clause(self, word: str, value: Parameter) -> Union[Moment, int]:
        """Return what the value of a clause stands for."""
        if isinstance(value, (str, bytes)) and word != "limit":
            moment = _moment(value)
            if moment is None:
                raise self.lexer.error(f"could not parse {word}: expected {_MOMENTS[word]}")
            if word == "offset" and not isinstance(moment, RLID):
                raise self.lexer.error(f"could not parse {word}: expected {_MOMENTS[word]} (AFTER takes a time)")
            return moment
        if isinstance(value, (str, bytes, bool)) or word in ("before", "after"):
            raise self.lexer.error(_REASONS[word])
        if not isinstance(value, int) or not 0 <= value < _MAX_BOUND:
            raise self.lexer.error(f"could not parse {word}")
        return value


def _moment(value: Union[str, bytes]) -> Optional[Moment]:
    """Return the event or the time that a text means; None if it means neither."""
    try:
        return RLID(value)
    except ValueError:
        pass
    try:
        return times.parse(value) if isinstance(value, str) else None
    except ValueError:
        return None


def parse_full(text: str, params: Optional[Mapping[str, Parameter]] = None) -> Select:
    """Parse a query of the full dialect.

    Args:
        text: The query.
        params: The values of the parameters, by their names without the colon.

    Raises:
        InvalidQueryError: The query or a parameter is not valid; nothing else is raised, whatever the text.
    """
    if not isinstance(text, str):
        raise InvalidQueryError(f"a query is a text, got {type(text).__name__}")
    parameters = Parameters(params)
    return _Parser(FullLexer(str.__str__(text)), parameters).run()
