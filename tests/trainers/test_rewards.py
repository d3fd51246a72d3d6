"""Rewards and their reasons: the golden table, what legal traces get, what each term adds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nprdsl
from nprdsl.schema import Schema
from nprdsl.structure.violations import ViolationCode
from nprdsl.testing import mutated, traces
from nprdsl.trainers.rewards import Reward
from nprdsl.trainers.rewards.branches import copied_branches
from nprdsl.trainers.rewards.format import NPR, NPR_BOXED, Counting, Penalty, format_reward
from nprdsl.trainers.rewards.presets import PRESETS, GradedTrace, judge_text
from nprdsl.trainers.rewards.roles import RuleRole, Wrapper, roles_of, wrapper_of

GOLDEN = Path(__file__).parent / "rewards.json"
TABLE = json.loads(GOLDEN.read_text(encoding="utf-8"))
SCHEMAS = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith")


def of_text(schema: Schema, text: str) -> Reward:
    return format_reward(schema.grammar, text, schema.check(text))


def test_the_table_has_sixty_texts() -> None:
    assert len(TABLE) == 60 and len({entry["text"] for entry in TABLE}) == 60


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["case"])
def test_golden_scores(entry: dict[str, object]) -> None:
    found = of_text(nprdsl.load(str(entry["schema"])), str(entry["text"]))
    assert found.score == pytest.approx(entry["score"])
    assert [[reason.name, reason.score] for reason in found.reasons] == entry["reasons"]
    assert all(reason.why for reason in found.reasons)


@pytest.mark.parametrize("name", SCHEMAS)
def test_legal_traces_cost_nothing_and_faults_do(name: str) -> None:
    schema = nprdsl.load(name)

    @settings(max_examples=15, deadline=None)
    @given(traces(schema))
    def legal(text: str) -> None:
        found = format_reward(schema, text, preset=replace(NPR, shortest={}))
        assert found.score == 0 and not found.reasons

    @settings(max_examples=15, deadline=None)
    @given(mutated(schema))
    def faulty(mutation) -> None:  # type: ignore[no-untyped-def]
        found = of_text(schema, mutation.text)
        assert NPR.least <= found.score < 0 and found.reasons

    legal()
    faulty()


def test_roles_are_those_of_the_blocks() -> None:
    roles = roles_of(nprdsl.load("npr").grammar)
    assert roles == {
        "guideline": RuleRole.LIST,
        "plan": RuleRole.ITEM,
        "step": RuleRole.BRANCH,
        "takeaway": RuleRole.JOIN,
    }


def test_a_penalty_must_cost_something() -> None:
    with pytest.raises(ValueError, match="must be negative"):
        Penalty(ViolationCode.UNCLOSED, 0.0)
    assert Penalty(ViolationCode.UNCLOSED, -1.0).counting is Counting.ONCE


# -- whole rewards


LEGAL = (
    "<guideline>\n<plan>1: a</plan>\n<plan>2: b</plan>\n</guideline>\n<step>\n1: aaaa</step>"
    "\n<step>\n2: bbbb</step>\n<takeaway>\nboth of them</takeaway>\n\\boxed{7}"
)
FAULTY = LEGAL.replace("<step>\n2: bbbb</step>", "")


def judged(text: str, *, right: bool) -> GradedTrace:
    return judge_text(nprdsl.load("npr"), text, "7", right=right)


@pytest.mark.parametrize(
    ("preset", "text", "right", "score"),
    [
        ("zero", LEGAL, True, 1.0),
        ("zero", LEGAL, False, -1.0),
        ("zero", FAULTY, True, -1.0),
        ("papo", LEGAL, True, 1.0),
        ("papo", FAULTY, False, -1.0),
        ("threadweaver", LEGAL, False, 0.0),
        ("threadweaver", FAULTY, True, 0.0),
        ("parallel_r1", LEGAL, True, 1.3 + 0.6 * math.log(2)),
        ("parallel_r1", LEGAL, False, -0.7 - 0.1 * math.log(2)),
        ("parallel_r1", FAULTY, True, 0.7),
    ],
)
def test_whole_rewards(preset: str, text: str, right: bool, score: float) -> None:
    found = PRESETS[preset](judged(text, right=right))
    assert found.score == pytest.approx(score)
    assert found.score == pytest.approx(sum(reason.score for reason in found.reasons))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_trace_that_was_cut_off_after_an_answer_has_a_reward(preset: str) -> None:
    """It breaks no rule, but has no graph: the end token was not sampled."""
    cut = replace(judged(LEGAL, right=False), graph=None)
    assert PRESETS[preset](cut).score <= 0


def test_threadweaver_pays_for_what_runs_in_parallel() -> None:
    case = judged(LEGAL, right=True)
    assert case.graph is not None
    path = case.graph.critical_path + len("\n<step></step>")
    saved = 1 - path / case.graph.tokens
    assert 0 < saved < 0.2
    assert PRESETS["threadweaver"](case).score == pytest.approx(1 + 0.5 * saved)
    wide = LEGAL.replace("aaaa", "a" * 400).replace("bbbb", "b" * 400)
    assert PRESETS["threadweaver"](judged(wide, right=True)).score == pytest.approx(1.1)


# -- what is not paid


WORK = "2+3=5 so the answer is 5, as asked in the problem."
LONG = "First multiply 12 by 7 to get 84, then subtract 9, which leaves 75 apples in the basket."


def with_steps(*steps: str, plan: str = "solve it") -> str:
    plans = "".join(f"<plan>{n}: {plan}</plan>\n" for n in range(1, len(steps) + 1))
    written = "".join(f"\n<step>\n{n}: {step}\n</step>" for n, step in enumerate(steps, 1))
    head = f"<guideline>\n{plans}</guideline>{written}"
    return f"{head}\n<takeaway>\nso it is five\n</takeaway>\n\\boxed{{7}}"


COPIES = {
    "a number more": (WORK, f"{WORK} 7", f"Case 3: {WORK}"),
    "clauses in another order": (WORK, "The answer is 5, as asked in the problem, so 2+3=5."),
    "number words": (WORK, WORK.replace("2+3=5", "two plus three equals five")),
    "other letters": (WORK, WORK.replace("5", "\uff15").replace("answer", "ans\u200bwer")),
    "and something behind": (WORK, f"{WORK} That is right and needs no more checks."),
    "other lines": (WORK, WORK.replace(" ", "\n")),
    "same": (WORK, WORK, WORK),
    "case and marks": (WORK, WORK.upper(), WORK.replace(",", ";")),
    "without spaces": (
        "\u6211\u4eec\u7b97\u7ea2\u82f9\u679c\u7684\u6570: 2+3=5\u3002",
        "\u6211\u4eec\u7b97\u7ea2\u82f9\u679c\u7684\u603b\u6570: 2+3=5\u3002",
    ),
    "misspelled": (
        LONG,
        LONG.replace("multiply", "mulitply").replace("apples", "aples").replace("which", "wich"),
    ),
    "a word between all words": (LONG, " um ".join(LONG.split())),
    "twice": (LONG, f"{LONG} {LONG}"),
    "twice and twice": (f"{LONG} {LONG}", f"{LONG} {LONG} {LONG} {LONG} {LONG}"),
    "Cyrillic letters": (LONG, LONG.replace("a", "\u0430").replace("e", "\u0435")),
    "only marks": (WORK, "- - - - - - - - !", "................"),
    "nothing that is seen": (WORK, "\u200b" * 12),
    "its first half": (LONG, LONG[: len(LONG) // 2]),
    "cut in a word": (LONG, LONG[:40]),
    "checked at length": (
        LONG,
        f"{LONG} Let me check it once more, from its beginning on, so that "
        "nothing is wrong: 12 by 7 is 84, less 9 it is 75, and 75 it is, as it was before.",
    ),
    "and as much again": (
        LONG,
        f"{LONG} Each of them weighs 150 grams, so that all of them weigh "
        "11250 grams, for which somebody pays 33.75 euros where a kilogram costs 3.",
    ),
    "words in no order": (LONG, " ".join(reversed(LONG.split()))),
    "letter by letter": (LONG, " ".join(LONG)),
    "nothing between letters": (LONG, "\u200d".join(LONG), "\u00ad".join(LONG)),
    "accents": (LONG, "".join(f"{c}\u0301" if c.isalpha() else c for c in LONG)),
    "Greek letters": (LONG, LONG.replace("o", "\u03bf").replace("a", "\u03b1")),
    "hyphens": (LONG, LONG.replace(" ", "-")),
    "larger number words": (LONG, LONG.replace("84", "eighty-four").replace("75", "seventy five")),
    "other decimals": (LONG, LONG.replace("84", "84.0").replace("75", "75.00").replace("9", "09")),
    "a list": (LONG, "\n".join(f"{n}) {word}" for n, word in enumerate(LONG.split(), 1))),
    "a word more": (WORK, WORK.replace("answer", "final answer"), f"Well: {WORK}"),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("preset", ["threadweaver", "parallel_r1"])
def test_copies_of_a_branch_earn_no_more_than_it(preset: str, name: str) -> None:
    one = PRESETS[preset](judged(with_steps(WORK), right=True))
    many = PRESETS[preset](judged(with_steps(*COPIES[name]), right=True))
    assert many.score <= one.score + 1e-9
    if preset == "threadweaver":
        assert "in branches that repeat another" in many.reasons[-1].why


@pytest.mark.parametrize("preset", ["threadweaver", "parallel_r1"])
def test_a_block_of_one_branch_earns_what_the_answer_does(preset: str) -> None:
    assert PRESETS[preset](judged(with_steps(WORK), right=True)).score <= 1.0


@pytest.mark.parametrize("preset", ["threadweaver", "parallel_r1"])
def test_the_same_way_of_working_with_other_numbers_is_no_copy(preset: str) -> None:
    steps = [f"{n} rows of {n + 4} seats: {n} * {n + 4} = {n * (n + 4)} seats." for n in (3, 5, 8)]
    assert copied_branches(nprdsl.load("npr").grammar, with_steps(*steps)) == [[False] * 3]
    one = PRESETS[preset](judged(with_steps(steps[0]), right=True)).score
    assert PRESETS[preset](judged(with_steps(*steps), right=True)).score > one


DIFFERENT = {
    "another operation": ("3+4=7", "3*4=12"),
    "the other way round": ("3-2=1", "2-3=-1"),
    "another sign": ("Factor x^2 - 1 over the reals.", "Factor x^2 + 1 over the reals."),
    "two cases": (
        "If x > 0 then |x| = x, so x + 2 = 5 and x = 3.",
        "If x < 0 then |x| = -x, so -x + 2 = 5 and x = -3.",
    ),
    "two substitutions": (
        "Put x = 1: 1^2 + 3*1 + 2 = 6, which is even.",
        "Put x = 2: 2^2 + 3*2 + 2 = 12, which is even.",
    ),
    "two events": ("P(A|B) is asked.", "P(B|A) is asked."),
    "two names": ("We count the red cars first.", "We count the blue buses first."),
    "without spaces": (
        "\u7ea2\u82f9\u679c\u6709\u5341\u4e8c\u4e2a",
        "\u84dd\u6c7d\u8f66\u6709\u4e09\u8f86",
    ),
    "other bounds": ("If x \u2264 3 then we go left.", r"If x \ge 3 then we go left."),
    "two names in a longer text": (
        "We count the red cars that stand in the first row of the car park.",
        "We count the old buses that stand in the other row of the car park.",
    ),
    "another result": ("2+3=5 so it is 5", "2+4=6 so it is 6"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_work_is_no_copy(name: str) -> None:
    found = copied_branches(nprdsl.load("npr").grammar, with_steps(*DIFFERENT[name]))
    assert found == [[False, False]]


@given(st.permutations(["red", "blue", "green", "old", "new", "small", "large", "round"]))
def test_a_branch_is_a_copy_of_itself_and_of_no_shorter_half(words: list[str]) -> None:
    grammar, text = nprdsl.load("npr").grammar, " ".join(words)
    half = " ".join(words[:4])
    assert copied_branches(grammar, with_steps(text, text)) == [[False, True]]
    assert copied_branches(grammar, with_steps(text, half)) == [[False, False]]


# -- threads, as ThreadWeaver counts them


def woven(threads: list[str]) -> str:
    outlines = "".join(f"<Outline>{n}: do</Outline>\n" for n in range(1, len(threads) + 1))
    written = "".join(f"\n<Thread>\n{n}:{t}</Thread>" for n, t in enumerate(threads, 1))
    block = f"<Parallel>\n<Outlines>\n{outlines}</Outlines>{written}\n</Parallel>"
    return f"<think>Let us see.{block}</think>\nIt is \\boxed{{7}}."


@given(st.lists(st.integers(1, 10**40), min_size=2, max_size=6, unique=True))
def test_all_but_the_text_of_threads_is_sequential(numbers: list[int]) -> None:
    """The rule of the public code, on characters: what stands in no thread is counted whole."""
    text = woven([f" {n} {n}" for n in numbers])
    inside = [len(part.partition("</Thread>")[0]) for part in text.split("<Thread>")[1:]]
    longest = len(text) - sum(inside) + max(inside)
    found = PRESETS["threadweaver"](judge_text(nprdsl.load("threadweaver"), text, "7", right=True))
    assert found.score == pytest.approx(1 + 0.5 * min(1 - longest / len(text), 0.2))


def test_what_stands_around_a_branch() -> None:
    assert wrapper_of(nprdsl.load("threadweaver").grammar) == Wrapper(3, len("\n<Thread></Thread>"))
    assert wrapper_of(nprdsl.load("arith").grammar).tokens == 2


# -- a missing box


@pytest.mark.parametrize(
    ("tail", "score"),
    [
        (r"\boxed{7}", 0.0),
        (r"so \boxed{7}.", 0.0),
        ("so it is 7", -1.0),
        (r"\boxed{}", -1.0),
        (r"\boxed{7} \boxed{ }", -1.0),
        (r"\boxed{7", -1.0),
    ],
)
def test_a_missing_box_costs_where_that_is_asked_for(tail: str, score: float) -> None:
    schema, text = nprdsl.load("npr"), LEGAL.replace(r"\boxed{7}", tail)
    assert format_reward(schema, text, preset=NPR_BOXED).score == score
    assert format_reward(schema, text).score == 0.0
    assert PRESETS["zero_boxed"](judged(text, right=True)).score == (score or 1.0)


def test_a_box_within_the_block_is_no_answer() -> None:
    text = LEGAL.replace(r"\boxed{7}", "it is 7").replace("bbbb", r"\boxed{7}")
    assert format_reward(nprdsl.load("npr"), text, preset=NPR_BOXED).score == -1.0


def test_copies_are_found_among_branches_that_are_as_deep() -> None:
    schema = nprdsl.load("arith")
    text = (
        "<guideline><plan>1:a</plan><plan>2:b</plan></guideline>"
        "<step>1:<guideline><plan>1:c</plan><plan>2:d</plan></guideline>"
        "<step>1:x7</step><step>2:x7</step><takeaway>t</takeaway>u</step>"
        "<step>2:y8</step><takeaway>v</takeaway>w"
    )
    assert copied_branches(schema.grammar, text) == [[False, False], [False, True]]


@pytest.mark.parametrize("preset", ["threadweaver", "parallel_r1"])
def test_the_same_block_again_earns_nothing(preset: str) -> None:
    one = with_steps(WORK, LONG)
    twice = one.replace(r"\boxed{7}", one)
    found = copied_branches(nprdsl.load("npr").grammar, twice)
    assert found == [[False, False], [True, True]]
    scores = [PRESETS[preset](judged(text, right=True)).score for text in (one, twice)]
    assert scores[1] <= scores[0]


def test_of_a_branch_and_a_passage_of_it_the_passage_is_the_copy() -> None:
    more = f"{LONG} Each of them weighs 150 grams, so that all of them weigh 11250 grams."
    grammar = nprdsl.load("npr").grammar
    assert copied_branches(grammar, with_steps(LONG, more, WORK)) == [[True, False, False]]
    assert copied_branches(grammar, with_steps(more, WORK, LONG)) == [[False, False, True]]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (with_steps(WORK, WORK), 0.0),
        (with_steps(".", WORK), -0.4),
        (with_steps("\u200b" * 9 + "ab", WORK), -0.4),
        (with_steps("a b c", WORK), -0.4),
        (with_steps("a b c d", WORK), 0.0),
        (with_steps(".", "."), -0.8),
        (with_steps(WORK, plan=""), None),
        (with_steps(WORK).replace("so it is five", "."), -0.4),
        (with_steps(".", ".").replace("so it is five", "."), -1.2),
        (with_steps(*"." * 5).replace("so it is five", "."), -2.0),
    ],
)
def test_elements_that_hold_next_to_nothing_cost(text: str, score: float | None) -> None:
    found = format_reward(nprdsl.load("npr"), text)
    assert found.score == pytest.approx(score) if score is not None else found.score < 0


def test_zero_pays_no_answer_behind_elements_that_hold_nothing() -> None:
    assert PRESETS["zero"](judged(with_steps(".", "."), right=True)).score == pytest.approx(-0.8)
