"""The options of a request, and whether they are ones: before anything is computed.

Keywords are not checked by Python where a call only passes them on, so that `max_tokens=300` beside
a prompt would be dropped in silence. Everything that an engine is given by a caller beside prompts
and limits (which check themselves) is judged here; a fault is a TypeError that names the option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Final, TypedDict

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.machine.actions import JoinPolicy
from nprdsl.machine.budget import Limits, check_limits
from nprdsl.prompting.examples import Example, ExampleChoice, Examples
from nprdsl.runtime.sampling import SETTINGS, Sampling
from nprdsl.schema import Schema


class Options(TypedDict, total=False):
    """What `generate`, `stream` and `submit` take besides schema, prompt and sampling."""

    limits: Limits
    join: JoinPolicy
    parallel: bool
    native: bool
    chat: bool
    instructions: bool
    logprobs: bool
    examples: Examples


_FLAGS: Final = ("parallel", "native", "chat", "instructions", "logprobs")
_NAMES: Final = ("limits", "join", *_FLAGS, "examples")
_LIMITS: Final = tuple(one.name for one in fields(Limits))


def check_schema(schema: object) -> None:
    """Raises TypeError for what is no schema."""
    if not isinstance(schema, Schema):
        raise TypeError(
            f"the schema is {_shown(schema)}, it must be a Schema: nprdsl.load(…) gives one"
        )


def check_sampling(sampling: object) -> None:
    """Raises TypeError for what is no Sampling."""
    if not isinstance(sampling, Sampling):
        raise TypeError(f"`sampling` is {_shown(sampling)}, it must be Sampling(temperature=…)")


def shown_examples(schema: Schema, options: Options) -> Sequence[Example]:
    """The worked examples of which prompts with these options show some."""
    if not options.get("instructions", False):
        return ()
    examples = options.get("examples", ExampleChoice.OWN)
    return schema.examples if isinstance(examples, ExampleChoice) else examples


def check_options(options: Mapping[str, object]) -> None:
    """Raises TypeError for an option that there is not, and for a value of another type."""
    for name, value in options.items():
        if name not in _NAMES:
            raise TypeError(_unknown(name))
        if name == "limits":
            check_limits(value)
        if name == "join" and not isinstance(value, JoinPolicy):
            raise TypeError(
                f"`join` is {_shown(value)}, it must be JoinPolicy(1) for the first branch, "
                "JoinPolicy() for all"
            )
        if name in _FLAGS and not isinstance(value, bool):
            raise TypeError(f"`{name}` is {_shown(value)}, it must be True or False")
    if not _are_examples(options.get("examples", ())):
        raise TypeError(
            f"`examples` is {_shown(options['examples'])}, it must be a list of Example(question=…,"
            " trace=…), or ExampleChoice.OWN"
        )


def _are_examples(value: object) -> bool:
    if isinstance(value, ExampleChoice):
        return True
    return isinstance(value, Sequence) and all(isinstance(one, Example) for one in value)


def _unknown(name: str) -> str:
    said = f"a request has no option `{name}`"
    if name in _LIMITS:
        return f"{said}; give it in limits=Limits({name}=…)"
    if name in SETTINGS:
        return f"{said}; give it in sampling=Sampling({name}=…)"
    return f"{said}; {did_you_mean(name, _NAMES) or 'options are ' + ', '.join(_NAMES)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
