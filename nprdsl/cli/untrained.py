"""What `nprdsl run` does for a model that does not know the format, and how it says so.

Such a model is shown worked examples, its budget is shared out between the texts, and repetition
costs it something. All that is only where the user sets nothing else, and none of it with
`--trained`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from nprdsl.cli.failures import Failure
from nprdsl.cli.files import read_text
from nprdsl.cli.generation import GenerationOptions, Generator, LimitOptions, engine_errors
from nprdsl.cli.options import option
from nprdsl.machine.budget import Limits
from nprdsl.prompting.examples import SHOWN, ExampleChoice, Examples
from nprdsl.schema import Schema

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine

_NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class UntrainedOptions:
    """What the user says of a model that may not know the format."""

    trained: bool | None = option(
        None, "The model knows the format [if all tags are its tokens, or nprdsl trained it]."
    )
    example: str | None = option(
        None,
        "Worked examples to show, JSONL, or `none`: the format in words [the schema's own].",
        metavar="FILE|none",
    )


def helped(
    generator: Generator, options: GenerationOptions, untrained: UntrainedOptions
) -> Generator:
    """The generator with what an untrained model needs, as far as nothing else was asked for, and
    the note that says it. Raises Failure, LimitError, SchemaError."""
    examples = _examples(generator.schema, untrained.example)
    if untrained.example is not None and options.instructions is False:
        raise click.UsageError("--example is shown with the instructions; leave one of them out")
    knows = generator.engine.knows(generator.schema)
    trained = knows if untrained.trained is None else untrained.trained
    instructs = not trained if options.instructions is None else options.instructions
    instructs = instructs or untrained.example is not None
    made = replace(
        generator,
        prompting={**generator.prompting, "instructions": instructs},
        examples=examples,
    )
    if trained or options.engine is not None:
        return made
    return _eased(made, options, instructs=instructs)


def _eased(generator: Generator, options: GenerationOptions, *, instructs: bool) -> Generator:
    """With limits and sampling of an untrained model, and the note that says so."""
    from nprdsl.runtime.options import shown_examples
    from nprdsl.runtime.untrained import REPETITION_PENALTY, eased

    limits, sampling = generator.limits, generator.sampling
    with engine_errors():
        limits = _limits(generator.engine, generator.schema, options.limits) or limits
    done = _shown(generator) if instructs else []
    if limits.text_tokens is not None:
        done.append(f"its texts share {limits.max_tokens} tokens")
    if not sampling.penalises:
        schema, examples = generator.schema, generator.examples
        shown = shown_examples(schema, {"instructions": instructs, "examples": examples})
        sampling = eased(sampling, schema, shown)
        done.append(f"repetition in them is penalised by {REPETITION_PENALTY}")
        if shown:
            done.append("what the examples say is not written again")
    note = ""
    if done:
        who = f"the model was not trained on `{generator.schema.name}`"
        note = f"note: {who}: {', '.join(done)} (none of it with --trained)"
    return replace(generator, limits=limits, sampling=sampling, note=note)


def _limits(engine: Engine, schema: Schema, options: LimitOptions) -> Limits | None:
    """The shares of a budget, with what else was asked for; None where texts have limits of the
    user's own."""
    given = {name: value for name, value in asdict(options).items() if value is not None}
    given.pop("rule_tokens")
    if options.rule_tokens or options.branch_tokens is not None:
        return None
    budget = given.pop("max_tokens", None)
    shared = engine.shared_limits(schema, *([] if budget is None else [budget]))
    return replace(shared, **given)


def _shown(generator: Generator) -> list[str]:
    """What is shown before the prompt, in words."""
    own, examples = generator.schema.examples, generator.examples
    count = min(len(own), SHOWN) if isinstance(examples, ExampleChoice) else len(examples)
    if not count:
        return ["the format is described before the prompt"]
    return [f"{count} worked example{'s' * (count > 1)} stand before the prompt"]


def _examples(schema: Schema, given: str | None) -> Examples:
    """The examples that `--example` names."""
    if given is None:
        return ExampleChoice.OWN
    if given == _NONE:
        return ()
    found = schema.read_examples(read_text(given), given)
    if not found:
        raise Failure(f"`{given}` holds no example")
    return found
