"""Trains small matrices beside a model's own, which stay as they are: LoRA (arXiv:2106.09685).

In go a loaded model, the settings `[model.lora]` and the ids of new tags, or an adapter that was
trained before; the model is changed in place: its matrices get low-rank neighbours, the rows of the
tags' embeddings learn along, and all else is frozen. What is saved is a PEFT adapter, small enough
to be kept beside code, which is opened by its folder on the base model that it names.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.trainers.config.stages import LoraSection

_NAME: Final = "default"  # of the one adapter that a model has here
WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."  # before every weight of a PEFT adapter


def add_lora(model: PreTrainedModel, section: LoraSection, rows: Collection[int]) -> None:
    """Freezes the model and adds what is trained, in fp32; `rows` of its embeddings are trained
    along.

    Raises ValueError where PEFT is not installed, or the model has not all of the targets.
    """
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise ValueError("`model.lora` needs peft; install it with: pip install peft") from error
    _check_targets(model, section.targets)
    settings = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        target_modules=list(section.targets) or "all-linear",
        trainable_token_indices=_rows(model, rows),
        task_type="CAUSAL_LM",
    )
    model.add_adapter(settings, _NAME)
    _in_full_precision(model)


def go_on_with_lora(model: PreTrainedModel, section: LoraSection, folder: Path) -> None:
    """Freezes the model, the base of the adapter in a folder, and trains that further, in fp32.

    Raises ValueError where it is not what the settings describe.
    """
    from peft import LoraConfig, PeftConfig, load_peft_weights, set_peft_model_state_dict

    there = PeftConfig.from_pretrained(folder)
    if not isinstance(there, LoraConfig):
        raise ValueError(
            f"the adapter in `{folder}` is of the kind {there.peft_type.value}, and `model.lora` "
            "goes on with LoRA alone; name its base to begin anew"
        )
    found, wanted = (there.r, float(there.lora_alpha)), (section.rank, section.alpha)
    if found != wanted:
        raise ValueError(
            f"the adapter in `{folder}` has rank {found[0]} and alpha {found[1]:g}, `model.lora` "
            f"says {wanted[0]} and {wanted[1]:g}; give those of the adapter, or name its base"
        )
    if section.targets and set(section.targets) != set(there.target_modules or ()):
        has = ", ".join(sorted({name.rpartition(".")[2] for name in there.target_modules or ()}))
        raise ValueError(
            f"the adapter in `{folder}` is beside {has}; leave `model.lora.targets` out to train it"
        )
    there.inference_mode = False
    model.add_adapter(there, _NAME)
    _in_full_precision(model)
    trained = load_peft_weights(str(folder), device="cpu")
    named = {name.removeprefix(_PREFIX): weights for name, weights in trained.items()}
    told = set_peft_model_state_dict(model, named, adapter_name=_NAME)
    if told.unexpected_keys:
        raise ValueError(f"the adapter in `{folder}` has weights for {told.unexpected_keys[0]}")


def _in_full_precision(model: PreTrainedModel) -> None:
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()  # bf16 would lose the small steps


@contextmanager
def without_own_casts(model: torch.nn.Module) -> Iterator[None]:
    """Inside, adapters take what comes as it is where autocast is on: it brings inputs and matrices
    to one precision itself, to the same numbers, and PEFT's casts to fp32 before it are for
    nothing. Outside autocast they are needed, as by an engine that generates with the model."""
    if "peft" not in sys.modules or not torch.is_autocast_enabled(_kind(model)):
        yield
        return
    from peft.tuners.lora import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    before = [layer.cast_input_dtype_enabled for layer in layers]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer, cast in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = cast


def save_lora(model: PreTrainedModel, folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Writes the adapter in the precision of its base, and the model's configuration beside it."""
    from peft import get_peft_model_state_dict

    trained = get_peft_model_state_dict(
        model, state_dict=dict(state), adapter_name=_NAME, save_embedding_layers=False
    )
    precision = model.get_input_embeddings().weight.dtype
    distinct: dict[int, str] = {}  # of tied weights the first
    for name, weights in trained.items():
        distinct.setdefault(weights.data_ptr(), name)
    kept = {f"{_PREFIX}{name}": trained[name].to(precision) for name in distinct.values()}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    model.peft_config[_NAME].save_pretrained(folder)
    model.config.save_pretrained(folder)


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """PEFT is content with one that the model has, and trains that alone."""
    known = [name for name, _ in model.named_modules() if name]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in known):
            hint = did_you_mean(target, dict.fromkeys(name.rpartition(".")[2] for name in known))
            told = f"`model.lora.targets` names `{target}`, which the model has not"
            raise ValueError(f"{told}; {hint}" if hint else told)


def _kind(model: torch.nn.Module) -> str:
    return next(model.parameters()).device.type


def _rows(model: PreTrainedModel, rows: Collection[int]) -> dict[str, list[int]] | None:
    """The rows by the matrices that have them; an output that is tied to the input follows it."""
    if not rows:
        return None
    ends = [model.get_input_embeddings()]
    if not model.config.tie_word_embeddings:
        ends.append(model.get_output_embeddings())
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    return {names[id(end)]: sorted(rows) for end in ends}
