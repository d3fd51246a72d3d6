"""Random schemas, the properties that are put to the proof with them, and what makes them small."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.item_counts import least_items
from nprdsl.grammar.walk import references
from nprdsl.masks.matcher import Matcher
from nprdsl.schema import Schema, load
from nprdsl.structure.stack import UNBOUNDED, Bounds
from nprdsl.structure.violations import Violation
from nprdsl.testing import brute_force, campaign
from nprdsl.testing.minimise import minimised
from nprdsl.testing.properties import Property, faulty, judge, property_failure
from nprdsl.testing.schemas import RandomSchema, random_schema
from nprdsl.tokens.bitmask import Mask
from tests.walks import schema_of

SMALL = 'start: "<tag>" V "</tag>" ["<more>"]\nV: /x|yx/\n'
WORDS = (
    "map{", "process{", "spawn{", "reduce{", "reread{", "TEXT", "GOAL", "LABEL", "VALUE_", "TAG_",
    "_GLUE", "%import common", "%import .npr", "wrap{", "{wrap{", "~9", "~0..1", "]", ")?", "FIXED",
    "group_", "chain_", " | element_", "(block_", "[block_", "_all{", "-> other", "  // a", "DIGIT",
    "/i", "GOAL", ".multiverse",
)  # fmt: skip


def test_a_number_gives_the_same_schema() -> None:
    assert random_schema(7) == random_schema(7)
    assert len({random_schema(n).source for n in range(40)}) > 35


def test_random_schemas_hold_every_construct_and_mostly_load() -> None:
    seen: Counter[str] = Counter()
    for number in range(300):
        drawn = random_schema(number)
        try:
            grammar = drawn.load().grammar
        except SchemaError:
            seen["refused"] += 1
            continue
        seen.update(word for word in WORDS if word in drawn.source)
        seen["types"] += bool(drawn.types)
        seen["end"] += drawn.end is not None
        bodies = {name: rule.node for name, rule in grammar.rules.items()}
        listing = [block for block in grammar.blocks if block.item is not None]
        seen["empty"] += any(least_items(block, bodies) == 0 for block in listing)
        seen["itself"] += any(name in references(body) for name, body in bodies.items())
        seen["blocks"] += len({block.rule for block in grammar.blocks}) < len(grammar.blocks)
        letters = [t for t in grammar.tags if len(t) <= 3]
        seen["overlap"] += any(a[-1] == b[0] for a in letters for b in letters)
    wanted = {*WORDS, "types", "end", "empty", "itself", "blocks", "overlap"}
    assert wanted <= set(+seen), wanted - set(+seen)
    assert seen["empty"] > 10
    assert seen["refused"] <= 90


def test_faulty_texts_are_other_texts() -> None:
    text = "<a>x</a>"
    made = list(faulty(text, ("<a>", "</a>"), Random(1), 50))
    assert len(made) == 50 and sum(t != text for t in made) > 40


@pytest.mark.parametrize("name", ["npr", "parallel_r1"])
def test_a_checker_that_refuses_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Schema.check

    def strict(self: Schema, text: str, bounds: Bounds = UNBOUNDED) -> list[Violation]:
        return honest(self, text, bounds) or honest(self, "", bounds)

    monkeypatch.setattr(Schema, "check", strict)
    failure = property_failure(load(name))
    assert failure is not None and failure.broken is Property.EXAMPLE


def test_a_schema_that_does_not_load_is_refused_with_its_codes() -> None:
    drawn = RandomSchema(0, 'start: "<a>" TEXT TEXT\n%declare TEXT\n')
    assert judge(drawn).refused == ("text-next-to-text",)


# -- the search


def test_masks_of_a_small_schema_are_those_of_the_search() -> None:
    made = schema_of(SMALL)
    assert [brute_force.masks_differ(made, Random(seed)) for seed in range(5)] == [None] * 5


def test_the_search_reads_tags_from_the_left() -> None:
    # `xbbb…` is `x`, `bb`, `b…` without its glue: `xb` and `bb` would be another reading
    made = schema_of('start: TEXT TAG_B _GLUE TEXT\nTAG_B: "bb"\n_GLUE: " "\n%declare TEXT\n')
    assert [brute_force.masks_differ(made, Random(seed)) for seed in range(5)] == [None] * 5


def test_a_character_begun_ends_in_the_cheapest_way_that_spells_no_tag() -> None:
    """The last byte of the character decides whether it spells `骤a` with the tag behind it."""
    made = schema_of('start: TAG_0 TEXT TAG_1\nTAG_0: "骤a"\nTAG_1: "aa"\n%declare TEXT\n')
    assert [brute_force.masks_differ(made, Random(seed)) for seed in range(5)] == [None] * 5


def test_the_search_writes_empty_lists() -> None:
    made = schema_of(
        """
        %import .parallel (map, process, reduce)
        start: map{list} process{item, branch} reduce{join}
        list: "<l>" [item+] "</l>"
        item: "<i>"
        branch: "<b>"
        join: "<j>"
        """
    )
    assert [brute_force.masks_differ(made, Random(seed)) for seed in range(5)] == [None] * 5


@pytest.mark.parametrize("bit", [0, 1, 2, 3])
def test_a_mask_that_allows_or_forbids_too_much_is_found(
    bit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = schema_of('start: "<tag>" TEXT "</tag>"\n%declare TEXT\n')
    honest = Matcher.tight

    def other(self: Matcher, slack: int) -> Mask:
        return honest(self, slack) ^ (1 << bit)

    monkeypatch.setattr(Matcher, "tight", other)
    found = brute_force.masks_differ(made, Random(0))
    assert found is not None and "more and" in found[0]


def test_a_cost_that_is_too_high_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Matcher.cost.fget
    assert honest is not None
    monkeypatch.setattr(Matcher, "cost", property(lambda self: honest(self) + 1))
    found = brute_force.masks_differ(schema_of('start: "<tag>" "</tag>"\n'), Random(0))
    assert found == ("the cost is 3, a legal end takes 2 tokens", "")


# -- small failures, long runs


def test_a_source_is_made_small() -> None:
    def loads_with_a_fork(source: str) -> bool:
        try:
            return len(RandomSchema(0, source).load().grammar.blocks) > 0
        except SchemaError:
            return False

    drawn = next(filter(loads_with_a_fork, (random_schema(n).source for n in range(20, 60))))
    small = minimised(drawn, loads_with_a_fork)
    assert loads_with_a_fork(small) and len(small) < len(drawn) / 2


def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def outcome(number: int) -> dict[str, object]:
        judged.append(number)
        return {"number": number, "refused": ["tag-overlap"] if number == 2 else []}

    class Pool:
        """The tasks of a pool, in this process."""

        def __init__(self, _processes: int, **_options: object) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_error: object) -> None: ...

        imap_unordered = staticmethod(lambda function, numbers, chunksize: map(function, numbers))

    monkeypatch.setattr(campaign, "outcome", outcome)
    monkeypatch.setattr(campaign.multiprocessing, "Pool", Pool)
    file = tmp_path / "fuzz.jsonl"
    campaign.run(range(3), 1, file)
    lines = campaign.run(range(5), 1, file)
    assert judged == [0, 1, 2, 3, 4]
    assert campaign.summary(lines).splitlines() == [
        "5 schemas (0 to 4): 4 hold, 1 refused (20.0%), 0 fail",
        "refused: tag-overlap 1",
    ]
