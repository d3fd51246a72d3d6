"""Validation of SGLang's requests that ends at the first wrong entry of a list.

pydantic collects the faults of all entries: for a body of 300 kB that takes ten seconds, in the
loop that serves everybody. In go the routes of FastAPI's application; the body of each is then read
by a validator made from the same core schema, whose lists fail fast. What is right is read as
before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from fastapi.routing import APIRoute
from pydantic_core import SchemaError, SchemaValidator

_logger: Final = logging.getLogger(__name__)
_LISTS: Final = frozenset({"list", "set", "frozenset", "tuple"})
_BY_NAME: Final = frozenset({"fields", "choices"})  # schemas by the names of fields, of tags
_VALUES: Final = frozenset({"cls", "default", "function", "serialization", "metadata"})


def end_at_first_fault(routes: Iterable[object]) -> None:
    """A route whose body is read in a way that is not known keeps its own."""
    for route in routes:
        if not isinstance(route, APIRoute) or route.body_field is None:
            continue
        try:
            adapter = route.body_field._type_adapter
            schema: Any = failing_fast(adapter.core_schema)
            # else the validators that models have already would be taken as they are
            adapter.validator = SchemaValidator(schema, _use_prebuilt=False)
        except (AttributeError, SchemaError, TypeError) as error:
            _logger.warning("all faults of a body are collected at %s: %s", route.path, error)


def failing_fast(schema: Any) -> Any:
    """The same core schema, in which each list ends at its first fault."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(failing_fast, schema))
    if not isinstance(schema, dict):
        return schema
    made = {name: _part(name, value) for name, value in schema.items()}
    if schema.get("type") in _LISTS:
        made["fail_fast"] = True
    return made


def _part(name: str, value: Any) -> Any:
    """What a core schema holds under a name."""
    if name in _VALUES:
        return value
    if name in _BY_NAME and isinstance(value, dict):
        return {key: failing_fast(schema) for key, schema in value.items()}
    return failing_fast(value)
