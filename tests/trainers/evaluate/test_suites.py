"""Suites by name: what ships, what is generated, what needs a source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nprdsl.trainers.data.sources import SourceError
from nprdsl.trainers.evaluate import suites
from nprdsl.trainers.evaluate.suites import SuiteError, from_source, named
from nprdsl.trainers.evaluate.sums import sums


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
    assert len(set(names)) == len(names) == 9


def test_sums_are_what_the_bundled_model_learned() -> None:
    part = r"\d\d[+-]\d\d|\d\d\*[2-9]"
    for problem in sums(300, seed=1):
        assert re.fullmatch(rf"(?:{part})(?: \+ (?:{part})){{1,3}}\?", problem.prompt)
        value = eval(problem.prompt.removesuffix("?"))
        assert problem.answer == str(value)
        for one in problem.prompt.removesuffix("?").split(" + "):
            assert eval(one) >= 0


def test_sums_repeat_and_differ() -> None:
    assert sums(50) == sums(80)[:50]
    assert sums(50, seed=1) != sums(50)
    assert len({problem.id for problem in sums(500)}) == 500
    assert {problem.prompt.count(" + ") for problem in sums(100)} == {1, 2, 3}
