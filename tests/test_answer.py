"""The answer of a trace: what the schema marks as it, without tags, in every schema that ships."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest

import nprdsl
from nprdsl.schema import shipped
from nprdsl.testing import byte_vocabulary
from nprdsl.trainers.grading.answers import Fallback, answer_of
from nprdsl.trainers.grading.grading import is_right
from tests.walks import schema_of

PARALLEL = "%import .parallel (map, process, spawn, reduce)\n%declare TEXT\n"
BLOCK = (
    'block: spawn{path}~2 reduce{end}\npath: "<p>" TEXT "</p>"\nend: "<e>" TEXT "</e>"\n' + PARALLEL
)
BRANCHES = "<p>1</p><p>2</p><e>both</e>"


GRAMMARS = Path(str(resources.files("nprdsl") / "grammars"))
TYPES = {"triage": {"VERDICT": r"\{.*\}", "DECISION": "[a-z]+"}}


def examples() -> list[tuple[str, str]]:
    rows = (
        (name, line)
        for name in shipped()
        for line in (GRAMMARS / f"{name}.examples.jsonl").read_text().splitlines()
    )
    return [(name, json.loads(line)["trace"]) for name, line in rows]


@pytest.mark.parametrize(("name", "text"), examples())
def test_every_schema_that_ships_has_an_answer(name: str, text: str) -> None:
    """In all of them the last words of a trace are its answer."""
    schema = nprdsl.load(name, TYPES.get(name))
    answer = schema.parse(text).answer
    assert answer == re.split("|".join(schema.tags), text.removesuffix("\n</takeaway>"))[-1].strip()
    bound = schema.bind(byte_vocabulary(special=schema.tags))
    assert bound.parse(bound.encode(text)).answer == answer


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("multiverse", "just prose", "just prose"),
        ("threadweaver", "<think>hm</think>\n42", "42"),
        (
            "parallel_r1",
            "q<Parallel>\n<Path>a</Path>\n<Path>b</Path>\n</Parallel>\n<Summary>s</Summary>\n",
            "s",
        ),
    ],
)
def test_a_trace_without_words_behind_its_blocks(name: str, text: str, answer: str) -> None:
    assert nprdsl.load(name).parse(text).answer == answer


@pytest.mark.parametrize(
    ("start", "text", "answer"),
    [
        (
            'block answer VALUE\nanswer: "<a>" TEXT "</a>"\nVALUE: /[0-9]/\n',
            f"{BRANCHES}<a> 7 </a>9",
            "7",
        ),
        ('answer block\nanswer: "<a>" TEXT "</a>"\n', f"<a>7</a>{BRANCHES}", "7"),
        (
            'answer+\nanswer: "<a>" TEXT "</a>" block\n',
            f"<a>1</a>{BRANCHES}<a>2</a>{BRANCHES}",
            "both",
        ),
        ('block "<a>" ANSWER "</a>" TEXT\nANSWER: /[0-9]+/\n', f"{BRANCHES}<a>12</a>sure", "12"),
        ('"<q>" TEXT "</q>" block TEXT', f"<q>so</q>{BRANCHES} it is 9 ", "it is 9"),
        (
            'block answer\nanswer: "<a>" TEXT "</a>" "<b>" TEXT "</b>"\n',
            f"{BRANCHES}<a>1</a><b>2</b>",
            "12",
        ),
    ],
)
def test_the_rule_answer_or_the_last_words_of_the_trunk(start: str, text: str, answer: str) -> None:
    assert schema_of(f"start: {start}\n{BLOCK}").parse(text).answer == answer


def test_an_answer_inside_a_branch_is_not_that_of_the_trace() -> None:
    schema = schema_of(
        "%import .parallel (spawn, reduce)\n%declare TEXT\nstart: spawn{path}~2 reduce{end}\n"
        'path: "<p>" answer "</p>"\nanswer: "<a>" TEXT "</a>"\nend: "<e>" TEXT "</e>"\n'
    )
    assert schema.parse("<p><a>1</a></p><p><a>2</a></p><e>3</e>").answer == "3"


def test_graders_look_at_the_answer_first() -> None:
    text = r"<answer>\boxed{7}</answer> not \boxed{8}"
    assert answer_of(text) == "8"
    assert answer_of(text, marked=r"\boxed{7}") == "7"
    assert answer_of(text, marked="seven") == "8"
    assert answer_of("7 <step>8</step>", Fallback.LAST_NUMBER, "7") == "7"
    assert answer_of("it is 8", Fallback.LAST_NUMBER, "it is") == "8"
    assert is_right(text, "7", marked=r"\boxed{7}") and not is_right(text, "7")
