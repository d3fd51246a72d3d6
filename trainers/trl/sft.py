"""Imitation with TRL's `SFTTrainer`: training rows as its dataset, and the collator of its batches.

    SFTTrainer(model, SFTConfig(..., **SFT_SETTINGS), train_dataset=sft_dataset(rows),
               data_collator=RowCollator(mask_form(model)), processing_class=tokenizer)

Rows come from traces (`training_row`, `trace_row`) or rollouts. The loss is TRL's: the mean of
-log pi over the labelled tokens of a batch, over all processes and micro-batches; it equals that of
`nprdsl train sft`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from datasets import Dataset

from nprdsl.trainers.batch.training_rows import ENTRIES, TrainingRow
from nprdsl.trainers.trl.model_inputs import MaskForm, model_inputs

# Rows are made already, and have columns that no model's forward takes.
SFT_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType(
    {"dataset_kwargs": {"skip_prepare_dataset": True}, "remove_unused_columns": False}
)


def sft_dataset(rows: Iterable[TrainingRow]) -> Dataset:
    """The rows as a dataset with a column for each of their arrays. Raises ValueError for a row
    that samples nothing, or whose tokens have weights: TRL's loss has none."""
    columns: dict[str, list[list[int]]] = {name: [] for name in ENTRIES}
    for number, row in enumerate(rows):
        if not row.tokens:
            raise ValueError(f"row {number} samples no token: there is nothing to imitate")
        if (row.weights != 1).any():
            raise ValueError(f"row {number} has weights; the loss of SFTTrainer weighs all alike")
        for name in ENTRIES:
            columns[name].append(getattr(row, name).tolist())
    return Dataset.from_dict(columns)


@dataclass(frozen=True, slots=True)
class RowCollator:
    """Examples of `sft_dataset` as a batch of SFTTrainer: ids, positions, labels, and who sees
    whom in the form of the model's attention. With MaskForm.DENSE examples are padded to the
    longest, else packed. In the dense form the metric `num_tokens` of TRL counts pairs that see
    each other, because TRL sums the mask."""

    form: MaskForm

    def __call__(self, examples: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, object]:
        return model_inputs([_row(example) for example in examples], self.form).arguments


def _row(example: Mapping[str, Sequence[int]]) -> TrainingRow:
    missing = [name for name in ENTRIES if name not in example]
    if missing:
        raise ValueError(
            f"an example lacks the columns {', '.join(missing)}: make the dataset with "
            "`sft_dataset`, and give SFTConfig the SFT_SETTINGS, which keep its columns"
        )
    arrays = {name: np.asarray(example[name], np.int32) for name in ENTRIES}
    sampled = arrays.pop("sampled").astype(np.bool_)
    count = int(sampled.sum())
    return TrainingRow(**arrays, sampled=sampled, weights=np.ones(count), logprobs=np.zeros(count))
