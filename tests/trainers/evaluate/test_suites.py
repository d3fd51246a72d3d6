"""Suites by name: what ships, what is generated, what needs a source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nprdsl.trainers.curriculum.arithmetic import held_out
from nprdsl.trainers.data.sources import SourceError
from nprdsl.trainers.evaluate import suites
from nprdsl.trainers.evaluate.suites import SuiteError, from_source, named


@pytest.mark.parametrize(
    ("name", "count"),
    [("aime25", 30), ("amc23", 40), ("hmmt25", 30), ("math500", 500), ("arith", 500)],
)
def test_suites_that_are_there(name: str, count: int) -> None:
    suite = named(name)
    assert (suite.name, len(suite.problems), suite.rejected) == (name, count, ())
    assert named(name).digest == suite.digest
    assert suite.first(7).problems == suite.problems[:7]
    assert suite.first(7).digest != suite.digest


@pytest.mark.parametrize("name", ["aime24", "minerva", "olympiadbench", "zebralogic"])
def test_suites_that_need_a_source_say_so(name: str) -> None:
    with pytest.raises(SuiteError, match=f"the problems of `{name}` do not ship; .*: {name}=PATH"):
        named(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [("aime", "did you mean `aime2"), ("xyz", "the suites are aime24, aime25, amc23, arith")],
)
def test_suites_that_are_not_known(name: str, said: str) -> None:
    with pytest.raises(SuiteError, match=f"there is no suite `{name}`; {said}"):
        named(name)


def test_problems_of_the_user(tmp_path: Path) -> None:
    rows = [{"q": "1+1?", "a": 2}, {"q": "2+2?"}]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    suite = from_source("aime24", str(path), prompt_field="q", answer_field="a")
    assert [problem.prompt for problem in suite.problems] == ["1+1?"]
    assert len(suite.rejected) == 1
    assert suite.account().startswith(f"{path}: 1 problem; 1 row rejected\n  {path}:2: ")
    with pytest.raises(SourceError):
        from_source("aime24", str(path))


def test_every_name_is_of_one_kind() -> None:
    names = [*suites.GENERATED, *suites.SHIPPED, *suites.ELSEWHERE]
    assert len(set(names)) == len(names) == 17


def test_the_task_of_the_bundled_model_is_generated() -> None:
    suite = named("arith")
    assert suite.problems == held_out() and len(suite.problems) == 500
    assert suite.first(20).digest != suite.digest == named("arith").digest
    parts = {problem.prompt.count("*") for problem in named("arith-long").problems}
    assert parts == {9, 10, 11, 12}
