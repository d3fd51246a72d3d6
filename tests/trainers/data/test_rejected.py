"""Bad rows are listed, all of them; sources that cannot be read are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.data.problems import Problem, TraceExample, read_problems
from nprdsl.trainers.data.sources import SourceError
from tests.trainers.data.test_problems import ROWS, write

# -- bad rows --------------------------------------------------------------------------------------

BAD = [
    ("{broken", "the line is not JSON"),
    (b'{"prompt": "\xff", "answer": 1}', "the line is not UTF-8"),
    ("17", "the row is of type int, not an object with fields"),
    ('"text"', "the row is of type str, not an object with fields"),
    ("[" * 100_000, "the line is not JSON"),
    ('{"answer": 1}', "the prompt is missing"),
    ('{"prompt": " ", "answer": 1}', "the prompt is blank"),
    ('{"prompt": 3, "answer": 1}', "the prompt is of type int, not a text"),
    ('{"prompt": "a"}', "the answer is missing"),
    ('{"prompt": "a", "answer": null}', "the answer is missing"),
    ('{"prompt": "a", "answer": ""}', "the answer is blank"),
    ('{"prompt": "a", "answer": true}', "the answer is True, neither a text nor a number"),
    ('{"prompt": "a", "answer": NaN}', "the answer is nan, not a number"),
    ('{"prompt": "a", "answer": []}', "the answer is an empty list"),
    ('{"prompt": "a", "answer": {}}', "the answer is of type dict, not a text"),
    ('{"prompt": "a", "answer": "C", "choices": ["x"]}', "the answer `C` is none of the 1 choices"),
    ('{"prompt": "a", "answer": "A", "choices": "x"}', "the choices are of type str, not a list"),
    ('{"prompt": "a", "answer": 1, "id": "good"}', "the id `good` stands at"),
    ('{"prompt": "a", "answer": 1, "id": ""}', "the id is blank"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_row_is_listed_with_its_place(line: str | bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    data = line if isinstance(line, bytes) else line.encode()
    good = b'{"prompt": "fine", "answer": 1, "id": "good", "choices": null}\n\n'
    path.write_bytes(good + data + b"\n" + good.replace(b'"good"', b'"other"'))
    loaded = read_problems(path)
    assert [problem.id for problem in loaded.problems] == ["good", "other"]
    (bad,) = loaded.rejected
    assert (bad.number, bad.where) == (3, f"{path}:3")
    assert bad.reason.startswith(reason)
    assert len(bad.excerpt) <= 100 and bad.excerpt[:3] in data.decode("utf-8", "replace")
    assert f"{path}: 2 problems; 1 row rejected\n  {path}:3: {reason}" in loaded.account()


def test_an_account_names_the_first_rows_and_counts_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [ROWS[0], *[{"prompt": "?"}] * 12])
    lines = read_problems(path).account().split("\n")
    assert lines[0] == f"{path}: 1 problem; 12 rows rejected"
    assert lines[1].startswith(f"  {path}: row 2: the answer is missing: ")
    assert (len(lines), lines[-1]) == (12, "  and 2 more")


@given(
    st.lists(
        st.one_of(
            st.just('{"prompt": "p", "answer": 1}'),
            st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1),
            st.dictionaries(st.sampled_from(["prompt", "answer", "id"]), st.text()).map(json.dumps),
        ),
        max_size=8,
    )
)
def test_every_row_is_taken_or_listed(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("\n".join(['{"prompt": "p", "answer": 1}', *lines]), encoding="utf-8")
    loaded = read_problems(path)
    rows = 1 + sum(bool(line.encode().strip()) for line in lines)  # \x1f is no blank of JSON
    assert len(loaded.problems) + len(loaded.rejected) == rows


# -- sources that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.json", b"{", "is not JSON"),
        (
            "a.json",
            b'{"prompt": "a", "answer": 1}',
            "holds no array of rows, but a value of type dict",
        ),
        ("a.json", b'["a", "b"]', "no row of"),
        ("a.jsonl", b'{"prompt": "a", "answer": null, "x": 1}\n{"answer": 1}\n', "no row of"),
        ("a.parquet", b"not at all", "cannot read"),
        ("a.csv", b"prompt,answer\n", "is none of .jsonl, .ndjson, .json, .parquet"),
    ],
)
def test_a_source_that_cannot_be_read(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_problems(tmp_path / name)
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.jsonl", "./none", "a/b/c", "/none/such", "-x"])
def test_a_file_that_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=f"there is no file or folder `{name}`"):
        read_problems(name)


# -- birth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("", "p", "a"), "the `id` of a problem is blank"),
        (("i", " ", "a"), "the `prompt` of a problem is blank"),
        (("i", "p", ""), "the `answer` of a problem is blank"),
        (("i", "p", "C", ("x", "y")), "the answer of `i` is `C`, none of AB"),
        (("i", "p", "AB", ("x", "y")), "the answer of `i` is `AB`, none of AB"),
    ],
)
def test_problems_are_checked_at_birth(values: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Problem(*values)


def test_trace_examples_are_checked_at_birth() -> None:
    with pytest.raises(ValueError, match="the `trace` of a trace example is blank"):
        TraceExample("i", "p", "\n")
