"""Each step alone: what is mended, what is refused, and how that is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import nprdsl
from nprdsl.trainers.curate.asking import In, Out, Step
from nprdsl.trainers.curate.document import BlockKind, LeafRange
from nprdsl.trainers.curate.placement import Room, form_of
from nprdsl.trainers.curate.steps import arrange, group, judge, parse, refill, write
from nprdsl.trainers.curate.steps.arrange import Arrangement, BlockPlan, Range
from nprdsl.trainers.curate.steps.group import Group, Groups, Need
from nprdsl.trainers.curate.steps.parse import Outline, OutlineStep
from nprdsl.trainers.curate.steps.refill import Filling
from nprdsl.trainers.curate.steps.write import BlockWording, Draft, Edit, Text, Wording

CHAIN = tuple(f"S{n}. " for n in range(1, 9))
# leaves: 1, 2.1, 2.2, 2.3, 3, 4
OUTLINE = Outline(
    steps=(
        OutlineStep(title="Begin", parts=()),
        OutlineStep(title="Treat cases", parts=("One", "Two", "Three")),
        OutlineStep(title="Check", parts=()),
        OutlineStep(title="State the answer", parts=()),
    )
)
NEEDS = tuple(
    Need(label=label, needs=needs)
    for label, needs in [
        ("1", ()),
        ("2.1", ("1",)),
        ("2.2", ("1",)),
        ("2.3", ("1", "2.2")),
        ("3", ("1",)),
        ("4", ("2", "3")),
    ]
)


def told(step: Step[In, Out], answer: Out, given: In) -> list[str]:
    return step.faults(step.mend(answer, given), given)


def groups(*found: tuple[str, list[list[str]]], needs: tuple[Need, ...] = NEEDS) -> Groups:
    return Groups(
        needs=needs,
        groups=tuple(Group.model_validate({"kind": k, "branches": b}) for k, b in found),
    )


def test_the_json_schemas_of_answers_stay_as_they_are(golden: Callable[[str, str], None]) -> None:
    """They are sent to the endpoint and key the cache: the name of a class is part of them."""
    modules = (parse, group, arrange, refill, write, judge)
    schemas = {str(m.STEP.name): m.STEP.output.model_json_schema() for m in modules}
    golden("curate/answers.json", json.dumps(schemas, indent=1, sort_keys=True) + "\n")


# parse


def test_parse_mends_titles_and_single_parts() -> None:
    answer = Outline(
        steps=(
            OutlineStep(title="S1: Begin", parts=("1.1 Only this",)),
            OutlineStep(title="2. Do  it", parts=("2.1: a", " ", "Part 2.2) b", "3.5 apples")),
        )
    )
    mended = parse.mend(answer, CHAIN)
    assert [step.title for step in mended.steps] == ["Begin", "Do it"]
    assert [step.parts for step in mended.steps] == [(), ("a", "b", "3.5 apples")]
    assert [leaf.label for leaf in mended.leaves()] == ["1", "2.1", "2.2", "2.3"]


def test_parse_refuses() -> None:
    assert told(parse.STEP, Outline(steps=()), CHAIN) == ["there are no steps"]
    blank = Outline(steps=(OutlineStep(title="1: ", parts=()),))
    assert told(parse.STEP, blank, CHAIN) == ["step 1 has no title"]
    many = Outline(steps=tuple(OutlineStep(title="a", parts=()) for _ in range(9)))
    (fault,) = told(parse.STEP, many, CHAIN)
    assert fault == "the outline has 9 smallest parts, but there are only 8 sentences"


# group


def test_group_mends_labels_and_drops_single_branches() -> None:
    answer = groups(
        ("collective", [["S2.1"], ["part 2.2"]]),
        ("selective", [["2"]]),
        needs=(*NEEDS[:5], Need(label="step 4", needs=("S2", "4", "3", "3"))),
    )
    mended = group.mend(answer, OUTLINE)
    assert [g.branches for g in mended.groups] == [(("2.1",), ("2.2",))]
    assert mended.needs[-1] == Need(label="4", needs=("2", "3"))
    assert group.faults(mended, OUTLINE) == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (groups(("collective", [["2.1"], ["5"]])), "the outline has no `5`"),
        (groups(needs=NEEDS[:5]), "`needs` has no entry for 4"),
        (
            groups(needs=(Need(label="1", needs=("3",)), *NEEDS[1:])),
            "1 cannot need 3, which comes later",
        ),
        (
            groups(("collective", [["2.2"], ["2.3"]])),
            "group 1: 2.3 needs 2.2, which is in another branch",
        ),
        (
            groups(("collective", [["2.1"], ["3"]])),
            "group 1: its labels are not all steps, or all parts of",
        ),
        (groups(("collective", [["2.1"], ["2.3"]])), "group 1: 2.3 does not stand right behind"),
        (groups(("selective", [["1"], ["2"]])), "group 1: 2.1 needs 1, which is in another branch"),
    ],
)
def test_group_refuses(answer: Groups, fault: str) -> None:
    assert any(f.startswith(fault) for f in told(group.STEP, answer, OUTLINE))


def test_a_step_may_stand_for_its_parts() -> None:
    answer = groups(
        ("collective", [["2"], ["3"]]),
        needs=(NEEDS[0], Need(label="2", needs=("1",)), NEEDS[4], NEEDS[5]),
    )
    assert told(group.STEP, answer, OUTLINE) == []


# arrange


def plan(*blocks: list[tuple[str, str]]) -> Arrangement:
    return Arrangement(
        blocks=tuple(
            BlockPlan(kind="collective", branches=tuple(Range(first=a, last=b) for a, b in block))
            for block in blocks
        )
    )


def grouped(room: Room) -> arrange.ArrangeInput:
    return arrange.ArrangeInput(outline=OUTLINE, groups=groups(), room=room)


def test_arrange_nests() -> None:
    answer = plan([("2", "2"), ("3", "3")], [("2.1", "2.1"), ("2.2", "2.3")], [("1", "1")])
    given = grouped(Room(4, 2))
    mended = arrange.mend(answer, given)
    assert arrange.faults(mended, given) == []
    before, outer, answered = mended.document(OUTLINE)
    assert (before, answered) == (LeafRange(0, 0), LeafRange(5, 5))
    assert [type(node).__name__ for branch in outer.branches for node in branch] == [
        "DocumentBlock",
        "LeafRange",
    ]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (plan(), "there is no block of two branches or more"),
        (plan([("2.1", "2.1"), ("9", "9")]), "block 1: the outline has no `9`"),
        (plan([("2.2", "2.1"), ("2.3", "2.3")]), "block 1: `2.2` stands behind `2.1`"),
        (plan([("2.1", "2.1"), ("3", "3")]), "block 1: its branches do not follow each other"),
        (
            plan([("2.2", "2.2"), ("2.3", "3")]),
            "block 1: 2.3 needs 2.2, which is in another branch",
        ),
        (
            plan([("2.1", "2.1"), ("2.2", "3")], [("2", "2"), ("3", "3")]),
            "two blocks overlap, and neither lies in one branch",
        ),
        (
            plan([("2", "2"), ("3", "3")], [("2.1", "2.1"), ("2.2", "2.3")]),
            "blocks lie 2 deep in each other; at most 1 may",
        ),
    ],
)
def test_arrange_refuses(answer: Arrangement, fault: str) -> None:
    (found,) = told(arrange.STEP, answer, grouped(Room(4, 1)))
    assert found.startswith(fault)


def test_arrange_refuses_too_many_branches() -> None:
    outline = Outline(steps=tuple(OutlineStep(title="a", parts=()) for _ in range(4)))
    needs = tuple(Need(label=str(n), needs=()) for n in range(1, 5))
    given = arrange.ArrangeInput(outline=outline, groups=groups(needs=needs), room=Room(3, 1))
    wide = plan([(str(n), str(n)) for n in range(1, 5)])
    assert told(arrange.STEP, wide, given) == ["block 1: 4 branches are more than 3"]
    assert "A block has 2 to 3 branches" in arrange.ask(given)
    assert "Blocks do not nest" in arrange.ask(given)


# refill

PLANNED = refill.RefillInput(outline=OUTLINE, sentences=8)


def filling(*runs: tuple[str, int, int]) -> Filling:
    return Filling(parts=tuple(Filling.Part(label=n, first=a, last=b) for n, a, b in runs))


WHOLE = [("1", 1, 1), ("2.1", 2, 3), ("2.2", 4, 4), ("2.3", 5, 6), ("3", 7, 7), ("4", 8, 8)]


def test_refill_takes_every_order_of_parts() -> None:
    answer = filling(*reversed(WHOLE))
    assert told(refill.STEP, answer, PLANNED) == []
    assert [part.label for part in refill.mend(answer, PLANNED).parts] == [n for n, _, _ in WHOLE]


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({1: ("2.1", 2, 2)}, ["sentence 3 is in no part"]),
        ({5: ("4", 8, 7)}, ["4 ends at sentence 7, before it begins", "sentence 8 is in no part"]),
        ({0: ("1", 2, 2), 1: ("2.1", 3, 3)}, ["sentence 1 is in no part"]),
        ({4: ("3", 7, 7), 5: ("4", 8, 9)}, ["sentence 9 is in two parts, or out of order"]),
        ({3: ("2.3", 4, 6)}, ["sentence 4 is in two parts, or out of order"]),
        ({4: ("5", 7, 7)}, ["the parts are 1, 2.1, 2.2, 2.3, 5, 4; they must be"]),
    ],
)
def test_a_lost_sentence_is_named(
    changes: dict[int, tuple[str, int, int]], faults: list[str]
) -> None:
    runs = [changes.get(index, run) for index, run in enumerate(WHOLE)]
    found = told(refill.STEP, filling(*runs), PLANNED)
    assert len(found) == len(faults)
    assert all(f.startswith(g) for f, g in zip(found, faults, strict=True))


# write

MULTIVERSE = nprdsl.load("multiverse")
SENTENCES = (
    "We begin. ",
    "Case one gives 3. ",
    "Similarly, case two gives 4.\n\n",
    "The sum is 7.",
)
NODES = arrange.Arrangement(
    blocks=(
        BlockPlan(
            kind="selective", branches=(Range(first="2", last="2"), Range(first="3", last="3"))
        ),
    )
).document(Outline(steps=tuple(OutlineStep(title="a", parts=()) for _ in range(4))))


def draft(schema: nprdsl.Schema = MULTIVERSE, limit: float = 0.5) -> Draft:
    form = form_of(schema.grammar, NODES)
    assert form is not None
    runs = tuple((n, n) for n in range(1, 5))
    return Draft(
        schema=schema,
        problem="Add.",
        sentences=SENTENCES,
        titles=("a",) * 4,
        runs=runs,
        form=form,
        limit=limit,
    )


def wording(**changes: object) -> Wording:
    words = {
        "blocks": (BlockWording(block=1, items=("Find one", "Find two"), conclusion="3 and 4."),),
        "texts": (),
        "edits": (Edit(sentence=3, words="Case two gives 4."),),
    }
    return Wording.model_validate({**words, **changes})


def test_write_makes_a_legal_trace_with_every_sentence() -> None:
    given = draft()
    assert told(write.STEP, wording(), given) == []
    trace = given.trace(wording())
    assert MULTIVERSE.check(trace) == []
    assert [path.text for path in MULTIVERSE.parse(trace).find("path")] == [
        "\n<Path>\n1: Case one gives 3.\n</Path>",
        "\n<Path>\n2: Case two gives 4.\n</Path>",
    ]
    assert given.rewritten(wording())[2] == "Case two gives 4.\n\n"
    assert given.parallel[0].block.kind is BlockKind.SELECTIVE


def test_a_nested_fork_sees_nothing_of_its_aunts() -> None:
    """Of the branches 2.1 and 2.2: what stands before their block, in their own branch too."""
    plans = plan([("1", "2"), ("3", "6")], [("4", "4"), ("5", "5")])
    outline = Outline(steps=tuple(OutlineStep(title="a", parts=()) for _ in range(7)))
    form = form_of(MULTIVERSE.grammar, plans.document(outline))
    assert form is not None
    given = Draft(
        schema=MULTIVERSE,
        problem="Add.",
        sentences=tuple(f"Sentence {n}. " for n in range(1, 8)),
        titles=("a",) * 7,
        runs=tuple((n, n) for n in range(1, 8)),
        form=form,
        limit=0.2,
    )
    words = [BlockWording(block=n, items=("a", "b"), conclusion="c") for n in (1, 2)]
    outer, inner = given.siblings(wording(blocks=tuple(words), edits=()))
    assert [branch.before.split("Sentence ")[1:] for branch in outer] == [[], []]
    assert [branch.before for branch in inner] == ["Add. Sentence 3.  a", "Add. Sentence 3.  b"]
    assert [[n for n, _ in branch.sentences] for branch in outer] == [[1, 2], [3, 4, 5, 6]]
    assert [[n for n, _ in branch.sentences] for branch in inner] == [[4], [5]]


def test_write_drops_what_is_not_wanted() -> None:
    threads = draft(nprdsl.load("threadweaver"))
    (block,) = write.mend(wording(), threads).blocks
    assert block.conclusion == "" and block.items
    paths = draft(nprdsl.load("parallel_r1"))
    (block,) = write.mend(wording(), paths).blocks
    assert block.items == () and block.conclusion
    same = wording(edits=(Edit(sentence=2, words=" Case one gives 3."),))
    assert write.mend(same, draft()).edits == ()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"blocks": ()}, "`blocks` is about none; it must be about 1, once each"),
        (
            {"blocks": (BlockWording(block=1, items=("a",), conclusion="c"),)},
            "block 1 has 1 items for 2 branches",
        ),
        (
            {"blocks": (BlockWording(block=1, items=("a", " "), conclusion="c"),)},
            "item 2 of block 1 is empty",
        ),
        (
            {"blocks": (BlockWording(block=1, items=("a", "b"), conclusion=""),)},
            "the conclusion of block 1 is empty",
        ),
        (
            {"blocks": (BlockWording(block=1, items=("a", "</Path>"), conclusion="c"),)},
            "item 2 of block 1 holds the tag `</Path>`",
        ),
        ({"texts": (Text(text=1, words="a"),)}, "`texts` has 1; it must have none, once each"),
        (
            {"edits": (Edit(sentence=1, words="a"),)},
            "sentence 1 has no sibling; it must stay as it is",
        ),
        ({"edits": (Edit(sentence=9, words="a"),)}, "there is no sentence 9"),
        (
            {"edits": (Edit(sentence=2, words="a"), Edit(sentence=2, words="b"))},
            "sentence 2 is rewritten twice",
        ),
        (
            {"edits": (Edit(sentence=2, words="<Goal>"),)},
            "the new sentence 2 holds the tag `<Goal>`",
        ),
        ({"edits": ()}, "sentence 3 opens branch 2 of block 1 with `Similarly`"),
    ],
)
def test_write_refuses(changes: dict[str, object], fault: str) -> None:
    assert any(f.startswith(fault) for f in told(write.STEP, wording(**changes), draft()))


def test_write_keeps_near_the_chain() -> None:
    far = wording(
        edits=(Edit(sentence=3, words="In the second case the value comes out as four."),)
    )
    (fault,) = told(write.STEP, far, draft(limit=0.2))
    assert "away from the chain, and 0.2 is the limit" in fault
    assert told(write.STEP, wording(), draft(limit=0.2)) == []


def test_write_asks_for_what_the_schema_has_a_place_for() -> None:
    asked = write.ask(draft())
    assert "- block 1: 2 items and a conclusion" in asked
    assert "(sentences 2 to 3)" in asked
    assert "block 1 (2 branches, selective)" in asked
    assert "- block 1: 2 items\n" in write.ask(draft(nprdsl.load("threadweaver")))
    assert "- block 1: a conclusion\n" in write.ask(draft(nprdsl.load("parallel_r1")))
