"""Both stages of reinforcement learning: what is drawn, what is compared, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nprdsl.studio import trace_rows
from nprdsl.trainers.config import PapoConfig, ZeroConfig, read_config
from nprdsl.trainers.rollout.mismatch import MismatchError
from nprdsl.trainers.stages.papo import train_papo
from nprdsl.trainers.stages.zero import train_zero
from tests.trainers.stages.tiny import Tiny


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def zero(tiny: Tiny, folder: Path, **changes: object) -> list[dict[str, float]]:
    options = {"minibatch": 1, "steps": 2, **changes}
    train_zero(read_config(ZeroConfig, tiny.config("zero", folder, **options)))
    return metrics(folder)


def papo(tiny: Tiny, folder: Path, **changes: object) -> list[dict[str, float]]:
    train_papo(read_config(PapoConfig, tiny.config("papo", folder, **{"steps": 2, **changes})))
    return metrics(folder)


def test_problems_that_teach_nothing_are_drawn_again(tiny: Tiny, tmp_path: Path) -> None:
    """A single sample has no other to be compared with."""
    found = zero(tiny, tmp_path / "run", rollout__samples=1, refills=3)
    for row in found:
        assert row["updates"] == row["rollout/kept"] == 0
        assert row["rollout/failed"] == 0
    before = load_file(tiny.model / "model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_papo_on_samples_that_teach_nothing_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    options = {"rollout__samples": 1, "optimizer__weight_decay": 0.0}
    for row in papo(tiny, tmp_path / "run", **options):
        assert row["rollout/zero_advantage"] == 1
        assert row["loss"] == row["gradient_norm"] == 0
        assert row["mismatch/largest"] < 1e-3
    before = load_file(tiny.model / "model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_some_rollouts_of_each_step_are_kept_for_people(tiny: Tiny, tmp_path: Path) -> None:
    papo(tiny, tmp_path / "run", rollout__samples=6)
    found = trace_rows("rollouts.jsonl", (tmp_path / "run" / "rollouts.jsonl").read_text())
    facts = [dict(row.facts) for row in found.rows]
    assert [fact["step"] for fact in facts] == ["1"] * 4 + ["2"] * 4 and not found.other
    rewards = [float(fact["reward"]) for fact in facts[:4]]
    assert rewards == sorted(rewards, reverse=True)
    assert all(row.text and row.prompt and row.schema_name for row in found.rows)


def test_a_batch_makes_one_update_for_each_minibatch(tiny: Tiny, tmp_path: Path) -> None:
    found = zero(tiny, tmp_path / "run", refills=8, rollout__samples=6)
    assert all(row["updates"] == 2 for row in found)
    assert all(0 < row["rollout/kept"] <= 1 for row in found)
    assert all(row["mismatch/largest"] < 1e-3 for row in found)


def test_overlong_answers_cost(tiny: Tiny, tmp_path: Path) -> None:
    """A random model ends some answers by itself, others at the limit."""
    options = {"reward": "zero", "steps": 1, "refills": 0}
    plain = zero(tiny, tmp_path / "plain", overlong__buffer=0, **options)
    shaped = zero(tiny, tmp_path / "shaped", overlong__buffer=10, **options)
    assert shaped[0]["rollout/tokens"] == plain[0]["rollout/tokens"]
    assert shaped[0]["rollout/reward"] < plain[0]["rollout/reward"]


def test_papo_makes_one_update_and_its_rollouts_are_legal(tiny: Tiny, tmp_path: Path) -> None:
    found = papo(tiny, tmp_path / "run")
    for row in found:
        assert row["rollout/legal"] == 1.0
        assert row["rollout/degree"] >= 1.0
        assert row["rollout/failed"] == 0
        assert 0 <= row["mismatch/mean"] <= row["mismatch/largest"] < 1e-3
        assert 0 <= row["rollout/zero_advantage"] < 1
        assert 0 < row["rollout/tokens_forced"] < row["rollout/tokens"]
        assert row["rollout/tokens_prompt"] > 3 and 0 < row["rollout/in_branches"] < 1
        assert row["speed/entries"] > 0 and row["speed/tflops"] > 0
        assert "speed/mfu" not in row
    assert "updates" not in found[0]


def test_the_engine_samples_in_the_precision_that_is_trained_in(tiny: Tiny, tmp_path: Path) -> None:
    options = {"run__precision": "bf16", "rollout__mismatch": 0.05, "steps": 1}
    (row,) = papo(tiny, tmp_path / "run", **options)
    assert 1e-6 < row["mismatch/mean"] < 1e-2


def test_sequential_rollouts_have_no_degree(tiny: Tiny, tmp_path: Path) -> None:
    found = papo(tiny, tmp_path / "run", rollout__mode="free")
    assert all(row["rollout/degree"] == 1.0 for row in found)
    assert all(row["rollout/critical_path"] == row["rollout/tokens"] for row in found)


def test_a_step_is_refused_where_rollout_and_trainer_differ(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(MismatchError):
        papo(tiny, tmp_path / "papo", rollout__mismatch=1e-12)
    with pytest.raises(MismatchError):
        zero(tiny, tmp_path / "zero", rollout__mismatch=1e-12)
    assert not (tmp_path / "papo" / "metrics.jsonl").exists()
    assert not (tmp_path / "papo" / "model").exists()


def test_tokens_are_weighed_by_the_ratio_of_trainer_and_engine(tiny: Tiny, tmp_path: Path) -> None:
    """On policy the ratios are 1, so little changes; it is seen that they are used."""
    plain = papo(tiny, tmp_path / "plain")
    weighed = papo(tiny, tmp_path / "weighed", importance_cap=2.0)
    for a, b in zip(plain, weighed, strict=True):
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
    assert [a["gradient_norm"] for a in plain] != [b["gradient_norm"] for b in weighed]


def test_a_trace_must_fit_the_packed_rows(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`rollout.max_tokens` is 600 .* give room for 60[0-9]"):
        papo(tiny, tmp_path / "run", rollout__max_tokens=600)


def test_prompts_that_cannot_be_spelled_are_listed(tiny: Tiny, tmp_path: Path) -> None:
    source, told = tmp_path / "problems.jsonl", list[str]()
    bad = {"id": "bad", "prompt": "why?", "answer": "1"}
    source.write_text(json.dumps(bad) + "\n" + tiny.problems.read_text(), encoding="utf-8")
    config = tiny.config("papo", tmp_path / "run", data__source=str(source), steps=1)
    train_papo(read_config(PapoConfig, config), tell=told.append)
    listed = tmp_path / "run" / "rejected.jsonl"
    assert json.loads(listed.read_text())["where"] == "bad"
    assert told == [f"rows that are no problems: 1; {listed}"]
