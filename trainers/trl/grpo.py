"""TRL's `GRPOTrainer` for parallel traces: each is scored with its own mask and positions.

Everything else is TRL's: groups, rewards, advantages, losses, clips, reference models, logging.
TRL hands ids to the log-probability pass, padded and in any order; the layout of each trace follows
from its ids by the one parser, as in the engine, so nothing has to travel beside them.

PAPO (arXiv:2512.07461) is `loss_type="dapo"`, `scale_rewards="batch"`, `beta=0.0` with one step for
each batch of rollouts: nothing is clipped then. TRL divides by the standard deviation of the sample
plus 1e-4, `nprdsl train papo` by that of the population.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from trl import GRPOTrainer

from nprdsl.trainers.batch.trace_rows import written_row
from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.trl.model_inputs import ModelInputs, mask_form, model_inputs
from nprdsl.trainers.trl.rollouts import EngineRollouts


class TraceGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with rollouts by the engine; all other arguments are TRL's.

    Raises MaskFormError for a model whose attention takes no mask of branches, and ValueError for
    one with a router loss, whose mask is not that of branches.
    """

    def __init__(self, *args: Any, rollout_func: EngineRollouts, **options: Any) -> None:
        super().__init__(*args, rollout_func=rollout_func, **options)
        mask_form(self.accelerator.unwrap_model(self.model))
        self._bound = rollout_func.bind(self)
        if self.aux_loss_enabled:
            raise ValueError(
                "the router loss of a mixture of experts takes no mask of branches: set "
                "router_aux_loss_coef=0.0"
            )

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """[B, C] log-probabilities of the tokens behind the prompts, and entropies where they are
        asked for; 0 for padding. `attention_mask` [B, L] says which ids are none."""
        assert not compute_aux_loss and all(value is None for value in others.values())
        prompts = attention_mask[:, :-logits_to_keep].sum(1).tolist()
        rows = [
            self._row(ids[seen.bool()].tolist(), int(prompt))
            for ids, seen, prompt in zip(input_ids, attention_mask, prompts, strict=True)
        ]
        form = mask_form(self.accelerator.unwrap_model(model))  # a reference may have another
        size = batch_size or len(rows)
        logps, entropies = [], []
        for first in range(0, len(rows), size):
            chunk = rows[first : first + size]
            inputs = model_inputs(chunk, form)
            arguments = send_to_device(inputs.arguments, input_ids.device)
            with self.accelerator.autocast():
                outputs = model(**arguments, fused_lm_head=True)
            places = _places(chunk, prompts[first : first + size])
            shape = (len(chunk), logits_to_keep)
            logps.append(_behind_prompts(outputs.log_probs, inputs, places, shape))
            if compute_entropy:
                entropies.append(_behind_prompts(outputs.entropy, inputs, places, shape))
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _row(self, ids: Sequence[int], prompt: int) -> TrainingRow:
        """A trace with all of its tokens sampled. TRL hides the whole completion of a trace that
        was cut, where it is told to: then there is only the prompt."""
        return written_row(self._bound, ids, prompt)


def _places(rows: Sequence[TrainingRow], prompts: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """For every sampled token its row, and its place behind the prompt; int64 [N] each."""
    lines = [torch.full((row.tokens,), number) for number, row in enumerate(rows)]
    columns = [
        torch.from_numpy(row.token[row.sampled] - prompt).long()
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    return torch.cat(lines), torch.cat(columns)


def _behind_prompts(
    values: torch.Tensor,
    inputs: ModelInputs,
    places: tuple[torch.Tensor, ...],
    shape: tuple[int, int],
) -> torch.Tensor:
    """What the entries give that predict the tokens, where TRL looks for it; keeps the gradient."""
    picked = values.flatten()[torch.from_numpy(inputs.predicting).to(values.device)]
    there = tuple(place.to(values.device) for place in places)
    return values.new_zeros(shape).index_put(there, picked)
