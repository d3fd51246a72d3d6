"""The models that ship with the package, by name: what each of them answers, in which language, and
within which limits.

`smol` is an adapter of SmolLM2-135M-Instruct, whose weights are fetched once
(`nprdsl.runtime.smollm2`); `arith`, small and whole, is the model of the tests.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nprdsl.machine.budget import DEFAULT_LIMITS, Limits, TextTokens
from nprdsl.runtime.adapter_settings import SETTINGS

ARITH: Final = "arith"
SMOL: Final = "smol"


@dataclass(frozen=True, slots=True)
class BundledModel:
    """The `schema` that a model was trained for, what it `answers`, in words, and `limits` that no
    trace of its training comes near: asked for something else, it would fill one plan with answers
    until the budget is gone."""

    schema: str
    answers: str
    limits: Limits = DEFAULT_LIMITS


BUNDLED: Final = {
    SMOL: BundledModel(
        "npr",
        "word problems in English like those it was trained on, eight in ten of them right, such "
        "as `Mia buys 4 boxes of 12 pens and 3 boxes of 18 rulers. How many is that altogether?`",
        Limits(max_tokens=700, text_tokens=TextTokens(item=16, branch=176, trunk=176)),
    ),
    ARITH: BundledModel("arith", "sums of products such as `37*42+85*19?`, and nothing else"),
}


def is_bundled(model: str) -> bool:
    """Whether a name means a model of the package; a folder of that name that holds one goes
    before."""
    holds = any((Path(model) / file).is_file() for file in ("config.json", SETTINGS))
    return model in BUNDLED and not holds


def bundled_for(schema: str | None) -> str:
    """The model of the package that was trained for a schema, by its name; else `smol`."""
    known = {model.schema: name for name, model in BUNDLED.items()}
    return known.get(schema or "", SMOL)


def model_folder(model: str) -> str:
    """The folder of a model of the package; any other path or name as it is."""
    if not is_bundled(model):
        return model
    return str(importlib.resources.files("nprdsl.runtime") / "models" / model)
