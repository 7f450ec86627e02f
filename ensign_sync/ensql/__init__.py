"""The query language of Ensign, in two dialects.

The strict dialect is what the real server accepts, refuses and stumbles over, with the server's own words for errors
(docs/protocol.rst, section "EnSQL"): ``parse`` gives a ``Query``. The full dialect is what Ensign documents and what
this package adds: ``parse_full`` gives a ``Select``, ``Plan`` looks at events with it, and ``explain`` tells of it.
"""

from .evaluate import Plan, Record
from .filter import Filter, subscription_filter
from .full import parse_full
from .lexer import Kind, Lexer, Token, quote
from .parameters import Parameter
from .parser import ParserPanic, is_queryable, parse
from .query import Comparison, Condition, Field, Logical, Query
from .tree import Column, Compare, Junction, Not, Predicate, Select
from .writer import explain, to_text

__all__ = [
    "Column",
    "Compare",
    "Comparison",
    "Condition",
    "Field",
    "Filter",
    "Junction",
    "Kind",
    "Lexer",
    "Logical",
    "Not",
    "Parameter",
    "ParserPanic",
    "Plan",
    "Predicate",
    "Query",
    "Record",
    "Select",
    "Token",
    "explain",
    "is_queryable",
    "parse",
    "parse_full",
    "quote",
    "subscription_filter",
    "to_text",
]
