"""What a training step takes on so many GPUs: memory by parts, rows that fit, time.

In go the configuration of a stage and the GPUs; nothing is loaded but the model's configuration,
and nothing is computed. What is assumed: FSDP2 shares out weights, gradients and optimizer over all
GPUs; layers are checkpointed (configs/accelerate/fsdp2.yaml); AdamW keeps two numbers for each
trained parameter, and gradients one, in the precision in which it is held; the local engine has a
whole copy of the weights on every GPU; GPUs are as fast as they are said to be. It is an estimate
before a run, not a measurement of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nprdsl.runtime.bundled import model_folder
from nprdsl.runtime.errors import ModelNotFoundError
from nprdsl.trainers.config.stages import (
    LOCAL,
    Attention,
    EngineSection,
    OptimizerKind,
    ReinforcementConfig,
    SftConfig,
    TrainingConfig,
)
from nprdsl.trainers.objective.head_logprobs import LIVING_BYTES
from nprdsl.trainers.run.model_size import ModelSize

GIB: Final = 2**30
_RESERVED: Final = 4 * GIB  # the driver, the processes' buffers, memory in pieces too small to use
_BYTES: Final = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Gpus:
    """`count` GPUs of `memory` GiB, each of which trains at `tflops` * 10^12 operations a second,
    counted as the metric `speed/tflops` of a run counts them; the default is assumed: 30 % of the
    peak of an H100 in bf16."""

    count: int = 8
    memory: float = 80.0
    tflops: float = 300.0

    def __post_init__(self) -> None:
        sizes = (self.count, self.memory * GIB, self.tflops)
        if not all(isfinite(size) and size > 0 for size in sizes):
            raise ValueError(
                "a plan needs at least one GPU, with memory and speed above 0, and both finite"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes of one GPU by what they hold, in a forward of `rows` rows of `room` entries; the
    entries of such a row that fit; the traces of a step, and, where each is as long as a row, their
    entries and the seconds of all updates of the step."""

    size: ModelSize
    gpus: Gpus
    rows: int
    room: int
    fixed: Mapping[str, int]
    growing: Mapping[str, int]
    largest_room: int
    traces: int
    entries: int
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.fixed.values()) + sum(self.growing.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.gpus.memory * GIB

    @property
    def lines(self) -> list[str]:
        """The plan for people."""
        parts = {**self.fixed, **self.growing, "all": self.total}
        told = [f"{name:<46} {held / GIB:6.2f} GiB" for name, held in parts.items()]
        each, size, gpus = -(-self.traces // self.gpus.count), self.size, self.gpus
        forward = "rows" if self.rows == 1 else f"forwards of {self.rows} rows"
        verdict = f"{'it fits' if self.fits else 'it does not fit'}; a row may hold"
        if not self.largest_room:
            verdict = "it does not fit, however short rows are; a row may hold"
        return [
            f"{size.parameters / 1e9:.2f} B parameters, {size.trained / 1e9:.2f} B trained; "
            f"{gpus.count} GPU{'s' * (gpus.count > 1)}; {forward} of {self.room:,} entries; "
            "in each GPU",
            *told,
            f"{gpus.memory:g} GiB: {verdict} {self.largest_room:,} entries",
            f"a step: {self.traces:,} traces, {each:,} for each GPU, at most {self.entries:,} "
            "entries",
            f"updates of a step: at most {self.seconds:,.0f} s, if a GPU trains at "
            f"{gpus.tflops:g} TFLOP/s; rollouts aside",
        ]


def plan(config: TrainingConfig, gpus: Gpus) -> Plan:
    """What a step of this configuration takes. Raises ModelNotFoundError."""
    size = _size(config)
    fixed = _fixed(size, config, gpus)
    free = int(gpus.memory * GIB) - sum(fixed.values())
    largest = 0
    while sum(_growing(size, config, largest + 1024).values()) <= free:
        largest += 1024
        if largest >= 1 << 20:
            break
    traces, longest = _traces(config), config.run.room
    flops = traces * size.flops(longest, longest * longest, longest)
    return Plan(
        size=size,
        gpus=gpus,
        rows=config.run.rows,
        room=longest,
        fixed=fixed,
        growing=_growing(size, config, longest),
        largest_room=largest,
        traces=traces,
        entries=traces * longest,
        seconds=flops / (gpus.tflops * 1e12 * gpus.count),
    )


def _size(config: TrainingConfig) -> ModelSize:
    """Of the model that is trained, from its configuration alone."""
    name = model_folder(config.model.path)
    try:
        settings = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        there = (Path(name) / "config.json").is_file()
        fault = f"cannot be read ({str(error).splitlines()[0]})" if there else "is not there"
        raise ModelNotFoundError(
            f"a plan needs the config.json of `{name}`, which {fault}: name another model of "
            "its shape with --set model.path=FOLDER"
        ) from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    if config.model.lora is not None:
        from nprdsl.trainers.run.lora import add_lora

        with torch.device("meta"):
            add_lora(model, config.model.lora, [])
    return ModelSize.of(model)


def _fixed(size: ModelSize, config: TrainingConfig, gpus: Gpus) -> dict[str, int]:
    """What does not depend on the length of rows. Layers are gathered one after another, the next
    while one computes; what embeds and scores tokens stays gathered through a step."""
    kept, run = (
        _BYTES[config.model.dtype],
        _BYTES["fp32" if config.run.precision == "no" else "bf16"],
    )
    state = kept if config.model.lora is None else _BYTES["fp32"]  # as what is trained itself
    gathered = 2 * size.largest_layer + size.head
    # Autograd may copy the gradient of the head when it keeps it.
    before = size.largest_layer + 2 * size.head if size.trained > size.parameters // 2 else 0
    adam = config.optimizer.kind is OptimizerKind.ADAMW
    return {
        "weights, shared out": size.parameters * kept // gpus.count,
        "gradients, shared out": size.trained * state // gpus.count,
        "AdamW, shared out" if adam else "Muon and AdamW, at most, shared out": 2
        * size.trained
        * state
        // gpus.count,
        "gathered weights": gathered * run,
        "gradients before they are shared out": before * run,
        **(_sampling(size, config, gpus, kept) if _samples_here(config) else {}),
        "reserve, assumed": _RESERVED,
    }


def _samples_here(config: TrainingConfig) -> bool:
    """The local engine answers, in rollouts or for held-out problems."""
    if isinstance(config, ReinforcementConfig):
        return config.engine.address == LOCAL
    return config.evaluation is not None


def _sampling(size: ModelSize, config: TrainingConfig, gpus: Gpus, each: int) -> dict[str, int]:
    engine = config.engine if isinstance(config, ReinforcementConfig) else EngineSection()
    copied = size.parameters * each if gpus.count > 1 else 0
    return {
        "the local engine's copy of the weights": copied,
        "the local engine's slots": engine.max_kv_tokens * size.cached * each,
    }


def _growing(size: ModelSize, config: TrainingConfig, longest: int) -> dict[str, int]:
    """What a forward takes whose rows have `longest` entries."""
    room = config.run.rows * longest
    width = _BYTES["fp32" if config.run.precision == "no" else "bf16"]
    heads = size.attended // size.layers
    inside = 10 * size.hidden + 8 * heads + 6 * size.intermediate
    parts = {
        "inputs of all layers": size.layers * size.hidden * room * width,
        "inside of one layer, computed again": inside * room * width,
        "log-probabilities by chunks": LIVING_BYTES + room * size.hidden * (4 + 3 * width),
    }
    if config.model.attention is Attention.DENSE:
        parts["masks"] = room * longest * width
    return parts


def _traces(config: TrainingConfig) -> int:
    """Those of a step."""
    if isinstance(config, SftConfig):
        return config.batch
    assert isinstance(config, ReinforcementConfig)
    return config.rollout.prompts * config.rollout.samples


def stage_of(path: Path) -> str:
    """The stage that a file is named for. Raises ValueError."""
    if path.stem not in ("zero", "sft", "papo"):
        raise ValueError(
            f"which stage `{path}` is for is not told by its name: say it, as in "
            f"`nprdsl train sft --plan {path}`"
        )
    return path.stem
