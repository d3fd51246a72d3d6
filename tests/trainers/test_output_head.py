"""What a model does around its head is kept: scales, caps, biases, tied and partly trained rows;
a model that does something else has its logits made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from nprdsl.trainers.batch import output_head
from nprdsl.trainers.batch.output_head import fitted
from nprdsl.trainers.batch.scoring import predictors, score
from nprdsl.trainers.batch.training_rows import TrainingRow, causal_row, pack
from nprdsl.trainers.config.stages import LoraSection
from nprdsl.trainers.objective.head_logprobs import UNBENT, LogitMap
from nprdsl.trainers.run.lora import add_lora
from tests.runtime.tiny_models import SHAPE, WIDTH

LAYERS: dict[str, Any] = SHAPE | {"num_hidden_layers": 1, "num_attention_heads": 4}
CAP, SIXTH = LogitMap(cap=1.5), LogitMap(1 / 6)
CASES: dict[str, tuple[type[PreTrainedModel], Any, LogitMap]] = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**LAYERS), UNBENT),
    "tied": (hf.Qwen3ForCausalLM, hf.Qwen3Config(**LAYERS, tie_word_embeddings=True), UNBENT),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config(**LAYERS, final_logit_softcapping=1.5), CAP),
    "cohere": (hf.CohereForCausalLM, hf.CohereConfig(**LAYERS, logit_scale=0.25), LogitMap(0.25)),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig(**LAYERS, logits_scaling=6.0), SIXTH),
    "bias": (hf.PhiForCausalLM, hf.PhiConfig(**LAYERS), UNBENT),
    "gpt2": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config(vocab_size=WIDTH, n_embd=32, n_layer=1, n_head=4, n_positions=64),
        UNBENT,
    ),
}


class Odd(hf.LlamaForCausalLM):
    """Does with its logits what is neither a scale nor a cap."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits + out.logits.square()
        return out


def rows(count: int) -> list[TrainingRow]:
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, WIDTH, 8 + 2 * number).tolist() for number in range(count)]
    return [causal_row(ids[:3], ids[3:]) for ids in drawn]


def dense(model: PreTrainedModel, row: TrainingRow) -> torch.Tensor:
    """The oracle: all logits of one trace, as the model gives them."""
    ids = torch.from_numpy(row.ids.astype(np.int64))
    logits = model(input_ids=ids[None], use_cache=False).logits[0, predictors(row)].float()
    return logits.log_softmax(-1)[torch.arange(row.tokens), ids[row.sampled]]


def same_as_dense(model: PreTrainedModel, *, packed: bool) -> None:
    """Log-probabilities and all gradients of three traces, beside each other or packed."""
    parts = rows(3)
    upstream = torch.randn(sum(row.tokens for row in parts))
    trained = [p for p in model.parameters() if p.requires_grad]
    found = score(model, [pack(parts)] if packed else parts)
    wanted = torch.cat([dense(model, row) for row in parts])
    assert torch.allclose(found, wanted, atol=1e-5)
    pairs = zip(
        torch.autograd.grad(found @ upstream, trained),
        torch.autograd.grad(wanted @ upstream, trained),
        strict=True,
    )
    for one, other in pairs:
        assert (one - other).abs().max() <= 1e-5 * max(1.0, float(other.abs().max()))


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many log-probabilities were made of hidden states, each time."""
    made: list[int] = []
    inner: Callable[..., torch.Tensor] = output_head.head_logprobs

    def counting(hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        made.append(len(hidden))
        return inner(hidden, *rest)

    monkeypatch.setattr(output_head, "head_logprobs", counting)
    return made


@pytest.mark.parametrize("name", CASES)
def test_what_a_model_does_with_its_logits_is_kept(name: str, counted: list[int]) -> None:
    kind, config, bent = CASES[name]
    torch.manual_seed(2)
    model = kind(config).eval()
    with torch.no_grad():
        for weights in model.get_output_embeddings().parameters():
            weights.normal_()
    for packed in (True, False):
        same_as_dense(model, packed=packed)
    tokens = sum(row.tokens for row in rows(3))
    assert counted == [tokens, tokens]  # only what predicts something
    known = output_head._MAPS[model]
    assert known is not None
    assert known.scale == pytest.approx(bent.scale, rel=1e-6)
    assert known.cap == (None if bent.cap is None else pytest.approx(bent.cap))


def test_a_model_of_its_own_way_has_its_logits_made(counted: list[int]) -> None:
    torch.manual_seed(2)
    model = Odd(hf.LlamaConfig(**LAYERS)).eval()
    same_as_dense(model, packed=False)
    assert output_head._MAPS[model] is None and not counted


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [(), ("q_proj", "lm_head")])
def test_an_adapter_with_trained_rows(
    tied: bool, targets: tuple[str, ...], counted: list[int]
) -> None:
    pytest.importorskip("peft")
    if tied and targets:
        pytest.skip("PEFT refuses to adapt a tied head")
    torch.manual_seed(2)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**LAYERS, tie_word_embeddings=tied)).eval()
    new = [] if targets else [3, 17, 40]
    add_lora(model, LoraSection(rank=2, targets=targets), new)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.requires_grad:
                weights.normal_(0, 0.1)
    same_as_dense(model, packed=True)
    assert bool(counted) is not bool(targets)  # a head with an adapter of its own is no matrix


def test_a_head_that_is_sharded_by_itself_has_its_weights_in_the_backward() -> None:
    """FSDP gathers them when the gradient of what the head gave arrives."""

    def gradients(*, sharded: bool) -> list[torch.Tensor]:
        torch.manual_seed(2)
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**LAYERS)).eval()
        if sharded:
            mesh = init_device_mesh("cpu", (1,))
            for part in (*model.model.layers, model.lm_head, model):
                fully_shard(part, mesh=mesh)
        score(model, rows(2)).sum().backward()
        assert output_head._MAPS[model] == UNBENT
        every = [p.grad for p in model.parameters()]
        return [g.full_tensor() if isinstance(g, DTensor) else g for g in every]

    wanted = gradients(sharded=False)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        found = gradients(sharded=True)
    finally:
        distributed.destroy_process_group()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))


def test_the_head_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**LAYERS)).eval()
    before = model(input_ids=torch.tensor([[1, 2]])).logits
    score(model, rows(1))

    def fail(*rest: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(output_head, "head_logprobs", fail)
    with pytest.raises(KeyboardInterrupt):
        score(model, rows(1))
    assert torch.equal(model(input_ids=torch.tensor([[1, 2]])).logits, before)


@pytest.mark.parametrize("scale", [1.0, -0.3, 1 / 6, 40.0])
@pytest.mark.parametrize("cap", [None, 0.5, 30.0])
def test_the_map_is_found_again(scale: float, cap: float | None) -> None:
    known = torch.logspace(-2, 4, 50)
    known[::2] *= -1
    made = LogitMap(scale, cap).bend_(known.clone())
    found = fitted(known.double(), made.double())
    assert found is not None and found.scale == pytest.approx(scale, rel=1e-6)
    assert found.cap == (None if cap is None else pytest.approx(cap))


@pytest.mark.parametrize("other", ["square", "clamp", "shift", "column", "nothing"])
def test_other_maps_are_not_taken_for_one(other: str) -> None:
    known = torch.logspace(-2, 4, 50, dtype=torch.float64)
    known[::2] *= -1
    made = {
        "square": known + known.square(),
        "clamp": known.clamp(-30, 30),
        "shift": known + 1,
        "column": known.index_fill(0, torch.tensor([7]), -1e9),
        "nothing": 0 * known,
    }[other]
    assert fitted(known, made) is None
