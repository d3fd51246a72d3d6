"""One step of TRL's SFTTrainer with our masks is one step of our own trainer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nprdsl.trainers.attention.segments import register
from nprdsl.trainers.batch.trace_rows import trace_row
from nprdsl.trainers.batch.training_rows import TrainingRow, causal_row
from nprdsl.trainers.config.stages import LossTokens
from nprdsl.trainers.objective.losses import sft
from tests.runtime.tiny_models import model as tiny
from tests.trainers.trl.steps import (
    OTHER,
    QUESTION,
    TRACE,
    bound,
    farthest,
    llama,
    our_step,
    sgd,
    tokenizer,
    weights,
)

trl = pytest.importorskip("trl", minversion="1.16")

from trl.experimental.async_grpo import packing  # noqa: E402

from nprdsl.trainers.trl.model_inputs import (  # noqa: E402
    MaskForm,
    MaskFormError,
    mask_form,
    model_inputs,
)
from nprdsl.trainers.trl.sft import SFT_SETTINGS, RowCollator, sft_dataset  # noqa: E402


def rows(loss: LossTokens = LossTokens.WRITTEN) -> list[TrainingRow]:
    prompt = tuple(tokenizer().encode(QUESTION))
    return [trace_row(bound(), prompt, text, loss=loss) for text in (TRACE, OTHER)]


def varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, q_ends: torch.Tensor,
    k_ends: torch.Tensor, longest_q: int, longest_k: int, **options: Any,
) -> torch.Tensor:  # fmt: skip
    """What TRL's kernel of Flash Attention 3 computes, plainly: [L, H, D], [K, H', D]."""
    assert options["causal"] and options["window_size"] == (-1, -1)
    assert int(q_ends.diff().max()) == longest_q and int(k_ends.diff().max()) == longest_k
    attended, shared = [], query.shape[1] // key.shape[1]
    for (first, last), own in zip(pairwise(q_ends), pairwise(k_ends), strict=True):
        keys, values = (t[slice(*own)].repeat_interleave(shared, 1) for t in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:last], keys) * options["softmax_scale"]
        ahead = torch.ones(scores.shape[1:]).triu(len(keys) - int(last - first) + 1).bool()
        chances = scores.masked_fill(ahead, -torch.inf).softmax(-1)
        attended.append(torch.einsum("hqk,khd->qhd", chances, values))
    return torch.cat(attended)


@pytest.fixture
def their_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's own tree attention, over a kernel that runs on a CPU."""
    kernel = SimpleNamespace(flash_attn_varlen_func=varlen)
    monkeypatch.setattr(packing, "_flash_attn", lambda: kernel)
    packing.register_tree_attention()
    register()


def their_step(
    folder: Path, batch: list[TrainingRow], form: MaskForm
) -> tuple[float, list[torch.Tensor], dict[str, float]]:
    """One step of SFTTrainer: its loss, the weights behind it, what it logged."""
    trained = llama()
    trained.set_attn_implementation(form.value)
    trainer = trl.SFTTrainer(
        trained,
        trl.SFTConfig(
            str(folder), max_steps=1, per_device_train_batch_size=2, max_grad_norm=0.0,
            report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
            lr_scheduler_type="constant", **SFT_SETTINGS,
        ),
        train_dataset=sft_dataset(batch),
        data_collator=RowCollator(mask_form(trained)),
        processing_class=tokenizer(),
        optimizers=(sgd(trained), None),
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history[0]["loss"], weights(trained), trainer.state.log_history[0]


@pytest.mark.usefixtures("their_kernel")
@pytest.mark.parametrize("form", list(MaskForm), ids=lambda form: form.name)
def test_a_step_of_sft_is_ours(tmp_path: Path, form: MaskForm) -> None:
    ours, wanted = our_step(rows(), lambda i: sft(i.logprobs, i.tokens))
    loss, found, logged = their_step(tmp_path, rows(), form)
    assert loss == pytest.approx(ours.loss, abs=1e-4)
    assert farthest(wanted, weights(llama())) > 0.01
    assert farthest(found, wanted) < 1e-4
    entries = sum(map(len, rows())) + 1  # one fork of two branches
    assert form is MaskForm.DENSE or logged["num_tokens"] == entries


def test_forced_tokens_may_carry_no_loss(tmp_path: Path) -> None:
    batch = rows(LossTokens.SAMPLED)
    ours, wanted = our_step(batch, lambda i: sft(i.logprobs, i.tokens))
    loss, found, _ = their_step(tmp_path, batch, MaskForm.DENSE)
    assert ours.tokens < sum(row.tokens for row in rows())
    assert loss == pytest.approx(ours.loss, abs=1e-4) and farthest(found, wanted) < 1e-4


def test_rows_come_back_from_a_dataset() -> None:
    batch = rows()
    collated = RowCollator(MaskForm.DENSE)(list(sft_dataset(batch)))
    wanted = model_inputs(batch, MaskForm.DENSE).arguments
    assert collated.keys() == wanted.keys()
    assert all((collated[name] == wanted[name]).all() for name in wanted)


def test_what_sft_cannot_take_is_refused() -> None:
    row = rows()[0]
    with pytest.raises(ValueError, match="row 1 has weights; the loss of SFTTrainer weighs all"):
        sft_dataset([row, row.weighted(2)])
    with pytest.raises(ValueError, match="row 0 samples no token"):
        sft_dataset([causal_row([1, 2], [])])
    with pytest.raises(ValueError, match=r"lacks the columns ids, position.*SFT_SETTINGS"):
        RowCollator(MaskForm.DENSE)([{"input_ids": [1, 2]}])


def test_models_without_a_mask_of_branches_are_refused() -> None:
    trained = llama()
    trained.set_attn_implementation("eager")
    with pytest.raises(MaskFormError, match="is `eager`, which takes no mask of branches"):
        mask_form(trained)
    with pytest.raises(MaskFormError, match="Gemma3ForCausalLM has layers of sliding_attention"):
        mask_form(tiny("gemma3"))
