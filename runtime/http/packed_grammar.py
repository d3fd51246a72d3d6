"""A read schema as text, so that one process of a server reads it and others only unpack it.

`pack` makes text of a grammar, `unpack` the grammar again, some fifty times faster than its source
is read. The text is a pickle, of which nothing but the classes of a grammar is let in: to unpack
one runs no code that it names. Functions that convert values of typed terminals stay behind: values
are converted by the client.
"""

from __future__ import annotations

import base64
import io
import pickle
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any, Final

from nprdsl.grammar import ir
from nprdsl.grammar.diagnostics import Span
from nprdsl.schema import Schema

_CLASSES: Final = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (*(kind for kind in vars(ir).values() if isinstance(kind, type)), Span, str)
}
_MOST_SCHEMAS: Final = 64  # that stay unpacked
_CONVERTER: Final = "converter"  # stands for any function


def pack(grammar: ir.Grammar) -> str:
    """The grammar as ASCII text."""
    packed = io.BytesIO()
    _Pickler(packed).dump(grammar)
    return base64.b64encode(packed.getvalue()).decode()


def unpack(text: str) -> ir.Grammar:
    """Raises ValueError for a text that `pack` has not made."""
    try:
        grammar = _Unpickler(io.BytesIO(base64.b64decode(text))).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"this is no packed grammar: {error}") from error
    if not isinstance(grammar, ir.Grammar):
        raise ValueError(f"this is no packed grammar but {type(grammar).__name__}")
    return grammar


@lru_cache(_MOST_SCHEMAS)
def unpacked_schema(text: str) -> Schema:
    """The schema of a packed grammar; those that were asked for last are kept. Raises ValueError
    as `unpack` does."""
    return Schema(unpack(text))


class _Pickler(pickle.Pickler):
    def persistent_id(self, part: Any) -> str | None:
        return _CONVERTER if isinstance(part, FunctionType | MethodType) else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: Any) -> Any:
        if name != _CONVERTER:
            raise pickle.UnpicklingError(f"{name} is no part of a grammar")
        return str

    def find_class(self, module: str, name: str) -> Any:
        kind = _CLASSES.get(f"{module}.{name}")
        if kind is None:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a grammar")
        return kind
