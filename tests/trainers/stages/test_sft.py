"""Imitation: what cannot be trained on is listed; settings do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nprdsl.trainers.config import SftConfig, read_config
from nprdsl.trainers.run.directory import RunError
from nprdsl.trainers.stages.sft import train_sft
from tests.trainers.stages.tiny import Tiny

LONG = (
    "<guideline><plan>1:7</plan></guideline>"
    f"<step>1:{'7' * 600}</step><takeaway>7</takeaway>\\boxed{{7}}"
)
BAD = {
    "no trace": {"id": "a", "prompt": "1+1?"},
    "illegal": {"id": "b", "prompt": "1+1?", "trace": "<guideline>"},
    "long": {"id": "c", "prompt": "1+1?", "trace": LONG},
}


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def with_bad_rows(tiny: Tiny, file: Path) -> str:
    rows = "".join(json.dumps(row) + "\n" for row in BAD.values())
    file.write_text(rows + tiny.traces.read_text(encoding="utf-8"), encoding="utf-8")
    return str(file)


def test_bad_rows_are_listed_with_their_reasons(tiny: Tiny, tmp_path: Path) -> None:
    told: list[str] = []
    source = with_bad_rows(tiny, tmp_path / "rows.jsonl")
    config = tiny.config("sft", tmp_path / "run", data__source=source, epochs=1)
    train_sft(read_config(SftConfig, config), tell=told.append)
    found = lines(tmp_path / "run" / "rejected.jsonl")
    assert [str(row["where"]) for row in found] == [f"{source}:1", "b", "c"]
    assert "trace" in str(found[0]["reason"])
    assert "the trace ends inside `plan`; expected `<plan>`" in str(found[1]["reason"])
    assert "512" in str(found[2]["reason"])
    assert told == [f"rows not trained on: 3; {tmp_path / 'run' / 'rejected.jsonl'}"]
    assert len(lines(tmp_path / "run" / "metrics.jsonl")) == round(10 / 4)


def test_illegal_traces_are_text_where_that_is_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    source = with_bad_rows(tiny, tmp_path / "rows.jsonl")
    config = tiny.config(
        "sft", tmp_path / "run", data__source=source, layout="causal", legal=False, epochs=1
    )
    train_sft(read_config(SftConfig, config))
    found = lines(tmp_path / "run" / "rejected.jsonl")
    assert [row["where"] for row in found] == [f"{source}:1", "c"]


def test_rows_may_keep_their_order(tiny: Tiny, tmp_path: Path) -> None:
    """Then the seed decides nothing."""

    def losses(seed: int, shuffle: bool) -> list[object]:
        folder = tmp_path / f"{seed}-{shuffle}"
        config = tiny.config("sft", folder, run__seed=seed, shuffle=shuffle, batch=2, epochs=1)
        train_sft(read_config(SftConfig, config))
        return [row["loss"] for row in lines(folder / "metrics.jsonl")]

    assert losses(0, shuffle=False) == losses(1, shuffle=False) != losses(0, shuffle=True)
    assert losses(0, shuffle=True) != losses(1, shuffle=True)


def test_data_without_a_trace_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(BAD["illegal"]) + "\n", encoding="utf-8")
    config = tiny.config("sft", tmp_path / "run", data__source=str(source))
    with pytest.raises(ValueError, match=r"no trace of .* can be trained on; b: "):
        train_sft(read_config(SftConfig, config))


def test_other_settings_do_not_go_on_in_the_same_folder(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("sft", tmp_path / "run", epochs=1)
    train_sft(read_config(SftConfig, config))
    other = read_config(SftConfig, config, ["batch=2"])
    with pytest.raises(RunError, match="`batch` was 4 and is 2"):
        train_sft(other)
    train_sft(other, restart=True)
    assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 5


def test_held_out_problems_are_asked_on_the_way(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(
        "sft", tmp_path / "run", epochs=1,
        evaluation__data__source=str(tiny.problems), evaluation__every=2,
        evaluation__max_tokens=60,
    )  # fmt: skip
    train_sft(read_config(SftConfig, config))
    found = lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in found if "eval/accuracy" in row] == [1, 2]
    assert all(row["eval/legal"] == 1.0 for row in found if "eval/legal" in row)


def test_all_that_is_written_carries_loss_or_only_what_masks_leave_open(
    tiny: Tiny, tmp_path: Path
) -> None:
    def tokens(**changes: object) -> int:
        folder = tmp_path / "-".join(map(str, changes.values()))
        config = tiny.config("sft", folder, epochs=1, batch=10, **changes)
        train_sft(read_config(SftConfig, config))
        return round(float(str(lines(folder / "metrics.jsonl")[0]["tokens"])))

    assert tokens(loss="written") == tokens(layout="causal")  # all behind the prompt
    assert tokens(loss="sampled") < tokens(loss="written")


def test_masks_may_reach_the_model_as_segments(tiny: Tiny, tmp_path: Path) -> None:
    losses = []
    for attention in ("segments", "dense"):
        folder = tmp_path / attention
        train_sft(read_config(SftConfig, tiny.config("sft", folder, model__attention=attention)))
        losses.append([row["loss"] for row in lines(folder / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="GPUs train with FlexAttention")
def test_flex_attention_is_refused_where_it_has_no_gradients(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("sft", tmp_path / "run", model__attention="blocks")
    with pytest.raises(ValueError, match="has gradients on GPUs only"):
        train_sft(read_config(SftConfig, config))
