"""Problems and traces of every kind of source (bad rows: see `test_rejected`)."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import pytest

from nprdsl.trainers.data.problems import Problem, TraceExample, read_problems, read_traces
from nprdsl.trainers.data.sources import SourceError
from nprdsl.trainers.grading.grading import is_right

SUITES = Path(str(importlib.resources.files("nprdsl.trainers") / "suites"))
ROWS = [{"prompt": "1+1?", "answer": "2"}, {"prompt": "2+2?", "answer": "4"}]


def write(path: Path, rows: list[Any]) -> Path:
    """The rows in the form that the name of the file asks for."""
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


# -- the real files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("aime25", 30, ("aime25-1", "Find the sum of all integer", "70"), ("aime25-30", "240")),
        ("amc23", 40, ("0", "Cities $A$ and $B$", "27"), ("49", "8")),
        (
            "hmmt25",
            30,
            ("1", "Compute the sum of the posi", "103"),
            ("30", r"\sqrt{\frac{95}{24}}"),
        ),
        (
            "math500",
            500,
            ("test/precalculus/807.json", "Convert the point $(0,3)$", ""),
            ("test/geometry/615.json", r"106^\circ"),
        ),
    ],
)
def test_the_published_files(
    name: str, count: int, first: tuple[str, str, str], last: tuple[str, str]
) -> None:
    loaded = read_problems(SUITES / f"{name}.json")
    assert (len(loaded.problems), loaded.rejected) == (count, ())
    one, end = loaded.problems[0], loaded.problems[-1]
    assert one.id == first[0] and one.prompt.startswith(first[1])
    assert one.answer == (first[2] or r"\left( 3, \frac{\pi}{2} \right)")
    assert (end.id, end.answer) == last
    assert len({problem.id for problem in loaded.problems}) == count
    assert loaded.account() == f"{SUITES / name}.json: {count} problems"


@pytest.mark.parametrize("name", ["aime25", "amc23", "hmmt25", "math500"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_published_files_in_other_forms(name: str, suffix: str, tmp_path: Path) -> None:
    rows = json.loads((SUITES / f"{name}.json").read_text(encoding="utf-8"))
    other = read_problems(write(tmp_path / f"{name}{suffix}", rows))
    assert other.problems == read_problems(SUITES / f"{name}.json").problems


# -- kinds of sources ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_files(name: str, tmp_path: Path) -> None:
    loaded = read_problems(write(tmp_path / name, ROWS))
    assert loaded.problems == (Problem("a-1", "1+1?", "2"), Problem("a-2", "2+2?", "4"))
    assert loaded.rejected == ()


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(tmp_path / "a.jsonl", ROWS).rename(path)
    assert len(read_problems(path).problems) == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_byte_order_mark(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert (len(read_problems(path).problems), read_problems(path).rejected) == (2, ())


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    assert [p.answer for p in read_problems(tmp_path / "one").problems] == ["2", "4"]
    parts = {
        "train": datasets.Dataset.from_list(ROWS[:1]),
        "test": datasets.Dataset.from_list(ROWS),
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    assert len(read_problems(tmp_path / "two", split="test").problems) == 2
    with pytest.raises(SourceError, match="has the splits `train`, `test`; name one of them"):
        read_problems(tmp_path / "two")
    with pytest.raises(SourceError, match="no split `dev`; its splits are `train`, `test`"):
        read_problems(tmp_path / "two", split="dev")
    with pytest.raises(SourceError, match="without splits, there is no `test`"):
        read_problems(tmp_path / "one", split="test")


def test_a_folder_of_data_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "test.jsonl", ROWS)
    assert [p.id for p in read_problems(tmp_path / "data").problems] == ["data-1", "data-2"]
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """A hub that has every dataset; what it was asked for."""
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[str, str | None]] = []

    def load(name: str, subset: str | None) -> Any:
        asked.append((name, subset))
        if subset == "broken":
            raise datasets.exceptions.DatasetGenerationError("bad file\nand more")
        return datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("nprdsl.runtime.hub.why_not", lambda name, kind: None)
    return asked


def test_a_name_of_the_hub(hub: list[tuple[str, str | None]]) -> None:
    assert read_problems("some-org/aime24").problems[0].id == "aime24-1"
    read_problems("some-org/aime24", subset="hard", split="test")
    assert hub == [("some-org/aime24", None), ("some-org/aime24", "hard")]


def test_a_dataset_of_the_hub_that_is_broken(hub: list[tuple[str, str | None]]) -> None:
    with pytest.raises(SourceError) as error:
        read_problems("some-org/aime24", subset="broken")
    assert str(error.value) == "cannot load `some-org/aime24`: bad file"


def test_a_hub_that_may_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError) as error:
        read_problems("some-org/none-such")
    assert str(error.value) == (
        "cannot load `some-org/none-such`: it is not on disk, and HF_HUB_OFFLINE forbids to ask "
        "the hub"
    )


# -- shapes of rows --------------------------------------------------------------------------------


def orz(question: object, answer: object) -> list[dict[str, Any]]:
    truth = {"from": "assistant", "ground_truth": {"value": answer}}
    return [{"from": "human", "value": question}, truth]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_turns_of_orz(name: str, tmp_path: Path) -> None:
    rows = [orz("1+1?", "2"), orz("2+2?", r"\frac{8}{2}"), orz("", "3"), [{"from": "human"}]]
    loaded = read_problems(write(tmp_path / name, rows))
    assert [p.answer for p in loaded.problems] == ["2", r"\frac{8}{2}"]
    assert [r.number for r in loaded.rejected] == [3, 4]
    assert loaded.rejected[0].reason == "the prompt is blank"
    assert loaded.rejected[1].reason.startswith("the row is an array, but not of one `human`")


def test_turns_of_orz_as_columns(tmp_path: Path) -> None:
    rows = [dict(zip("01", orz("1+1?", "2"), strict=True))]
    assert read_problems(write(tmp_path / "a.json", rows)).problems[0].answer == "2"


def test_prompts_in_messages_and_answers_inside_a_field(tmp_path: Path) -> None:
    def row(*roles: str) -> dict[str, Any]:
        messages = [{"role": role, "content": f"I am {role}"} for role in roles]
        return {"prompt": messages, "reward_model": {"ground_truth": 5, "style": "rule"}}

    loaded = read_problems(write(tmp_path / "a.parquet", [row("user"), row("system", "user")]))
    assert loaded.problems == (Problem("a-1", "I am user", "5"),)
    (bad,) = loaded.rejected
    assert bad.reason == "the prompt is a list of 2, not a text or one message of the user"


@pytest.mark.parametrize(
    ("answer", "text"),
    [(27.0, "27"), (7, "7"), (0.5, "0.5"), (" 3 ", "3"), (["2"], "2"), (["1", 2], "1, 2")],
)
def test_answers_become_texts(answer: object, text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "?", "answer": answer}])
    assert read_problems(path).problems[0].answer == text


@pytest.mark.parametrize("right", ["Arnold", "B", "b", 1])
def test_choices(right: object, tmp_path: Path) -> None:
    row = {
        "id": "lgp-1#mc-2",
        "puzzle": "Two houses.",
        "question": "Who is first?",
        "choices": ["Eric", "Arnold"],
        "answer": right,
    }
    (problem,) = read_problems(write(tmp_path / "a.json", [row])).problems
    text = "Two houses.\n\nWho is first?\n\nA. Eric\nB. Arnold"
    assert problem == Problem("lgp-1#mc-2", text, "B", ("Eric", "Arnold"))


def test_choices_that_are_numbers_are_meant_by_their_texts(tmp_path: Path) -> None:
    row = {"question": "How many?", "choices": ["1", "2", "3"], "answer": "1"}
    assert read_problems(write(tmp_path / "a.json", [row])).problems[0].answer == "A"


def test_choices_under_letters(tmp_path: Path) -> None:
    row = {"question": "Who?", "options": {"A": "Eric", "B": "Arnold"}, "answer": "A"}
    assert read_problems(write(tmp_path / "a.json", [row])).problems[0].choices == (
        "Eric",
        "Arnold",
    )


def test_the_answer_in_the_box_of_a_solution(tmp_path: Path) -> None:
    rows = [
        {"problem": "1+1?", "solution": r"First \boxed{1}, no, \boxed{\frac{4}{2}}."},
        {"problem": "2+2?", "solution": "I do not know."},
        {"problem": "2+2?", "solution": None},
    ]
    loaded = read_problems(write(tmp_path / "a.json", rows))
    assert loaded.problems == (Problem("a-1", "1+1?", r"\frac{4}{2}"),)
    reasons = [bad.reason for bad in loaded.rejected]
    assert reasons == ["the solution has no boxed answer", "the answer is missing"]
    both = write(tmp_path / "b.json", [{**rows[0], "answer": "2"}])
    assert read_problems(both).problems[0].answer == "2"
    assert read_problems(both, answer_field="solution").problems[0].answer == r"\frac{4}{2}"


def test_final_answers_in_lists_beside_a_solution(tmp_path: Path) -> None:
    """The shape of OlympiadBench."""
    row = {
        "id": 1606,
        "question": "Find all $x$.",
        "solution": ["Long, without a box."],
        "final_answer": ["$1$", r"$\frac{1}{2}$"],
        "context": None,
        "is_multiple_answer": True,
        "unit": None,
        "error": None,
    }
    (problem,) = read_problems(write(tmp_path / "a.parquet", [row])).problems
    assert problem == Problem("1606", "Find all $x$.", r"$1$, $\frac{1}{2}$")
    assert is_right(r"So \boxed{\frac{1}{2}, 1}.", problem.answer)
    assert not is_right(r"So \boxed{\frac{1}{2}}.", problem.answer)


# -- fields ----------------------------------------------------------------------------------------


def test_fields_that_are_named(tmp_path: Path) -> None:
    rows = [{"Frage": "1+1?", "problem": "old", "question": "new", "Antwort": 2, "nr": "x"}]
    path = write(tmp_path / "a.json", rows)
    named = {"prompt_field": "Frage", "answer_field": "Antwort", "id_field": "nr"}
    assert read_problems(path, **named).problems == (Problem("x", "1+1?", "2"),)


@pytest.mark.parametrize(
    ("row", "named", "said"),
    [
        (
            {"problem": "a", "question": "b", "answer": 1},
            {},
            "has `problem` and `question`, each may be the prompt; name it with prompt_field",
        ),
        (
            {"prompt": "a", "answer": 1, "final_answer": 1},
            {},
            "has `answer` and `final_answer`, each may be the answer; name it with answer_field",
        ),
        (
            {"text": "a", "result": "b"},
            {},
            "is known as the prompt; its fields are `text`, `result`; name it with prompt_field",
        ),
        ({"prompt": "a"}, {}, "is known as the answer; its fields are `prompt`; name it with"),
        ({"prompt": "a", "answer": 1}, {"prompt_field": "q"}, "has no field `q`; its fields are"),
        ({"prompt": "a", "answer": 1}, {"answer_field": "q"}, "has no field `q`; its fields are"),
        ({"prompt": "a", "answer": 1}, {"id_field": "q"}, "has no field `q`; its fields are"),
    ],
)
def test_fields_that_cannot_be_told(
    row: dict[str, Any], named: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.json", [row])
    with pytest.raises(SourceError) as error:
        read_problems(path, **named)
    assert said in str(error.value) and f"{path}" in str(error.value)


# -- traces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.parquet"])
def test_traces(name: str, tmp_path: Path) -> None:
    rows = [
        {"id": "x", "prompt": "1+1?", "trace": "<a>2</a>"},
        {"id": "x", "prompt": "1+1?", "trace": "<a>1+1=2</a>"},
        {"prompt": "2+2?", "trace": " 4\n"},
        {"prompt": "3+3?", "trace": "\n"},
        {"prompt": "3+3?"},
    ]
    loaded = read_traces(write(tmp_path / name, rows))
    assert loaded.traces == (
        TraceExample("x", "1+1?", "<a>2</a>"),
        TraceExample("x", "1+1?", "<a>1+1=2</a>"),
        TraceExample("t-3", "2+2?", " 4\n"),
    )
    assert [bad.reason for bad in loaded.rejected] == ["the trace is blank", "the trace is missing"]
    assert "3 traces; 2 rows rejected" in loaded.account()


def test_traces_of_other_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", [{"q": "1+1?", "text": "2", "trace": 3}])
    (found,) = read_traces(path, prompt_field="q", trace_field="text").traces
    assert found == TraceExample("t-1", "1+1?", "2")
    with pytest.raises(SourceError, match=r"no field of .* is known as the prompt"):
        read_traces(path)
