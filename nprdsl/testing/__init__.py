"""Hypothesis strategies for the traces of a schema, for tests of those who write schemas; a fuzzer.

    schema = nprdsl.load("my.lark")

    @given(traces(schema))
    def test_my_reward(text): ...

Needs the extra `nprdsl[testing]`. Nothing here is needed to parse, generate or train.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "nprdsl.testing needs hypothesis; install it with: pip install 'nprdsl[testing]'",
        name="hypothesis",
    ) from error

from nprdsl.testing.fuzzing import FuzzReport, fuzz
from nprdsl.testing.mutations import Mutation, MutationKind, all_mutations, mutated, mutations
from nprdsl.testing.properties import (
    FuzzFailure,
    Property,
    PropertyError,
    SchemaVerdict,
    judge,
    property_failure,
)
from nprdsl.testing.reference import Reading, derive
from nprdsl.testing.schemas import RandomSchema, random_schema, schemas
from nprdsl.testing.tokens import byte_vocabulary, straddling_merges, token_traces, tokenise
from nprdsl.testing.traces import Spacing, traces

__all__ = [
    "FuzzFailure",
    "FuzzReport",
    "Mutation",
    "MutationKind",
    "Property",
    "PropertyError",
    "RandomSchema",
    "Reading",
    "SchemaVerdict",
    "Spacing",
    "all_mutations",
    "byte_vocabulary",
    "derive",
    "fuzz",
    "judge",
    "mutated",
    "mutations",
    "property_failure",
    "random_schema",
    "schemas",
    "straddling_merges",
    "token_traces",
    "tokenise",
    "traces",
]
