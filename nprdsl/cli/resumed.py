"""Files of results that are continued after any end of the process, a kill included.

`run --file` appends a line for each prompt; `eval` keeps lines beside its file while it runs and
writes one JSON report in the end. What is no result of the same settings is left alone, and
refused with what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nprdsl.cli.failures import Failure, as_failure
from nprdsl.cli.files import NumberedPrompt
from nprdsl.trace.journal import JournalError, JsonLines

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.reports import EvaluationReport
    from nprdsl.trainers.evaluate.samples import Sample

_RESULT_START: Final = b'{"index": '
_EVALUATION_START: Final = b'{"s'  # of `settings` and of `suite`
_NO_EVALUATION: Final = "no file of an evaluation; give another --out"
_LISTED: Final = 5  # settings that differ
_HASHED: Final = 1 << 16  # bytes of a file of weights at its beginning, and at its end


class ResultFile:
    """The results of `prompts` in the file `name`, a line for each.

    A line has the prompt's `index` and its key, of `keys`, which has them in the same order.
    """

    def __init__(self, name: str, prompts: list[NumberedPrompt], keys: list[str]) -> None:
        self._keys = keys
        other = "no file of results; give another --out"
        with as_failure(JournalError), _writing(name):
            self._file = JsonLines(Path(name), start=_RESULT_START, other=other)
        done = {self._index(place, line) for place, line in self._file.lines()}
        self.todo = [prompt for prompt in prompts if prompt.index not in done]

    def write(self, record: dict[str, Any]) -> None:
        """Append a result; it is there, whole, when this returns."""
        with _writing(self._file.path):
            self._file.write(record)

    def _index(self, place: str, line: bytes) -> int:
        index = (record := _object(line)).get("index")
        if not isinstance(index, int):
            raise Failure(f"{place}: the row is no result; give another --out")
        if not 0 <= index < len(self._keys) or record.get("key") != self._keys[index]:
            raise Failure(
                f"{place}: the result is of another prompt, model or setting; give another --out, "
                "or the same prompts and options as before"
            )
        return index


class EvaluationFile:
    """The report `name`, and beside it `NAME.rows.jsonl`: the settings, then a line a sample.

    `done` has the samples of earlier runs by suite.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self._path = Path(name)
        self._settings = json.loads(json.dumps(settings))
        self.done: dict[str, list[Sample]] = {}
        self._read_report()
        lines = self._path.with_suffix(".rows.jsonl")
        with as_failure(JournalError), _writing(lines):
            self._lines = JsonLines(lines, start=_EVALUATION_START, other=_NO_EVALUATION)
        if not self._read_lines():
            self._append({"settings": self._settings})

    @staticmethod
    def check_name(name: str) -> None:
        """A `Failure` where no report can be written under that name."""
        path = Path(name)
        if path.suffix != ".json":
            raise Failure(f"--out is a JSON file; `{name}` does not end in .json")
        if not path.parent.is_dir():
            raise Failure(f"cannot write `{name}`: there is no folder `{path.parent}`")
        if path.is_dir():
            raise Failure(f"cannot write `{name}`: it is a folder")

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

        with _writing(self._path):
            write_report(self._path, report)
            self._lines.path.unlink()

    def _append(self, record: dict[str, Any]) -> None:
        with _writing(self._lines.path):
            self._lines.write(record)

    def _read_report(self) -> None:
        from nprdsl.trainers.evaluate.reports import read_report

        if not self._path.exists():
            return
        with as_failure(ValueError):
            report = read_report(self._path)
        self._check_same(self._path, report.settings)
        for name, suite in report.suites.items():
            self.done[name] = [sample for sample in suite.samples if not sample.failed]

    def _read_lines(self) -> bool:
        """Whether there were settings, and samples behind them."""
        has_settings = False
        for place, line in self._lines.lines():
            record = _object(line)
            if not ("settings" in record or record.keys() >= {"suite", "sample"}):
                raise Failure(f"{place}: the line is {_NO_EVALUATION}")
            if "settings" in record:
                self._check_same(self._lines.path, record["settings"])
                has_settings = True
            elif has_settings:
                self.done.setdefault(str(record["suite"]), []).append(_sample(place, record))
            else:
                raise Failure(f"`{self._lines.path}` is {_NO_EVALUATION}")
        return has_settings

    def _check_same(self, path: Path, settings: Mapping[str, Any]) -> None:
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


def weights_digest(folder: Path) -> str:
    """A digest of the weights in a folder, by sizes, beginnings and ends of its files; "" where
    there are none, as for models that are known by name alone."""
    digest = hashlib.sha256()
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_HASHED))
            opened.seek(max(0, size - _HASHED))
            digest.update(opened.read(_HASHED))
    return digest.hexdigest()[:16] if files else ""


def _writing(path: str | Path) -> AbstractContextManager[None]:
    return as_failure(OSError, about=f"cannot write `{path}`")


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; an empty one where there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _sample(place: str, record: Mapping[str, Any]) -> Sample:
    from pydantic import TypeAdapter

    from nprdsl.trainers.evaluate.samples import Sample

    with as_failure(ValueError, about=f"{place}: the sample cannot be read"):
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
