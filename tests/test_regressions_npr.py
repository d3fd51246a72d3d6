"""Faults of the public NPR code that this language must not share.

The numbers are those of our list of faults found in the reference implementation of Native Parallel
Reasoner (arXiv 2512.07461); each test says what was wrong there.
"""

from __future__ import annotations

from functools import cache

import pytest

from nprdsl.schema import Schema, load
from nprdsl.structure.violations import ViolationCode as Code
from nprdsl.testing import byte_vocabulary, tokenise

STEP_1 = "\n<step>\n1:four</step>"
STEP_2 = "\n<step>\n2:five</step>"
GUIDELINE = "<guideline>\n<plan>1:2+2</plan>\n<plan>2:2+3</plan>\n</guideline>"
TAKEAWAY = "\n<takeaway>\nboth done</takeaway>"
ANSWER = "\nThe answer is \\boxed{9}."
LEGAL = GUIDELINE + STEP_1 + STEP_2 + TAKEAWAY + ANSWER


@cache
def npr() -> Schema:
    return load("npr")


def codes(text: str) -> list[Code]:
    return [violation.code for violation in npr().check(text)]


def test_the_trace_that_the_others_are_made_from_is_legal() -> None:
    assert codes(LEGAL) == []


def test_n17_a_branch_that_was_cut_off_is_not_merged_silently() -> None:
    """There a step that ended at the length limit was joined and `<takeaway>` forced behind it."""
    cut = GUIDELINE + STEP_1 + STEP_2.removesuffix("</step>") + TAKEAWAY + ANSWER
    assert codes(cut)[0] is Code.UNCLOSED


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (("1", "1"), Code.DUPLICATE_LABEL),
        (("1", ""), Code.BAD_VALUE),
        (("1", "0"), Code.BAD_VALUE),
        (("1", "x"), Code.BAD_VALUE),
    ],
)
def test_n18_labels_are_checked(labels: tuple[str, str], code: Code) -> None:
    """There `1: 1: 3:` passed, and a plan without a label was silently not executed."""
    first, second = labels
    text = LEGAL.replace("<plan>1:", f"<plan>{first}:").replace("<plan>2:", f"<plan>{second}:")
    text = text.replace("<step>\n2:", f"<step>\n{second}:")
    assert codes(text)[0] is code


def test_n18_a_plan_without_a_label_is_refused() -> None:
    assert codes(LEGAL.replace("<plan>2:2+3", "<plan>2+3"))[0] is Code.BAD_VALUE


def test_n18_a_step_under_another_label_is_refused() -> None:
    (violation,) = npr().check(LEGAL.replace("<step>\n2:", "<step>\n3:"))
    assert violation.code is Code.LABEL_MISMATCH
    assert (violation.line, violation.column, violation.rule) == (8, 1, "step")


def test_n18_a_gap_in_the_numbers_is_legal_when_both_sides_agree() -> None:
    gap = LEGAL.replace("<plan>2:", "<plan>3:").replace("<step>\n2:", "<step>\n3:")
    assert codes(gap) == []


NESTED_BLOCK = (
    "<Parallel>\n<Goal>\n<Outline>1:a</Outline>\n</Goal>\n<Path>\n1:{}</Path>\n"
    "<Conclusion>\nc</Conclusion>\n</Parallel>"
)


def test_n27_nested_blocks_have_one_answer() -> None:
    """There four components gave three answers: refuse, raise, count, or fork to depth 5."""
    block = LEGAL.removesuffix(ANSWER)
    assert codes(LEGAL.replace("1:four", f"1:{block}"))[0] is Code.TAG_OUT_OF_PLACE
    multiverse = load("multiverse")
    nested = NESTED_BLOCK.format("see " + NESTED_BLOCK.format("inner") + " so")
    text = f"Think. {nested} Done."
    assert multiverse.check(text) == []
    assert len(multiverse.parse(text).find("block")) == 2


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        pytest.param("just prose", {Code.MISSING_ELEMENT}, id="no block at all"),
        pytest.param(
            GUIDELINE + STEP_1 + TAKEAWAY + ANSWER, {Code.COUNT_MISMATCH}, id="2 plans, 1 step"
        ),
        pytest.param(
            "<guideline>\n</guideline>" + STEP_1 + TAKEAWAY + ANSWER,
            {Code.MISSING_ELEMENT},
            id="guideline without plans",
        ),
        pytest.param(
            "<plan>1:2+2</plan>\n" + LEGAL,
            {Code.MISSING_ELEMENT, Code.TAG_OUT_OF_PLACE},
            id="plan outside a guideline",
        ),
        pytest.param(
            GUIDELINE + STEP_1 + STEP_2 + ANSWER,
            {Code.MISSING_ELEMENT, Code.STRAY_TEXT},
            id="no takeaway",
        ),
        pytest.param(
            (STEP_1 + STEP_2 + ANSWER).lstrip(),
            {Code.MISSING_ELEMENT},
            id="two bare steps",
        ),
        pytest.param(
            LEGAL.replace("1:four", "1:<step>\n1:x</step>"),
            {Code.TAG_OUT_OF_PLACE, Code.UNCLOSED, Code.EMPTY_TEXT},
            id="step inside step",
        ),
        pytest.param(LEGAL.replace("\n</guideline>", ""), {Code.UNCLOSED}, id="unclosed guideline"),
        pytest.param(LEGAL.replace("four</step>", "four"), {Code.UNCLOSED}, id="unclosed step"),
    ],
)
def test_n28_what_the_filter_kept_is_refused(text: str, allowed: set[Code]) -> None:
    """There the filter that promised legal traces kept the first six of these."""
    assert codes(text)[:1] and codes(text)[0] in allowed


@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
def test_n29_tags_in_the_prompt_are_not_structure(special: bool) -> None:
    """There the scan began at the first end-of-turn mark, so a prompt could be read as trace."""
    schema = npr()
    bound = schema.bind(byte_vocabulary(special=schema.tags if special else ()))
    trace = tokenise(schema.grammar, bound.vocabulary, LEGAL)
    prompt = tokenise(schema.grammar, bound.vocabulary, "Use <step> and </guideline> as in <plan>.")
    assert trace is not None and prompt is not None
    ids = [*prompt, *trace]
    assert bound.check(ids, prompt=len(prompt)) == []
    parsed = bound.parse(ids, prompt=len(prompt))
    assert parsed.text == LEGAL
    assert [step.start for step in parsed.find("step")] == [
        LEGAL.index(STEP_1),
        LEGAL.index(STEP_2),
    ]
    assert not parsed.sampled[: len(prompt)].any()


@pytest.mark.parametrize(
    "changed",
    [
        ("1:2+2</plan>", "1:</plan>"),
        ("1:four", "1:"),
        ("both done", " \n"),
    ],
    ids=["plan", "step", "takeaway"],
)
def test_n30_every_element_is_checked_by_its_own_rule(changed: tuple[str, str]) -> None:
    """There a check of the plan was run for step and takeaway too: the wrong variable."""
    assert codes(LEGAL.replace(*changed)) == [Code.EMPTY_TEXT]


def test_n30_text_must_stand_behind_the_last_takeaway() -> None:
    """There the check of the answer was skipped when nothing followed the last takeaway."""
    assert codes(LEGAL.removesuffix(ANSWER)) == [Code.EMPTY_TEXT]


def test_n33_a_tag_spelled_as_text_is_never_structure() -> None:
    """There the eight tags in a user's text became the real special tokens."""
    schema = npr()
    bound = schema.bind(byte_vocabulary(special=schema.tags))
    vocabulary = bound.vocabulary
    spelled = vocabulary.spell(b"</step>")
    assert spelled is not None
    trace = tokenise(schema.grammar, vocabulary, LEGAL)
    assert trace is not None
    closer = vocabulary.special["</step>"]
    place = trace.index(closer)
    forged = [*trace[:place], *spelled, *trace[place + 1 :]]
    assert bound.check(forged) != []
    matcher = bound.matcher()
    for token in trace[:place]:
        matcher.advance(token)
    for token in spelled[:-1]:
        matcher.advance(token)
    last = spelled[-1]
    assert not int(matcher.mask()[last // 32]) >> (last % 32) & 1, "text completed a tag"
