"""The everyday worlds that word problems play in: shops, kitchens, journeys, gardens and others.

They stand in `families.json`, which this module reads. A `Family` holds what its parts can be about
and how they are told, and how its results are asked for. Families, people and questions that are
marked as unseen never occur in training: with them a model is tested on what it has not read. How
single parts are told is the same for all.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any, Final

from nprdsl.trainers.smol.parts import Calculation, Form

_CONTAINERS: Final = ("<many>", "<one>")  # slots of forms that tell of things in containers


class Asked(StrEnum):
    """What is asked of the parts of a problem."""

    TOTAL = "total"
    MORE = "more"
    LEFT = "left"
    ENOUGH = "enough"
    SHARE = "share"
    REPEAT = "repeat"
    MOST = "most"


# How results of one unit are asked for. Slots: {who}; {x} {y} names of parts; {n} a number.
Measure = Mapping[Asked, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Family:
    """A world: what is counted, how lists begin, the forms of its parts and how it is asked about.
    `settings` may stand before, `idle` sentences hold numbers that do not matter."""

    name: str
    measure: Measure
    things: Sequence[str]
    lists: Sequence[str]
    forms: Sequence[Form]
    settings: Sequence[str]
    idle: Sequence[str]
    unseen: bool


@dataclass(frozen=True, slots=True)
class World:
    """All families, and the people in them, known and unseen."""

    families: Sequence[Family]
    people: Sequence[str]
    unseen_people: Sequence[str]


@cache
def world() -> World:
    """What `families.json` holds."""
    file = importlib.resources.files("nprdsl.trainers.smol") / "families.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    forms = {
        group: [Form(**(form | {"chain": Calculation[form["chain"].upper()]})) for form in listed]
        for group, listed in data["forms"].items()
    }
    measures = {
        name: {Asked(asked): listed for asked, listed in phrases.items()}
        for name, phrases in data["measures"].items()
    }
    families = [_family(entry, forms, measures) for entry in data["families"]]
    return World(families, data["people"], data["unseen_people"])


def _family(
    entry: Mapping[str, Any], forms: Mapping[str, list[Form]], measures: Mapping[str, Measure]
) -> Family:
    containers = entry.get("containers", [])
    return Family(
        name=entry["name"],
        measure=measures[entry["measure"]],
        things=entry["things"],
        lists=entry["lists"],
        forms=[f for group in entry["forms"] for f in _filled(forms[group], containers)],
        settings=entry.get("settings", ()),
        idle=entry.get("idle", ()),
        unseen=entry.get("unseen", False),
    )


def _filled(forms: Sequence[Form], containers: Sequence[Sequence[str]]) -> Iterator[Form]:
    """Forms with slots for containers, once for each container; others as they are."""
    if not any(_CONTAINERS[0] in form.listed for form in forms):
        yield from forms
        return
    for names in containers:
        for form in forms:
            yield replace(
                form,
                listed=_named(form.listed, names),
                told=[_named(text, names) for text in form.told],
                note=_named(form.note, names),
            )


def _named(text: str, names: Sequence[str]) -> str:
    for slot, name in zip(_CONTAINERS, names, strict=True):
        text = text.replace(slot, name)
    return text
