"""A kill leaves the old file or the new one, and of lines all that were whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nprdsl.trace.journal import (
    JournalError,
    JsonLines,
    append_json_line,
    replacing,
    whole_lines,
    write_json_lines,
)

OTHER = "no file of numbers"


def continued(path: Path) -> JsonLines:
    return JsonLines(path, start=b'{"n": ', other=OTHER)


def test_a_file_that_fails_while_it_is_written_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_json_lines(path, [{"n": 1}])
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half of it")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_bytes() == b'{"n": 1}\n'


def test_two_writers_of_a_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "row.bin"
    with replacing(path) as one:
        with replacing(path) as other:
            one.write(b"one")
            other.write(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["row.bin"]


def test_lines_go_on_behind_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = b""
    for n in range(3):
        append_json_line(path, {"n": n, "é": "\ud800"})
        whole = path.read_bytes()
    for cut in range(len(whole) - 12, len(whole)):
        path.write_bytes(whole[:cut])
        assert [json.loads(line)["n"] for _, line in whole_lines(path)] == [0, 1]
        assert len(path.read_bytes()) == cut  # reading takes nothing away
        continued(path).write({"n": 9})
        assert [json.loads(line)["n"] for _, line in whole_lines(path)] == [0, 1, 9]
    assert [place for place, _ in continued(path).lines()] == [f"{path}:{n}" for n in (1, 2, 3)]


def test_what_somebody_else_wrote_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("{years of work")
    with pytest.raises(JournalError, match=rf"thesis\.txt` is {OTHER}"):
        continued(path)
    assert path.read_text() == "{years of work"
