"""Rollouts for TRL's `GRPOTrainer`: traces that the local engine writes with the trained weights.

An `EngineRollouts` is a `rollout_func`. For every prompt it gives ids of the prompt and of the
trace, the log-probability of each token when it was sampled, and `env_mask`: 1 for sampled tokens,
0 for forced ones, which TRL then leaves out of the loss. Reward functions of TRL see texts without
special tokens, so they get `trace_text`, `trace_answer`, `trace_finish` and `critical_path` beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from accelerate.utils import is_peft_model

from nprdsl.machine.budget import Limits
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.local.engine import MAX_KV_TOKENS, MAX_ROWS
from nprdsl.runtime.prompts import Prompt
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.rollout.engines import RolloutEngine, shared_engine
from nprdsl.trainers.rollout.rollout import OffPolicyError, Rollout, rollouts

if TYPE_CHECKING:
    from trl import GRPOTrainer

# What TRL would sample with, and the only values under which tokens are the model's own.
_NEUTRAL: Final = {
    "temperature": (1.0,), "top_p": (1.0,), "top_k": (0, None), "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
}  # fmt: skip


class RolloutError(RuntimeError):
    """A request failed, where a trainer needs a trace for every prompt."""


@dataclass(slots=True, eq=False)
class EngineRollouts:
    """The `rollout_func` of a trainer, for one schema.

    `limits`, `chat` and `instructions` are those of `Engine.generate`; `max_kv_tokens` and
    `max_rows` those of `LocalEngine`. What is drawn follows from the trainer's seed, step and
    process, and from how many batches were drawn before. Raises OffPolicyError where the trainer
    asks for sampling that bends the model's distribution, UnsupportedModelError, RolloutError, and
    ValueError for weights that are shared out over processes.
    """

    schema: Schema
    limits: Limits
    chat: bool = False
    instructions: bool = False
    max_kv_tokens: int = MAX_KV_TOKENS
    max_rows: int = MAX_ROWS
    _engine: RolloutEngine | None = field(default=None, init=False)
    _batches: int = field(default=0, init=False)

    def __call__(self, prompts: Sequence[Prompt], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        """A trace for each prompt, which TRL repeats for every sample of a group."""
        _check_settings(trainer.args)
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        engine = self._refreshed(trainer)
        self._batches += 1
        place = (
            trainer.args.seed, trainer.state.global_step, self._batches,
            trainer.accelerator.process_index,
        )  # fmt: skip
        try:
            done = rollouts(
                engine.engine, self.schema, prompts, 1, limits=self.limits,
                seeds=[_seed(*place, number) for number in range(len(prompts))],
                chat=self.chat, instructions=self.instructions,
            )  # fmt: skip
        finally:
            model.train(was_training)
        if len(done) != len(prompts):
            raise RolloutError(
                f"{len(prompts) - len(done)} of {len(prompts)} rollouts failed; TRL needs one for "
                "every prompt: lower the limits, or give the engine more `max_kv_tokens`"
            )
        return as_trl(done)

    def bind(self, trainer: GRPOTrainer) -> BoundSchema:
        """The schema over the vocabulary of the trainer's tokenizer."""
        if self._engine is not None:
            return self._engine.engine.bind(self.schema)
        return self.schema.bind(Vocabulary.from_tokenizer(trainer.processing_class))

    def _refreshed(self, trainer: GRPOTrainer) -> RolloutEngine:
        """The engine, which has forgotten what it computed with earlier weights."""
        if self._engine is None:
            model = trainer.accelerator.unwrap_model(trainer.model)
            self._engine = shared_engine(
                model.get_base_model() if is_peft_model(model) else model,
                trainer.processing_class,
                max_kv_tokens=self.max_kv_tokens,
                max_rows=self.max_rows,
            )
        self._engine.refresh()
        return self._engine


def as_trl(done: Sequence[Rollout]) -> dict[str, list[Any]]:
    """Rollouts as the fields that TRL takes, a value for each of them."""
    fields: dict[str, list[Any]] = {name: [] for name in (
        "prompt_ids", "completion_ids", "logprobs", "env_mask",
        "trace_text", "trace_answer", "trace_finish", "critical_path",
    )}  # fmt: skip
    for one in done:
        row, length = one.row, len(one.token_ids)
        ids = np.zeros(int(row.token.max()) + 1, np.int64)
        ids[row.token] = row.ids
        prompt = len(ids) - length
        places = row.token[row.sampled] - prompt
        logprobs, sampled = np.zeros(length), np.zeros(length, np.int64)
        logprobs[places], sampled[places] = row.logprobs, 1
        fields["prompt_ids"].append(ids[:prompt].tolist())
        fields["completion_ids"].append(list(one.token_ids))
        fields["logprobs"].append(logprobs.tolist())
        fields["env_mask"].append(sampled.tolist())
        fields["trace_text"].append(one.text)
        fields["trace_answer"].append(one.answer)
        fields["trace_finish"].append(one.finish.value)
        fields["critical_path"].append(length if one.graph is None else one.graph.critical_path)
    return fields


def _check_settings(settings: Any) -> None:
    for name, neutral in _NEUTRAL.items():
        value = getattr(settings, name)
        if value not in neutral:
            raise OffPolicyError(
                f"GRPOConfig has {name}={value}: what is sampled is then not the policy that is "
                f"trained; leave it at {neutral[0]}"
            )


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
