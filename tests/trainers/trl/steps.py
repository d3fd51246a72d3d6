"""A tiny random Llama for the real trainers of TRL, and one step of our own as the oracle."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import torch
from accelerate import Accelerator
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import nprdsl
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.batch.update import Loss, Updater, UpdateResult
from tests.runtime.tiny_models import byte_tokenizer, model

RATE = 0.5  # so that a step shows the gradient
SCHEMA = "npr"
QUESTION = "2*3+4*5?"
TRACE = (
    "<guideline>\n<plan>1:2*3</plan>\n<plan>2:4*5</plan>\n</guideline>\n<step>\n1:2*3=6</step>\n"
    "<step>\n2:4*5=20</step>\n<takeaway>\n6+20=26</takeaway>\n\\boxed{26}"
)
OTHER = TRACE.replace("<plan>2:4*5</plan>\n", "").replace("<step>\n2:4*5=20</step>\n", "")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(nprdsl.load(SCHEMA).tags)


@cache
def bound() -> BoundSchema:
    return nprdsl.load(SCHEMA).bind(Vocabulary.from_tokenizer(tokenizer()))


def llama() -> LlamaForCausalLM:
    """A copy, to be trained."""
    return copy.deepcopy(model("llama", len(tokenizer())))


def weights(trained: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trained.parameters()]


def sgd(trained: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(trained.parameters(), lr=RATE)


def our_step(rows: Sequence[TrainingRow], loss: Loss) -> tuple[UpdateResult, list[torch.Tensor]]:
    """One step of our own trainer: what it did, and the weights behind it."""
    trained = llama()
    updater = Updater(Accelerator(cpu=True), trained, [sgd(trained)], clip=1e9)
    return updater.step(rows, loss), weights(trained)


def farthest(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))
