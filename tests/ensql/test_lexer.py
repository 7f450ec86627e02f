"""The tokens of EnSQL (docs/protocol.rst, section "EnSQL")."""

from typing import List, Tuple

from ensign_sync.ensql import Kind, Lexer, quote
from tests.tables import each


def tokens(text: str) -> List[Tuple[str, Kind]]:
    lexer = Lexer(text)
    found = []
    while not lexer.at_end:
        token = lexer.pop()
        found.append((token.text, token.kind))
    return found


def first(text: str) -> Tuple[str, Kind, int]:
    return tuple(Lexer(text).peek())  # type: ignore[return-value]


def test_reserved_word() -> None:
    """A reserved word is found in any case and given in upper case."""
    for word in ["SELECT", "FROM", "WHERE", "AS", "OFFSET", "LIMIT"]:
        assert first(word) == first(word.lower()) == first(word.title()) == (word, Kind.RESERVED, len(word))


def test_operator() -> None:
    """Comparison and logical words are operators, the longer sign before the shorter."""
    for word in ["=", "!=", "<>", ">=", "<=", ">", "<", "AND", "OR", "LIKE", "ILIKE"]:
        assert first(word.lower()) == (word, Kind.OPERATOR, len(word))


def test_sign() -> None:
    """The asterisk has a kind of its own, other signs are punctuation."""
    for sign, kind in [("*", Kind.ASTERISK)] + [(sign, Kind.PUNCTUATION) for sign in ",.();"]:
        assert first(sign + sign) == (sign, kind, 1)


@each(
    "text, word",
    [
        ("orders", "OR"),
        ("Orders", "OR"),
        ("order_id", "OR"),
        ("selects", "SELECT"),
        ("from_x", "FROM"),
        ("fromage", "FROM"),
        ("limits", "LIMIT"),
        ("likes", "LIKE"),
        ("ilike2", "ILIKE"),
        ("assets", "AS"),
        ("where1", "WHERE"),
        ("offsets", "OFFSET"),
        ("andy", "AND"),
    ],
)
def test_reserved_prefix(text: str, word: str) -> None:
    """A reserved word matches the beginning of a longer word."""
    assert first(text)[0] == word


@each(
    "text, value",
    [
        ("'x'", "x"),
        ("''", ""),
        ("'a b'", "a b"),
        (r"'it\'s'", r"it\'s"),
        ("'a'b'", "a"),
        ("'\"'", '"'),
        ("'a\nb'", "a\nb"),
        ("'é€😀'", "é€😀"),
        (r"'\\\'", None),
        ("'x", None),
        ("'", None),
        (r"'x\'", None),
    ],
)
def test_quoted(text: str, value: str) -> None:
    """A text ends at the next quote without a backslash before it; without one the rest of the query is no token."""
    lexer = Lexer(text)
    token = lexer.peek()
    assert lexer.unclosed == (0 if value is None else None)
    assert token.text == (value or "")
    assert token.kind is (Kind.EMPTY if value is None else Kind.QUOTED)


def test_numeric() -> None:
    """A minus or a digit starts a number, which holds digits, dots and minus signs in any order."""
    for text in ["0", "1", "-", "--", "-7", "3.24", "1-2.3.4", "007", "1."]:
        assert first(text + "e5") == (text, Kind.NUMERIC, len(text))


def test_boolean() -> None:
    """Ten spellings, as a whole word, are booleans."""
    for text in ["t", "T", "True", "true", "TRUE", "f", "F", "False", "false", "FALSE"]:
        assert first(text) == (text, Kind.BOOLEAN, len(text))
        assert first(text + "x")[1] is Kind.IDENTIFIER


def test_identifier() -> None:
    """Letters, digits, underscore and minus make an identifier, which keeps its case."""
    for text in ["x-y-z", "under_score", "xorders", "n-1", "e9", "truely", "UPPER", "_", "tRUE", "nor"]:
        assert first(text + "é") == (text, Kind.IDENTIFIER, len(text))


def test_no_token() -> None:
    """A character that begins no token gives an identifier without text and is not passed."""
    for char in '"`@?/#$:é\u2003\x00\\!\x1c':
        lexer = Lexer("a " + char + "b")
        lexer.pop()
        assert lexer.pop() == ("", Kind.IDENTIFIER, 0)
        assert lexer.position == 2


def test_end() -> None:
    """At the end there are only empty tokens."""
    lexer = Lexer("a")
    lexer.pop()
    assert lexer.at_end
    assert lexer.pop() == lexer.peek() == ("", Kind.EMPTY, 0)


def test_spaces() -> None:
    """White space of Unicode is trimmed around the query; white space of ASCII is skipped after a token."""
    assert tokens("\u3000\x85\u2028 select\t\n\v\f\r *\xa0\u200a") == [("SELECT", Kind.RESERVED), ("*", Kind.ASTERISK)]
    assert not Lexer("\x1c").at_end


def test_positions_are_bytes() -> None:
    """Positions and lengths count bytes of UTF-8."""
    lexer = Lexer(" 'é€😀' x")
    assert lexer.pop().length == 11
    assert lexer.position == 12


@each(
    "text, quoted",
    [
        ("", '""'),
        ("it's é€😀", '"it\'s é€😀"'),
        ('"\\', r'"\"\\"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\x00\x1b\x7f", r'"\x00\x1b\x7f"'),
        ("\x85\xa0\u2028\ufeff", r'"\u0085\u00a0\u2028\ufeff"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("\udcc3", r'"\xc3"'),
    ],
)
def test_quote(text: str, quoted: str) -> None:
    """Texts in errors are quoted as the verb %q of Go quotes."""
    assert quote(text) == quoted
