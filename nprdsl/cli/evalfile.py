"""The file of an evaluation: while it runs, lines beside it; in the end one JSON report.

Lines go to `NAME.rows.jsonl`, settings first; a kill loses no sample that was written. A file that
was made with other settings is left alone, and what differs is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nprdsl.cli.failures import Failure, told
from nprdsl.cli.settings import Generating
from nprdsl.journal import JournalError, JsonLines

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.reports import EvaluationReport
    from nprdsl.trainers.evaluate.samples import Sample

_START: Final = b'{"s'  # of `settings` and of `suite`
_OTHER: Final = "no file of an evaluation; give another --out"
_LISTED: Final = 5  # settings that differ
_END: Final = 1 << 16  # bytes of a file of weights that are read at its beginning and its end


def check_out(name: str) -> None:
    """A `Failure` where no report can be written under that name."""
    path = Path(name)
    if path.suffix != ".json":
        raise Failure(f"--out is a JSON file; `{name}` does not end in .json")
    if not path.parent.is_dir():
        raise Failure(f"cannot write `{name}`: there is no folder `{path.parent}`")
    if path.is_dir():
        raise Failure(f"cannot write `{name}`: it is a folder")


class RunFile:
    """The report `name`, and the lines of a run that is not complete.

    `done` has the samples of earlier runs by suite.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self._path = Path(name)
        self._settings = json.loads(json.dumps(settings))
        self.done: dict[str, list[Sample]] = {}
        self._read_report()
        rows = self._path.with_suffix(".rows.jsonl")
        with told(JournalError), self._writing(rows):
            self._rows = JsonLines(rows, start=_START, other=_OTHER)
        if not self._read_rows():
            self._append({"settings": self._settings})

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(len({sample.key for sample in samples}) for samples in self.done.values())

    def write(self, suite: str, sample: Sample) -> None:
        """Keep a sample."""
        self._append({"suite": suite, "sample": asdict(sample)})

    def finish(self, report: EvaluationReport) -> None:
        """Write the report; the lines have served."""
        from nprdsl.trainers.evaluate.reports import write_report

        with self._writing(self._path):
            write_report(self._path, report)
            self._rows.path.unlink()

    def _append(self, record: dict[str, Any]) -> None:
        with self._writing(self._rows.path):
            self._rows.write(record)

    @staticmethod
    def _writing(path: Path) -> AbstractContextManager[None]:
        return told(OSError, about=f"cannot write `{path}`")

    def _read_report(self) -> None:
        from nprdsl.trainers.evaluate.reports import read_report

        if not self._path.exists():
            return
        with told(ValueError):
            report = read_report(self._path)
        self._same(self._path, report.settings)
        for name, suite in report.suites.items():
            self.done[name] = [sample for sample in suite.samples if not sample.failed]

    def _read_rows(self) -> bool:
        """Whether there were settings, and samples behind them."""
        begun = False
        for place, line in self._rows.lines():
            record = _record(place, line)
            if "settings" in record:
                self._same(self._rows.path, record["settings"])
                begun = True
            elif begun:
                self.done.setdefault(str(record["suite"]), []).append(_sample(place, record))
            else:
                raise Failure(f"`{self._rows.path}` is {_OTHER}")
        return begun

    def _same(self, path: Path, settings: Mapping[str, Any]) -> None:
        """A `Failure` with what differs from the settings of this run."""
        there, here = dict(_flat(settings)), dict(_flat(self._settings))
        names = [name for name in here | there if there.get(name) != here.get(name)]
        if not names:
            return
        listed = [
            f"`{name}` is {_shown(there, name)} there, {_shown(here, name)} now"
            for name in names[:_LISTED]
        ]
        more = f"; {len(names) - _LISTED} more differ" if len(names) > _LISTED else ""
        raise Failure(
            f"`{path}` was made with other settings: {', '.join(listed)}{more}; give another "
            "--out, or the same settings"
        )


def weights_digest(given: Generating) -> str:
    """A digest of the weights in a folder, by sizes, beginnings and ends of its files; "" for a
    server and for models that are known by name alone."""
    from nprdsl.runtime.bundled import ARITH, model_folder

    if given["engine"] is not None:
        return ""
    folder = Path(model_folder(given["model"] or ARITH))
    digest = hashlib.sha256()
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_END))
            opened.seek(max(0, size - _END))
            digest.update(opened.read(_END))
    return digest.hexdigest()[:16] if files else ""


def _record(place: str, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise Failure(f"{place}: the line is {_OTHER}") from error
    if not isinstance(record, dict) or not ({"settings"} <= set(record) or set(record) >= _ROW):
        raise Failure(f"{place}: the line is {_OTHER}")
    return record


_ROW: Final = {"suite", "sample"}


def _sample(place: str, record: Mapping[str, Any]) -> Sample:
    from pydantic import TypeAdapter

    from nprdsl.trainers.evaluate.samples import Sample

    with told(ValueError, about=f"{place}: the sample cannot be read"):
        return TypeAdapter(Sample).validate_python(record["sample"])


def _flat(settings: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Single settings under dotted names."""
    if isinstance(settings, Mapping) and settings:
        for name, value in settings.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, settings


def _shown(settings: Mapping[str, object], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not set"
