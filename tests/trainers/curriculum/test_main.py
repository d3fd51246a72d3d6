"""The command of the curriculum: what it refuses before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nprdsl.trainers.curriculum import command
from nprdsl.trainers.curriculum.arithmetic import development, held_out, reported
from nprdsl.trainers.curriculum.recipe import CurriculumFolder, Task
from tests.cli.commands import ROOT, environment
from tests.forked import SECONDS

CONFIGS = ROOT / "configs" / "arith"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were to be trained; nothing is."""
    seen: list[int] = []

    def none(place: CurriculumFolder) -> tuple[Task, ...]:
        seen.append(place.seed)
        return ()

    def nothing(place: CurriculumFolder) -> Task:
        return Task("speed", ("schemas",), place.corpus, ())

    monkeypatch.setattr(command, "tasks", none)
    monkeypatch.setattr(command, "speed", nothing)
    monkeypatch.setattr(command, "write_report", lambda out, places, seconds: ())
    monkeypatch.setattr(command, "DOCUMENTS", 20)
    monkeypatch.setattr(command, "PROBLEMS", 20)
    return seen


def run(folder: Path, *more: str, configs: Path = CONFIGS) -> int:
    return command.main(["--out", str(folder), "--configs", str(configs), *more])


def test_what_the_stages_need_is_written_once(tmp_path: Path) -> None:
    assert run(tmp_path / "run") == 0
    folder = tmp_path / "run" / "seed-0"
    for name in ("corpus", "problems"):
        assert (folder / f"{name}.jsonl").read_text("utf-8").count("\n") == 20
    assert (folder / "init" / "model.safetensors").exists()
    stamp = (folder / "init" / "model.safetensors").stat().st_mtime_ns
    assert run(tmp_path / "run") == 0
    assert (folder / "init" / "model.safetensors").stat().st_mtime_ns == stamp


def test_more_seeds_go_on_in_the_same_folder(
    tmp_path: Path, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "run") == 0
    assert run(tmp_path / "run", "--seeds", "3") == 0
    assert asked == [0, 0, 1, 2]
    for name in ("corpus.jsonl", "problems.jsonl", "init/model.safetensors"):
        made = {(tmp_path / "run" / f"seed-{seed}" / name).read_bytes() for seed in range(3)}
        assert len(made) == 3, name
    with pytest.raises(SystemExit):
        run(tmp_path / "run", "--seeds", "0")
    assert "--seeds must be at least 1, not 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path / "run", "--seed", "3")
    assert "unrecognized arguments: --seed 3" in capsys.readouterr().err


def test_nothing_that_is_trained_on_is_asked_later(tmp_path: Path) -> None:
    assert run(tmp_path / "run") == 0
    lines = (tmp_path / "run" / "seed-0" / "problems.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line)["prompt"] for line in lines]
    asked = [{p.prompt for p in made()} for made in (held_out, development, reported)]
    assert len(set().union(*asked)) == 500 + 200 + 500
    assert set().union(*asked).isdisjoint(rows)


def copied(folder: Path, but: tuple[str, ...] = ()) -> Path:
    """The configurations, some left out, to be changed."""
    folder.mkdir()
    for file in CONFIGS.glob("*.toml"):
        if file.stem not in but:
            (folder / file.name).write_text(file.read_text("utf-8"), "utf-8")
    return folder


def test_other_configurations_do_not_go_on_in_the_same_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = copied(tmp_path / "configs")
    assert run(tmp_path / "run", configs=own) == 0
    text = (own / "npr.toml").read_text("utf-8")
    (own / "npr.toml").write_text(text.replace("steps = 12", "steps = 13"), "utf-8")
    assert run(tmp_path / "run", configs=own) == 2
    assert "`configs.npr.steps` was 12 and is 13" in capsys.readouterr().err


def test_what_would_fail_an_hour_later_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = copied(tmp_path / "configs", but=("beta-long", "sample"))
    for more, said in (
        (("--configs", str(own)), "lacks beta-long.toml, sample.toml"),
        (("--workers", "0"), "--workers must be at least 1, not 0"),
    ):
        with pytest.raises(SystemExit):
            run(tmp_path / "run", *more)
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named() -> None:
    program = (
        "import sys; sys.modules['math_verify'] = None; "
        "from nprdsl.trainers.curriculum.__main__ import main; sys.exit(main())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment({}), capture_output=True,
        text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: the curriculum needs math_verify; install it with: ")


def test_a_folder_without_configurations_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "run", configs=tmp_path / "none")
    assert ended.value.code == 2
    assert "there is no folder" in capsys.readouterr().err
