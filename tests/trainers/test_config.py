"""Configurations: the shipped ones are the paper's, and every mistake is told with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from nprdsl.trainers.config import (
    ConfigError,
    PapoConfig,
    SampleConfig,
    SftConfig,
    ZeroConfig,
    read_config,
)

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS: dict[str, type[BaseModel]] = {
    "zero": ZeroConfig,
    "sft": SftConfig,
    "papo": PapoConfig,
    "sample": SampleConfig,
}
NEEDED = """
[model]
path = "m"
[data]
source = "d.jsonl"
[run]
output = "o"
"""


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("npr-4b/*.toml")), ids=lambda f: f.stem)
def test_every_shipped_configuration_is_read(file: Path) -> None:
    kind = next(kind for name, kind in KINDS.items() if name in file.stem)
    read_config(kind, file)


@pytest.mark.parametrize("stage", ["zero", "sft", "papo"])
def test_what_is_not_said_is_the_papers(stage: str, tmp_path: Path) -> None:
    """What the defaults say and what stands in configs/npr-4b is the same, but for what depends on
    the place: paths, engines, limits of memory."""
    file = tmp_path / "least.toml"
    file.write_text(NEEDED)
    least = read_config(KINDS[stage], file).model_dump()
    shipped = read_config(KINDS[stage], CONFIGS / "npr-4b" / f"{stage}.toml").model_dump()
    for name in ("model", "data", "run", "engine", "prompt"):
        least.pop(name, None), shipped.pop(name, None)
    if stage == "papo":
        shipped["rollout"]["depth"] = None
    assert shipped == least


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("accelerate/*.yaml")), ids=lambda f: f.stem)
def test_launch_files_are_those_of_accelerate(file: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    data = yaml.safe_load(file.read_text())
    assert set(data) <= {f.name for f in ClusterConfig.__dataclass_fields__.values()}
    if data["distributed_type"] == "FSDP":
        assert data["fsdp_config"]["fsdp_version"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NEEDED + "[optimizer]\nlerning_rate = 1e-3", r"there is no key `lerning_rate` in "
         r"\[optimizer\]; did you mean `learning_rate`\?"),
        (NEEDED + "[optimizr]\nclip = 1", "there is no key `optimizr`; did you mean `optimizer`"),
        (NEEDED + "[evaluation]\nevery = 2\n[evaluation.data]\nsource='x'\nlimt = 3",
         r"no key `limt` in \[evaluation.data\]; did you mean `limit`"),
        ("batch = 4", "`model` is missing\n  `data` is missing\n  `run` is missing"),
        (NEEDED + "[optimizer]\nlearning_rate = -1", "`optimizer.learning_rate` is -1: input"),
        ("batch = 0" + NEEDED, "`batch` is 0: input should be greater than 0"),
        ("layout = 'graph'" + NEEDED, "`layout` is 'graph': input should be 'parallel' or"),
        ("batch =", "is not TOML: "),
    ],
)  # fmt: skip
def test_mistakes_are_told(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "sft.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_config(SftConfig, file)


def test_mistakes_of_stages_are_told(tmp_path: Path) -> None:
    file = tmp_path / "zero.toml"
    file.write_text("minibatch = 64" + NEEDED)
    with pytest.raises(ConfigError, match="`minibatch` is 64, but a batch has 32 prompts"):
        read_config(ZeroConfig, file)
    file.write_text(NEEDED + "[rollout]\nmode = 'free'\ndepth = 1")
    with pytest.raises(ConfigError, match="`rollout`: in the mode `free` there is no limit but"):
        read_config(PapoConfig, file)
    file.write_text(NEEDED + "[rollout]\nmode = 'in_turn'")
    with pytest.raises(ConfigError, match=r"`rollout.mode` is 'in_turn'"):
        read_config(PapoConfig, file)
    with pytest.raises(ConfigError, match=r"cannot read `none\.toml`: No such file"):
        read_config(SftConfig, Path("none.toml"))


def test_changes_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "sft.toml"
    file.write_text(NEEDED)
    made = read_config(
        SftConfig,
        file,
        ["optimizer.learning_rate=0.5", "run.output=elsewhere", "layout=causal", "data.limit = 7"],
    )
    assert made.optimizer.learning_rate == 0.5 and made.optimizer.warmup == 0.05
    assert (made.run.output, made.layout, made.data.limit) == ("elsewhere", "causal", 7)
    for change, said in (
        ("batch", "`batch` is not KEY=VALUE"),
        ("batch.size=3", "`batch` is {'size': 3}: input should be a valid integer"),
        ("model.path.x=3", "`model.path` is a value, not a section"),
        ("batsch=3", "did you mean `batch`"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said) if said[0] == "`" else said):
            read_config(SftConfig, file, [change])


def test_warmup_is_steps_or_a_share(tmp_path: Path) -> None:
    file = tmp_path / "sft.toml"
    file.write_text(NEEDED)
    for given, steps in (("0.05", 10), ("10", 10), ("0", 0), ("1", 1)):
        made = read_config(SftConfig, file, [f"optimizer.warmup={given}"])
        assert made.optimizer.warmup_steps(200) == steps
