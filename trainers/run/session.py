"""One training run while it is running: model, optimizer, learning rate, checkpoints, metrics.

Accelerate carries devices, mixed precision, processes and the state of a checkpoint; how it was
launched (FSDP, several nodes) is its own matter. A session knows at which step it is, and nothing
of what a stage does in a step.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import distributed
from transformers import PreTrainedModel, PreTrainedTokenizerFast, get_scheduler

import nprdsl
from nprdsl.runtime.adapter_settings import adapter_settings
from nprdsl.runtime.bundled import model_folder
from nprdsl.runtime.local.loading import LoadOptions, load_base, load_model, quiet
from nprdsl.runtime.prompts import PromptEncoder
from nprdsl.runtime.untrained import record_of_training
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.attention.segments import register
from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.batch.update import Check, Loss, Updater, UpdateResult, unchecked
from nprdsl.trainers.config.stages import (
    Attention,
    OptimizerKind,
    OptimizerSection,
    Schedule,
    TrainingConfig,
)
from nprdsl.trainers.run.add_tags import add_tags
from nprdsl.trainers.run.checkpoints import Checkpoints
from nprdsl.trainers.run.custom_generate import write_custom_generate
from nprdsl.trainers.run.directory import RunDirectory
from nprdsl.trainers.run.disk_use import checkpoint_bytes, disk_notice
from nprdsl.trainers.run.lora import add_lora, go_on_with_lora, save_lora
from nprdsl.trainers.run.model_size import ModelSize
from nprdsl.trainers.run.muon import WideMuon
from nprdsl.trainers.run.report_page import write_run_report
from nprdsl.trainers.run.trackers import Trackers, check_trackers
from nprdsl.trainers.run.training_speed import TrainingSpeed

# It warns of every tied weight at every checkpoint.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)

_PROGRESS: Final = "progress.json"
_SETTLED: Final = 0.5  # seconds; microseconds are enough on a quiet machine

Metrics = Mapping[str, float]
Watch = Callable[[int, int, Metrics], None]  # step, all steps, metrics of the step
Notify = Callable[[str], None]  # a message for people


def unwatched(step: int, total: int, metrics: Metrics) -> None:
    """Nobody watches."""


def no_notice(message: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a run has before its first step: everything but the optimizer."""

    config: TrainingConfig
    accelerator: Accelerator
    directory: RunDirectory
    schema: Schema
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    encoder: PromptEncoder

    def copied_model(self) -> PreTrainedModel:
        """Another model of the same make, on the device of this process. Its weights are those that
        the run began with, or, where processes read a model only once, any."""
        with torch.random.fork_rng(devices=[]):
            model, _ = _model(self.config, self.schema)
        return model.to(self.accelerator.device)

    def encode(self, prompt: str) -> tuple[int, ...]:
        """The ids of a prompt. Raises PromptError."""
        section = self.config.prompt
        return self.encoder.read(
            self.schema, prompt, chat=section.chat, instructions=section.instructions
        )


def prepare(config: TrainingConfig, *, restart: bool) -> Setup:
    """Opens the run's folder and loads schema and model, the schema's tags as tokens of it if that
    is asked for.

    Raises RunError, ModelNotFoundError, SchemaNotFoundError, SchemaError, ValueError.
    """
    schema, run = nprdsl.load(config.language), config.run
    check_trackers(run)
    # A run before it in this process may have had another precision.
    AcceleratorState._reset_state()
    # Without a GPU, processes find each other only if this says so.
    accelerator = Accelerator(
        mixed_precision=run.precision,
        cpu=not torch.accelerator.is_available(),
        log_with=list(run.trackers) or None,
    )
    settings = config.model_dump(mode="json", by_alias=True)
    del settings["run"]["output"]  # a folder may be moved
    if accelerator.is_main_process:
        RunDirectory.open(Path(run.output), settings, restart=restart)
    accelerator.wait_for_everyone()
    directory = RunDirectory.open(Path(run.output), settings)
    model, tokenizer = _model(config, schema)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    encoder = PromptEncoder(tokenizer, vocabulary)
    return Setup(config, accelerator, directory, schema, model, tokenizer, vocabulary, encoder)


def _model(
    config: TrainingConfig, schema: Schema
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model as it is trained: the way masks reach it, its tags, its adapter."""
    section, options = config.model, LoadOptions(dtype=config.model.dtype)
    if section.attention is Attention.BLOCKS and not torch.accelerator.is_available():
        raise ValueError(
            'FlexAttention (`model.attention = "blocks"`) has gradients on GPUs only: take "dense"'
        )
    begun = section.lora is not None and adapter_settings(Path(model_folder(section.path)))
    model, tokenizer = (load_base if begun else load_model)(section.path, options)
    match section.attention:
        case Attention.DENSE:
            model.set_attn_implementation("sdpa")
        case Attention.BLOCKS:
            model.set_attn_implementation("flex_attention")
        case Attention.SEGMENTS:
            model.set_attn_implementation(register())
    new = add_tags(model, tokenizer, schema.tags) if section.add_tags else {}
    if section.lora is None:
        return model, tokenizer
    torch.manual_seed(config.run.seed)
    if not begun:
        add_lora(model, section.lora, new.values())
    elif new:
        raise ValueError(
            f"the adapter in `{section.path}` does not know the tag `{next(iter(new))}`; name its "
            "base, so that another is trained with it"
        )
    else:
        go_on_with_lora(model, section.lora, Path(model_folder(section.path)))
    return model, tokenizer


def leave_group() -> None:
    """Ends what joins the processes of a run, where there are several. Left to the end of the
    interpreter, its threads may abort the process after all work is done."""
    settle_group()
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def settle_group() -> None:
    """Lets the group's threads drop what they have done, before the model or the group is let go
    of: gloo needs the interpreter's lock for it, and its end waits for them holding that lock."""
    if distributed.is_available() and distributed.is_initialized():
        time.sleep(_SETTLED)


class Session:
    """A run of `total` steps, at its last checkpoint or its beginning.

    A step is what a stage repeats: an update of the weights, or a batch of rollouts with its
    updates, `updates` of them in the whole run. `step` counts those that were made. `progress` is
    what a stage keeps besides: JSON values, written with every checkpoint.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        total: int,
        updates: int,
        watch: Watch = unwatched,
        notify: Notify = no_notice,
    ) -> None:
        config, accelerator = setup.config, setup.accelerator
        self.setup = setup
        self.accelerator = accelerator
        self.total = total
        self.step = 0
        self.progress: dict[str, Any] = {}
        self._run = config.run
        self._watch = watch
        self._speed = TrainingSpeed(
            ModelSize.of(setup.model), accelerator.num_processes, config.run.peak_tflops
        )
        self._saved = time.monotonic()
        optimizers = _optimizers(setup.model, config.optimizer)
        self.wrapped, *prepared = accelerator.prepare(setup.model, *optimizers)
        self._schedulers = [_scheduler(one, config.optimizer, updates) for one in optimizers]
        self._checkpoints = Checkpoints(accelerator, self.wrapped, optimizers, self._schedulers)
        self._updater = Updater(
            accelerator,
            self.wrapped,
            prepared,
            room=config.run.room,
            rows=config.run.rows,
            clip=config.optimizer.clip,
            attention=config.model.attention,
        )
        self._restore()
        self._trackers = Trackers(setup.accelerator, config, setup.directory.path)
        if accelerator.is_main_process and (said := self._space(optimizers)):
            notify(said)

    @property
    def learning_rate(self) -> float:
        """Of the coming update."""
        return float(self._schedulers[0].get_last_lr()[0])

    def update(
        self,
        batch: Sequence[TrainingRow],
        loss: Loss,
        check: Check = unchecked,
        *,
        omitted: int = 0,
    ) -> UpdateResult:
        """One optimizer step, as `Updater.step` makes it, and the next learning rate."""
        started = time.perf_counter()
        result = self._updater.step(batch, loss, check, omitted=omitted)
        self._speed.made(result.work, time.perf_counter() - started)
        for scheduler in self._schedulers:
            scheduler.step()
        return result

    def end_step(self, metrics: Metrics) -> None:
        """A step was made: logs it, and saves everything if it is one to save at."""
        self.step += 1
        self.log({**metrics, **self._speed.metrics()})
        if self.step < self.total and self._due():
            self.save()

    def _due(self) -> bool:
        """A checkpoint is to be written at this step; the clock of the main process decides."""
        if self.step % self._run.save_every == 0 or self._run.save_minutes is None:
            return self.step % self._run.save_every == 0
        old = [time.monotonic() - self._saved >= 60 * self._run.save_minutes]
        broadcast_object_list(old)
        return old[0]

    def _space(self, optimizers: Sequence[torch.optim.Optimizer]) -> str:
        """What checkpoints take on the disk, where that is much or too much; "" else."""
        size = checkpoint_bytes(self.setup.model, optimizers)
        return disk_notice(self.setup.directory.path, size, self._run.keep)

    def log(self, metrics: Metrics) -> None:
        """The metrics of the step that was made last, to file, trackers and whoever watches."""
        if not self.accelerator.is_main_process:
            return
        rounded = {name: float(f"{value:.8g}") for name, value in metrics.items()}
        self.setup.directory.log(self.step, rounded)
        self._trackers.log(rounded, self.step)
        self._watch(self.step, self.total, rounded)

    def save(self) -> None:
        """Saves everything that going on needs; most of it is written beside the next steps. Raises
        RunError where the checkpoint before could not be written."""
        self._checkpoints.settle()
        main = self.accelerator.is_main_process
        folder = self.setup.directory.unfinished(self.step) if main else Path()
        names = [str(folder)]
        broadcast_object_list(names)  # the main process's
        folder = Path(names[0])
        step = self.step
        if main:
            progress = {"step": step, "progress": self.progress}
            (folder / _PROGRESS).write_text(json.dumps(progress), encoding="utf-8")

        def whole() -> None:
            if main:
                self.setup.directory.finish(step, self._run.keep)

        self._checkpoints.write(folder, whole)
        self._saved = time.monotonic()

    def finish(self) -> Path:
        """Writes the trained model, its tokenizer and what decodes it in parallel; gives their
        folder."""
        self._checkpoints.settle()
        main = self.accelerator.is_main_process
        state = self.accelerator.get_state_dict(self.wrapped)
        if main:
            folder = self.setup.directory.unfinished("model")
            self.setup.model.config.update(record_of_training(self.setup.schema.grammar))
            with quiet():
                if self.setup.config.model.lora is None:
                    for tied in self.setup.model.all_tied_weights_keys:
                        state.pop(tied, None)  # gathered of shares, it is a copy of its own
                    self.setup.model.save_pretrained(folder, state_dict=state)
                else:
                    save_lora(self.setup.model, folder, state)
                self.setup.tokenizer.save_pretrained(folder)
            write_custom_generate(folder, self.setup.schema)
            self.setup.directory.finish("model")
            write_run_report(self.setup.directory, self.setup.schema)
            self._trackers.close()
        self.accelerator.wait_for_everyone()
        settle_group()
        return self.setup.directory.model

    def _restore(self) -> None:
        latest = self.setup.directory.latest()
        if latest is not None:
            self.step, folder = latest
            self._checkpoints.read(folder)
            text = (folder / _PROGRESS).read_text(encoding="utf-8")
            self.progress = json.loads(text)["progress"]
        if self.accelerator.is_main_process:
            self.setup.directory.forget_after(self.step)
        self.accelerator.wait_for_everyone()


def _optimizers(model: PreTrainedModel, section: OptimizerSection) -> list[torch.optim.Optimizer]:
    """AdamW; its vectors (norms, biases) do not decay. Muon (arXiv:2502.16982), where it is asked
    for, takes the matrices inside the layers; embeddings and outputs stay with AdamW."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner = set(trained) - _ends(model) if section.kind is OptimizerKind.MUON else set()
    matrices = [p for name, p in trained.items() if name in inner and p.ndim == 2]
    rest = [p for name, p in trained.items() if not (name in inner and p.ndim == 2)]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            groups, lr=section.learning_rate, betas=section.betas, eps=section.epsilon
        )
    ]
    if matrices:
        on_cpu = all(p.device.type == "cpu" for p in matrices)
        optimizers.append(
            (WideMuon if on_cpu else torch.optim.Muon)(
                matrices,
                lr=section.learning_rate,
                weight_decay=section.weight_decay,
                momentum=section.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _ends(model: PreTrainedModel) -> set[str]:
    """The names of what embeds tokens and of what scores them."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    kept = {id(p) for end in ends if end is not None for p in end.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in kept}


def _scheduler(
    optimizer: torch.optim.Optimizer, section: OptimizerSection, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    warm = section.warmup_steps(total)
    match section.schedule:
        case Schedule.CONSTANT:
            name, more = "constant_with_warmup", {}
        case Schedule.COSINE:
            name, more = "cosine_with_min_lr", {"min_lr_rate": section.floor}
        case Schedule.LINEAR:
            end = section.floor * section.learning_rate
            name, more = "polynomial", {"power": 1.0, "lr_end": end}
    scheduler: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warm, num_training_steps=total,
        scheduler_specific_kwargs=more,
    )  # fmt: skip
    return scheduler
