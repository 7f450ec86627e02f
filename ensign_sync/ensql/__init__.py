"""The query language of Ensign: reads a query as the server does, with the server's own words for errors.

What the server accepts, refuses and stumbles over is described in docs/protocol.rst, section "EnSQL".
"""

from .lexer import Kind, Lexer, Token, quote
from .parser import ParserPanic, is_queryable, parse
from .query import Comparison, Condition, Field, Logical, Query

__all__ = [
    "Comparison",
    "Condition",
    "Field",
    "Kind",
    "Lexer",
    "Logical",
    "ParserPanic",
    "Query",
    "Token",
    "is_queryable",
    "parse",
    "quote",
]
