"""Rows of a source: JSONL, a JSON array, parquet, a folder of `datasets`, or a name on the hub.

A source that cannot be read at all is a `SourceError`; a line that is no JSON is a rejected row,
and the others are still read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

AUTO: Final = "auto"  # let the reader find the split, the subset or the field
EXCERPT: Final = 100  # characters of a bad row that are shown
_SAVED: Final = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".parquet")


class SourceError(ValueError):
    """A source that cannot be read, or whose rows are not what was asked for."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands. `number` counts rows from 1, in JSONL lines; `where` is for people."""

    number: int
    where: str
    value: Any


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not taken: where it stands, and why; `excerpt` is how it begins, `number`
    counts it in its source, where these are known."""

    where: str
    reason: str
    excerpt: str = ""
    number: int = 0

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.reason, self.excerpt) if part)


@dataclass(frozen=True, slots=True)
class RawRows:
    """All rows of a source, and those that could not even be read."""

    name: str
    rows: tuple[RawRow, ...]
    rejected: tuple[RejectedRow, ...] = ()  # in the order of their numbers

    def __post_init__(self) -> None:
        if not self.rows and not self.rejected:
            raise SourceError(f"`{self.name}` holds no rows")


def read_rows(source: str | Path, *, split: str = AUTO, subset: str = AUTO) -> RawRows:
    """The rows of a file, a folder, or a dataset of the hub.

    `split` and `subset` choose a part of a dataset; files have none. Raises SourceError.
    """
    path = Path(source)
    if path.is_dir():
        return _dataset(str(source), path, split, subset)
    if path.is_file():
        return _file(path)
    if path.suffix.lower() in _SUFFIXES or not _HUB_NAME.fullmatch(str(source)):
        raise SourceError(f"there is no file or folder `{source}`")
    return _dataset(str(source), str(source), split, subset)


def rejected_row(row: RawRow, reason: str) -> RejectedRow:
    """The row, rejected."""
    return RejectedRow(row.where, reason, excerpt(row.value), row.number)


def excerpt(value: Any) -> str:
    """How a row begins, on one line."""
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


# -- files -----------------------------------------------------------------------------------------


def _file(path: Path) -> RawRows:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _numbered(str(path), _parquet(path))
    if suffix not in _SUFFIXES:
        raise SourceError(f"`{path}` is none of {', '.join(_SUFFIXES)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read `{path}`: {error.strerror}") from error
    if suffix == ".json":
        return _json(path, data)
    return _lines(path, data)


def _json(path: Path, data: bytes) -> RawRows:
    """An array of rows; a file that holds JSON lines under this name is read as such."""
    try:
        values = json.loads(data)
    except ValueError as error:
        lines = _lines(path, data)
        if len(lines.rows) > 1 and not lines.rejected:
            return lines
        raise SourceError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(values, list):
        raise SourceError(
            f"`{path}` holds no array of rows, but a value of type {type(values).__name__}"
        )
    return _numbered(str(path), values)


def _lines(path: Path, data: bytes) -> RawRows:
    rows: list[RawRow] = []
    rejected: list[RejectedRow] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            rows.append(RawRow(number, where, json.loads(line)))
        except UnicodeDecodeError:
            rejected.append(RejectedRow(where, "the line is not UTF-8", excerpt(line), number))
        except (ValueError, RecursionError) as error:
            reason = f"the line is not JSON ({_first_line(error)})"
            rejected.append(RejectedRow(where, reason, excerpt(line), number))
    return RawRows(str(path), tuple(rows), tuple(rejected))


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot read `{path}`: {_first_line(error)}") from error
    return rows


def _numbered(name: str, values: Iterable[Any]) -> RawRows:
    rows = [RawRow(n, f"{name}: row {n}", value) for n, value in enumerate(values, 1)]
    return RawRows(name, tuple(rows))


# -- datasets --------------------------------------------------------------------------------------


def _dataset(name: str, location: str | Path, split: str, subset: str) -> RawRows:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if isinstance(location, str) and (reason := _why_not(location)) is not None:
        raise SourceError(f"cannot load `{name}`: {reason}")
    try:
        with _quiet():
            if isinstance(location, Path) and any((location / name).exists() for name in _SAVED):
                dataset = datasets.load_from_disk(str(location))
            else:
                dataset = datasets.load_dataset(str(location), None if subset == AUTO else subset)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SourceError(f"cannot load `{name}`: {_first_line(error)}") from error
    if isinstance(dataset, datasets.DatasetDict):
        split = _split(name, list(dataset), split)
        return _numbered(f"{name}[{split}]", dataset[split])
    if split not in (AUTO, str(dataset.split)):
        raise SourceError(f"`{name}` is one dataset without splits, there is no `{split}`")
    return _numbered(name, dataset)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of `datasets` inside the block."""
    from datasets import utils

    hidden = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            utils.enable_progress_bars()


def _why_not(name: str) -> str | None:
    """Why the hub's dataset cannot be had; None where it can, also from the cache."""
    import datasets

    from nprdsl.runtime.hub import RepoKind, why_not

    cached = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")
    return None if cached.is_dir() else why_not(name, RepoKind.DATASET)


def _split(name: str, known: Sequence[str], wanted: str) -> str:
    listed = ", ".join(f"`{split}`" for split in known)
    if wanted == AUTO:
        if len(known) == 1:
            return known[0]
        raise SourceError(f"`{name}` has the splits {listed}; name one of them")
    if wanted not in known:
        raise SourceError(f"`{name}` has no split `{wanted}`; its splits are {listed}")
    return wanted


def _missing(error: ModuleNotFoundError) -> SourceError:
    return SourceError(f"this source needs {error.name}: pip install 'nprdsl[train]'")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
