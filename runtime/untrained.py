"""What a model that was not trained on a format is run with where its caller sets nothing.

A base or instruct model meets the tags of a schema for the first time in its prompt. Left alone it
writes its first text until the budget is gone, turns in circles, or copies the worked examples that
it is shown. So its budget is shared out (`nprdsl.machine.shares`), repetition costs it something
inside free text, and runs of the examples are not written again. Whoever sets limits or sampling
gets exactly those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, TypeGuard

from nprdsl.grammar.ir import Field, Grammar, TerminalKind, nodes
from nprdsl.grammar.walk import all_nodes
from nprdsl.prompting.examples import Example
from nprdsl.runtime.sampling import Sampling
from nprdsl.schema import Schema
from nprdsl.structure.violations import TraceError

MAX_TOKENS: Final = 1024  # of a trace, where no limits are given
REPETITION_PENALTY: Final = 1.1
BRANCH_TEMPERATURE: Final = 0.7  # of a fork by count
_RECORD: Final = "nprdsl"  # in a model's configuration
_MOST: Final = 32  # schemas with examples whose texts are kept


def record_of_training(grammar: Grammar) -> dict[str, Any]:
    """What the configuration of a model says once it was trained on a schema."""
    return {_RECORD: {"schema": grammar.name, "digest": grammar.digest}}


def recorded_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """The record in a model's configuration, empty where it has none."""
    return {_RECORD: config[_RECORD]} if _RECORD in config else {}


def is_recorded(config: Mapping[str, Any], grammar: Grammar) -> bool:
    """Whether a model's configuration says that it was trained on this very schema."""
    record = config.get(_RECORD)
    return isinstance(record, Mapping) and record.get("digest") == grammar.digest


def eased(sampling: Sampling, schema: Schema, shown: Sequence[Example] = ()) -> Sampling:
    """The settings with a mild repetition penalty in the rules that hold free text, without greedy
    branches where nothing but chance tells one from another, those of a fork by count, and without
    copies of the examples that are shown."""
    grammar = schema.grammar
    rules = {rule: dict(over) for rule, over in sampling.rules.items()}
    for name, rule in grammar.rules.items():
        if any(_is_text(node) for node in nodes(rule.node)):
            rules.setdefault(name, {}).setdefault("repetition_penalty", REPETITION_PENALTY)
    for block in grammar.blocks:
        if block.item is None and sampling.temperature == 0.0:
            rules.setdefault(block.branch, {}).setdefault("temperature", BRANCH_TEMPERATURE)
    return replace(sampling, rules=rules, avoid=(*sampling.avoid, *_texts(schema, tuple(shown))))


@lru_cache(_MOST)
def _texts(schema: Schema, examples: tuple[Example, ...]) -> tuple[str, ...]:
    """The questions, and what the traces have between tags."""
    names = {field.terminal.name for field in all_nodes(schema.grammar.rules) if _is_text(field)}
    texts = [one.question for one in examples]
    for one in examples:
        with suppress(TraceError):  # an example of the caller's own may be anything
            elements = schema.parse(one.trace).root.walk()
            texts += [element.text for element in elements if element.name in names]
    return tuple(texts)


def _is_text(node: object) -> TypeGuard[Field]:
    return isinstance(node, Field) and node.terminal.kind is TerminalKind.TEXT
