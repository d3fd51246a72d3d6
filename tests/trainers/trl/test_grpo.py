"""One step of TRL's GRPOTrainer on parallel rollouts is one step of our own PAPO loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import nprdsl
from nprdsl import Limits
from nprdsl.trainers.attention.segments import register
from nprdsl.trainers.batch.scoring import score
from nprdsl.trainers.objective.losses import papo
from nprdsl.trainers.rollout.rollout import OffPolicyError, Rollout
from tests.cli.commands import ROOT
from tests.trainers.trl.steps import QUESTION, farthest, llama, our_step, sgd, tokenizer, weights

trl = pytest.importorskip("trl", minversion="1.16")

from nprdsl.trainers.trl import rollouts as module  # noqa: E402
from nprdsl.trainers.trl.grpo import TraceGRPOTrainer  # noqa: E402
from nprdsl.trainers.trl.model_inputs import MaskForm  # noqa: E402
from nprdsl.trainers.trl.rollouts import EngineRollouts, RolloutError  # noqa: E402

LIMITS = Limits(max_tokens=64)
SAMPLES = 2
NPR = (ROOT / "grammars/npr.lark").read_text(encoding="utf-8")
FORKS = NPR.replace("block (_NL block)~0..15 answer", "block answer").replace("~1..5", "~2..2")


def by_ids(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs within a group."""
    return [float(sum(ids) % 1009) for ids in completion_ids]


def trainer(
    folder: Path, grammar: str = FORKS, form: MaskForm = MaskForm.DENSE, **settings: Any
) -> TraceGRPOTrainer:
    """A trainer for a schema of one fork with two branches."""
    path = folder / "two.lark"
    path.write_text(grammar, encoding="utf-8")
    trained = llama()
    trained.set_attn_implementation(form.value)
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": SAMPLES, "num_generations": SAMPLES,
        "max_grad_norm": 0.0, "report_to": "none", "use_cpu": True, "bf16": False,
        "logging_steps": 1, "save_strategy": "no", "lr_scheduler_type": "constant",
        "loss_type": "dapo", "scale_rewards": "batch", "beta": 0.0,
    }  # fmt: skip
    return TraceGRPOTrainer(
        trained,
        by_ids,
        trl.GRPOConfig(str(folder), **defaults | settings),
        train_dataset=Dataset.from_dict({"prompt": [QUESTION] * 4}),
        processing_class=tokenizer(),
        optimizers=(sgd(trained), None),
        rollout_func=EngineRollouts(nprdsl.load(path), LIMITS),
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Rollout]:
    """The rollouts that the engine gave."""
    seen: list[Rollout] = []

    def recorded(*arguments: Any, **options: Any) -> list[Rollout]:
        done = original(*arguments, **options)
        seen.extend(done)
        return done

    original = module.rollouts
    monkeypatch.setattr(module, "rollouts", recorded)
    return seen


@pytest.mark.parametrize("form", [MaskForm.DENSE, MaskForm.SEGMENTS], ids=lambda form: form.name)
def test_a_step_of_grpo_is_ours(tmp_path: Path, drawn: list[Rollout], form: MaskForm) -> None:
    register()
    theirs = trainer(tmp_path, form=form)
    theirs.train()
    assert all(one.graph.critical_path < one.graph.tokens for one in drawn)
    assert len(drawn) == SAMPLES == len({one.token_ids for one in drawn})
    rewards = np.array(by_ids([list(one.token_ids) for one in drawn]))
    advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    rows = [one.row.weighted(a) for one, a in zip(drawn, advantages, strict=True)]
    ours, wanted = our_step(rows, lambda i: papo(i.logprobs, i.weights, i.tokens))
    assert sum(row.tokens for row in rows) < sum(len(one.token_ids) for one in drawn)
    logged = theirs.state.log_history[0]
    assert logged["loss"] == pytest.approx(ours.loss, abs=1e-4)
    assert logged["reward_std"] > 0
    assert farthest(wanted, weights(llama())) > 0.01
    assert farthest(weights(theirs.model), wanted) < 1e-4


def test_traces_that_are_read_again_are_scored_as_they_were_sampled(
    tmp_path: Path, drawn: list[Rollout]
) -> None:
    theirs = trainer(tmp_path, FORKS.replace("reduce", "reread"))
    fields = theirs.rollout_func([QUESTION, QUESTION + "?"], theirs)
    width = max(map(len, fields["completion_ids"]))
    ids, seen = torch.zeros(2, 20 + width, dtype=torch.long), torch.zeros(2, 20 + width)
    for line, (prompt, trace) in enumerate(
        zip(fields["prompt_ids"], fields["completion_ids"], strict=True)
    ):
        span = slice(20 - len(prompt), 20 + len(trace))
        ids[line, span], seen[line, span] = torch.tensor([*prompt, *trace]), 1
    with torch.no_grad():
        logps, entropies, _ = theirs._get_per_token_logps_and_entropies(
            theirs.model, ids, seen, width, batch_size=1, compute_entropy=True
        )
        wanted = score(theirs.model, [one.row for one in drawn])
    assert any(len(one.row) > one.row.token.max() + 1 for one in drawn), "no copies"
    found = []
    for line, (sampled, logprobs) in enumerate(
        zip(fields["env_mask"], fields["logprobs"], strict=True)
    ):
        at = np.flatnonzero(sampled)
        assert 0 < len(at) < len(sampled)
        assert np.abs(logps[line, at].numpy() - np.array(logprobs)[at]).max() < 1e-4
        assert (entropies[line, at] > 0).all()
        assert not logps[line, len(sampled) :].any()
        found.append(logps[line, at])
    assert torch.allclose(torch.cat(found), wanted, atol=1e-4)


def test_a_reference_model_reads_the_mask_in_its_own_form(tmp_path: Path) -> None:
    """It may have another attention than the model that is trained."""
    register()
    theirs, reference = trainer(tmp_path, form=MaskForm.SEGMENTS), trainer(tmp_path).model
    theirs.model.eval()
    fields = theirs.rollout_func([QUESTION], theirs)
    (prompt,), (trace,) = fields["prompt_ids"], fields["completion_ids"]
    ids = torch.tensor([[*prompt, *trace]])
    with torch.no_grad():
        found, wanted = (
            theirs._get_per_token_logps_and_entropies(one, ids, torch.ones_like(ids), len(trace))[0]
            for one in (reference, theirs.model)
        )
    assert torch.allclose(found, wanted, atol=1e-4)


def test_batches_differ_and_come_again(tmp_path: Path) -> None:
    theirs, again = trainer(tmp_path), trainer(tmp_path)
    theirs.model.train()
    first, second = (theirs.rollout_func([QUESTION], theirs) for _ in range(2))
    assert theirs.model.training
    assert first["completion_ids"] != second["completion_ids"]
    assert again.rollout_func([QUESTION], again) == first
    assert nprdsl.load("npr").check(first["trace_text"][0]) == []  # reward functions see the tags
    assert first["trace_finish"][0] in ("completed", "budget")
    assert 0 < first["critical_path"][0] < len(first["completion_ids"][0])


def test_sampling_that_bends_the_model_is_refused(tmp_path: Path) -> None:
    theirs = trainer(tmp_path, top_p=0.9)
    with pytest.raises(OffPolicyError, match=r"GRPOConfig has top_p=0.9.*leave it at 1.0"):
        theirs.rollout_func([QUESTION], theirs)


def test_a_trace_is_needed_for_every_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "rollouts", lambda *_, **__: [])
    theirs = trainer(tmp_path)
    with pytest.raises(RolloutError, match="2 of 2 rollouts failed"):
        theirs.rollout_func([QUESTION, QUESTION], theirs)


def test_a_completion_that_trl_hides_is_not_scored(tmp_path: Path) -> None:
    theirs = trainer(tmp_path)
    ids, seen = torch.full((1, 9), 65), torch.tensor([[1] * 5 + [0] * 4])
    logps, _, _ = theirs._get_per_token_logps_and_entropies(theirs.model, ids, seen, 4)
    assert logps.tolist() == [[0.0] * 4]
