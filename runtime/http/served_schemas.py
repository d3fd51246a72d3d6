"""`GET /v1/schemas`: the schemas that a server knows by name, with their tags and the least tokens
of a trace.

A schema whose declared terminals get their types with each request has no minimum of its own; their
names are told instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.http.schema_register import open_terminals
from nprdsl.runtime.http.wire_forms import SchemaForm, TerminalForm
from nprdsl.schema import Schema


def described(forms: Iterable[SchemaForm], bind: Callable[[Schema], BoundSchema]) -> dict[str, Any]:
    """All of them, as OpenAI's format lists things. `bind` puts a schema over the vocabulary of the
    model; it may raise a ValueError where the model cannot write it."""
    return {"object": "list", "data": [_described(form, bind) for form in forms]}


def _described(form: SchemaForm, bind: Callable[[Schema], BoundSchema]) -> dict[str, Any]:
    terminals = open_terminals(form)
    stand_ins = dict.fromkeys(terminals, TerminalForm(pattern="[0-9]+"))
    schema = form.model_copy(update={"terminals": form.terminals | stand_ins}).read()
    entry: dict[str, Any] = {
        "id": form.name,
        "object": "schema",
        "tags": list(schema.tags),
        "terminals": list(terminals),
        "minimum": None,
    }
    if not terminals:
        try:
            entry["minimum"] = bind(schema).minimum
        except ValueError as error:
            entry["refused"] = str(error)
    return entry
