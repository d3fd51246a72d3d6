"""Sizes and operations against other counters; a plan grows and shrinks with what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from nprdsl.runtime.errors import ModelNotFoundError, UnsupportedModelError
from nprdsl.trainers.config.stages import PapoConfig, SftConfig, TrainingConfig
from nprdsl.trainers.run.model_size import ModelSize
from nprdsl.trainers.run.plan import Gpus, plan, stage_of
from tests.cli.commands import ROOT
from tests.runtime.tiny_models import SHAPE

LENGTH = 24
SMALL = Gpus(count=4, memory=16)


@pytest.mark.parametrize("tied", [True, False])
def test_operations_are_those_that_torch_counts(tied: bool) -> None:
    config = LlamaConfig(num_hidden_layers=3, **SHAPE, tie_word_embeddings=tied)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    size = ModelSize.of(model)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, LENGTH, dtype=torch.int64)).logits.sum().backward()
    entries, squares = 2 * LENGTH, 2 * LENGTH**2
    counted = counter.get_total_flops()
    # Torch counts what a mask hides too.
    assert size.flops(entries, 2 * squares, entries) == pytest.approx(counted, rel=0.002)
    assert size.parameters == size.trained == model.num_parameters()
    assert size.largest_layer == sum(p.numel() for p in model.model.layers[0].parameters())


def test_an_entry_meets_the_experts_that_are_chosen_for_it() -> None:
    few, many = (
        Qwen3MoeForCausalLM(
            Qwen3MoeConfig(
                num_hidden_layers=1, **SHAPE, moe_intermediate_size=16, num_experts=experts,
                num_experts_per_tok=2,
            )
        )
        for experts in (2, 8)
    )  # fmt: skip
    routers = 6 * few.config.hidden_size
    assert ModelSize.of(many).inner == ModelSize.of(few).inner + routers
    assert ModelSize.of(many).parameters > ModelSize.of(few).parameters + routers


def settings(folder: Path, **changes: Any) -> SftConfig:
    shape = Qwen3Config(
        vocab_size=50_000, hidden_size=512, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, head_dim=64, tie_word_embeddings=True,
        architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    shape.save_pretrained(folder)
    model = {"path": str(folder), "attention": "blocks"} | changes.pop("model", {})
    run = {"output": "x", "precision": "bf16", "room": 8192} | changes.pop("run", {})
    return SftConfig.model_validate(
        {"model": model, "data": {"source": "x"}, "run": run, **changes}
    )


def total(config: TrainingConfig, gpus: Gpus | None = None) -> int:
    return plan(config, gpus or Gpus()).total


def test_the_parts_of_a_plan(tmp_path: Path) -> None:
    config = settings(tmp_path)
    made = plan(config, SMALL)
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config.from_pretrained(tmp_path))
    parameters = model.num_parameters()
    assert made.size.parameters == parameters
    assert made.fixed["weights, shared out"] == parameters
    assert made.fixed["AdamW, shared out"] == 2 * parameters
    assert made.fits and made.largest_room > 8192
    longest = config.model_copy(
        update={"run": config.run.model_copy(update={"room": made.largest_room})}
    )
    assert plan(longest, SMALL).fits
    beyond = config.run.model_copy(update={"room": made.largest_room + 1024})
    assert not plan(config.model_copy(update={"run": beyond}), SMALL).fits


def test_what_takes_more_and_what_takes_less(tmp_path: Path) -> None:
    usual = total(settings(tmp_path))
    assert total(settings(tmp_path), Gpus(count=16)) < usual
    assert total(settings(tmp_path, model={"lora": {"rank": 4}})) < usual
    assert total(settings(tmp_path, model={"dtype": "bf16"})) < usual
    assert total(settings(tmp_path, model={"attention": "dense"})) > usual
    assert total(settings(tmp_path, run={"precision": "no"})) > usual
    assert total(settings(tmp_path, run={"room": 16_384})) > usual


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_and_states_are_as_precise_as_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    """With LoRA what is trained is in fp32, whatever the rest is in."""
    name = "fp32" if dtype is torch.float32 else "bf16"
    weights = torch.nn.Parameter(torch.ones(8, dtype=dtype))
    optimizer = torch.optim.AdamW([weights])
    (weights * 2).sum().backward()
    optimizer.step()
    assert weights.grad is not None
    states = [kept for kept in optimizer.state[weights].values() if kept.numel() > 1]
    made = plan(settings(tmp_path, model={"dtype": name}), Gpus(count=1))
    trained = made.size.trained
    assert made.fixed["gradients, shared out"] == trained * weights.grad.element_size()
    assert made.fixed["AdamW, shared out"] == trained * sum(s.element_size() for s in states)
    lora = plan(settings(tmp_path, model={"dtype": name, "lora": {"rank": 4}}), Gpus(count=1))
    assert lora.fixed["AdamW, shared out"] == 8 * lora.size.trained


def test_a_forward_of_several_rows(tmp_path: Path) -> None:
    """Each has its own mask."""
    one = settings(tmp_path, model={"attention": "dense"}, run={"room": 2048})
    four = settings(tmp_path, model={"attention": "dense"}, run={"room": 2048, "rows": 4})
    alone, together = plan(one, SMALL), plan(four, SMALL)
    assert together.growing["masks"] == 4 * alone.growing["masks"]
    assert together.growing["inputs of all layers"] == 4 * alone.growing["inputs of all layers"]
    assert together.largest_room < alone.largest_room
    assert "4 GPUs; forwards of 4 rows of 2,048 entries" in together.lines[0]


def test_what_never_fits_is_told(tmp_path: Path) -> None:
    made = plan(settings(tmp_path), Gpus(count=1, memory=1.0))
    assert not made.fits and not made.largest_room and "; 1 GPU; " in made.lines[0]
    assert any("it does not fit, however short rows are" in line for line in made.lines)


def test_time_is_that_of_the_entries(tmp_path: Path) -> None:
    config = settings(tmp_path)
    once = plan(config, Gpus())
    assert once.seconds == pytest.approx(2 * plan(config, Gpus(tflops=600)).seconds)
    assert plan(settings(tmp_path, batch=24), Gpus()).seconds == pytest.approx(3 * once.seconds)
    assert plan(config, Gpus(count=1)).seconds == pytest.approx(8 * once.seconds)
    papo = PapoConfig.model_validate(
        {"model": config.model, "data": config.data, "run": config.run, "rollout": {"prompts": 2}}
    )
    assert plan(papo, Gpus()).traces == 32


def test_the_local_engine_takes_memory_of_its_own(tmp_path: Path) -> None:
    """A copy of weights that are shared out, and what it keeps of every entry."""
    usual, papo = settings(tmp_path), {"reward": "papo", "rollout": {"prompts": 2}}
    shared = {"model": usual.model, "data": usual.data, "run": usual.run}
    here = plan(PapoConfig.model_validate(papo | shared), SMALL)
    engine = {"address": "http://x", "max_kv_tokens": 100}
    away = plan(PapoConfig.model_validate(papo | shared | {"engine": engine}), SMALL)
    copied = here.size.parameters * 4
    cached = 65_536 * 4 * (4 * 2 * 2 * 64)  # slots, bytes, layers x heads x keys and values x size
    assert here.total - away.total == copied + cached
    asked = settings(tmp_path, evaluation={"data": {"source": "x"}})
    assert total(asked, SMALL) - total(usual, SMALL) == copied + cached
    alone = Gpus(count=1, memory=SMALL.memory)
    assert total(asked, alone) - total(usual, alone) == cached


def test_the_shape_of_qwen3_4b() -> None:
    """The parameters that its publisher counts."""
    folder = str(ROOT / "configs/npr-4b/shape")
    config = SftConfig.model_validate(
        {"model": {"path": folder}, "data": {"source": "x"}, "run": {"output": "x"}}
    )
    assert plan(config, Gpus()).size.parameters == 4_022_468_096


def test_plans_that_cannot_be(tmp_path: Path) -> None:
    missing = settings(tmp_path, model={"path": str(tmp_path / "none")})
    with pytest.raises(ModelNotFoundError, match="name another model of its shape"):
        plan(missing, Gpus())
    MambaConfig(num_hidden_layers=1, hidden_size=32).save_pretrained(tmp_path / "mamba")
    with pytest.raises(UnsupportedModelError, match="no attention layers"):
        plan(settings(tmp_path, model={"path": str(tmp_path / "mamba")}), Gpus())
    for broken in ("{", '{"model_type": "nosuch"}'):
        (tmp_path / "none").mkdir(exist_ok=True)
        (tmp_path / "none" / "config.json").write_text(broken)
        with pytest.raises(ModelNotFoundError, match=r"which cannot be read .*another model"):
            plan(missing, Gpus())
    for size in (0.0, float("nan"), float("inf"), 1e308):
        with pytest.raises(ValueError, match="at least one GPU"):
            Gpus(memory=size)
    with pytest.raises(ValueError, match="at least one GPU"):
        Gpus(count=0)
    assert stage_of(Path("a/papo.toml")) == "papo"
    with pytest.raises(ValueError, match=r"which stage `a\.toml` is for"):
        stage_of(Path("a.toml"))
