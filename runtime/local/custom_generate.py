"""Parallel decoding behind `model.generate(custom_generate=FOLDER, trust_remote_code=True)`.

The `custom_generate/generate.py` of a folder that a training run wrote calls `generate_in_parallel`
with its schema. What `generate` of transformers was given goes in; token ids come out as it gives
them, branches one after another, but they were decoded side by side in a `LocalEngine`, which the
model keeps for later calls. What the engine does not do is refused, never left out silently.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.runtime.local.engine import LocalEngine
from nprdsl.runtime.sampling import Sampling
from nprdsl.schema import Schema

_KEPT: Final = "_nprdsl_engine"  # among the attributes of a model
_DRAWN_BY: Final = ("temperature", "top_k", "top_p", "min_p")
_SETTINGS: Final = frozenset(_DRAWN_BY) | {
    "do_sample", "repetition_penalty", "num_return_sequences", "max_new_tokens", "max_length",
    "pad_token_id", "eos_token_id", "bos_token_id", "num_beams", "use_cache",
}  # fmt: skip
_CALL: Final = ("custom_generate", "trust_remote_code", "synced_gpus")  # how this was called
_NO_EFFECT: Final = frozenset({
    # speed and memory of the model's own `generate`
    "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile",
    "prefill_chunk_size", "low_memory", "continuous_batching_config", "transformers_version",
    # of beams and assistants, which are refused
    "early_stopping", "length_penalty", "num_beam_groups", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind",
})  # fmt: skip
_NEUTRAL: Final = {"typical_p": 1.0, "encoder_repetition_penalty": 1.0, "guidance_scale": 1.0}


@dataclass(slots=True)
class KeptEngine:
    """The engine of a model, among its attributes. A copy of the model has none."""

    engine: LocalEngine | None = None
    of: tuple[object, ...] = ()  # what the engine was made of

    def __reduce__(self) -> tuple[type[KeptEngine], tuple[()]]:
        return KeptEngine, ()


def generate_in_parallel(
    model: PreTrainedModel,
    schema: Schema,
    *,
    inputs: torch.Tensor | None = None,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    limits: Limits = DEFAULT_LIMITS,
    parallel: bool = True,
    **options: Any,
) -> torch.Tensor:
    """Prompts with what follows them, int64 `[B * num_return_sequences, T]`, padded on the right.

    `inputs` or `input_ids` are int64 `[B, T]`; where they are padded, `attention_mask` says so.
    `tokenizer` is by default that of the folder that the model was loaded from. `limits` and
    `parallel` are those of `LocalEngine.generate`; `max_new_tokens` or `max_length` lower
    `limits.max_tokens`. `options` are settings of a GenerationConfig. Draws follow
    `torch.manual_seed`. Raises ValueError for what the engine does not do, and what
    `LocalEngine.generate` raises.
    """
    ids = input_ids if input_ids is not None else inputs
    if ids is None or ids.dim() != 2:
        raise ValueError("generate needs `input_ids`: int64 [B, T]")
    settings = _settings(model, generation_config, options)
    engine = _engine(model, tokenizer)
    eos = engine.vocabulary.eos_id
    ends = (options.get("eos_token_id"), generation_config and generation_config.eos_token_id)
    _check_end(next((end for end in ends if end is not None), None), eos)
    pad = _first(settings.pad_token_id, eos, 0)
    if attention_mask is None:  # as transformers does
        attention_mask = torch.ones_like(ids) if pad == eos else ids != pad
    prompts = [
        tuple(row[kept].tolist()) for row, kept in zip(ids, attention_mask.bool(), strict=True)
    ]
    copies = settings.num_return_sequences or 1
    results = engine.generate(
        schema,
        [prompt for prompt in prompts for _ in range(copies)],
        sampling=[_sampling(settings) for _ in range(len(prompts) * copies)],
        limits=_limits(limits, settings, ids.shape[1]),
        parallel=parallel,
    )
    return _beside(ids.repeat_interleave(copies, 0), [r.token_ids for r in results], int(pad))


def _settings(
    model: PreTrainedModel, given: GenerationConfig | None, options: dict[str, Any]
) -> GenerationConfig:
    """The settings of the call over those of the model. Raises ValueError for strange ones."""
    set_here = {n: value for n, value in options.items() if n not in _CALL and value is not None}
    settings = copy.deepcopy(model.generation_config or GenerationConfig())
    if given is not None:
        settings.update(**{n: v for n, v in given.to_dict().items() if v is not None})
    settings.update(**set_here)
    chosen = {name: vars(settings).get(name) for name in vars(GenerationConfig())} | set_here
    if strange := sorted(name for name, value in chosen.items() if _is_strange(name, value)):
        raise ValueError(
            f"decoding in parallel does not know {', '.join(f'`{name}`' for name in strange)}; "
            "leave it out, here and in the generation configuration, or decode with the model's "
            "own `generate` and `schema.logits_processor(tokenizer)`"
        )
    if (settings.num_beams or 1) > 1:
        raise ValueError("decoding in parallel has no beam search: num_beams is 1 or left out")
    return settings


def _is_strange(name: str, value: object) -> bool:
    """Whether a setting asks for what the engine does not do."""
    if name in _SETTINGS | _NO_EFFECT or name.startswith("_"):
        return False
    neutral = isinstance(value, int | float) and value in (0, _NEUTRAL.get(name))
    return value is not None and not neutral


def _check_end(given: int | list[int] | None, eos: int | None) -> None:
    """Raises ValueError for an end token that the engine does not end at."""
    if given is not None and eos not in (given if isinstance(given, list) else [given]):
        raise ValueError(
            f"eos_token_id is {given}, but traces end with the tokenizer's end token, {eos}; set "
            "`tokenizer.eos_token` and give `tokenizer=`"
        )


def _sampling(settings: GenerationConfig) -> Sampling:
    """Sampling with a seed of its own, or greedy."""
    penalty = _first(settings.repetition_penalty, 1.0)
    if not settings.do_sample:
        return Sampling(temperature=0.0, repetition_penalty=penalty)
    values = {name: vars(settings).get(name) for name in _DRAWN_BY}
    drawn = {name: value for name, value in values.items() if value is not None}
    seed = int(torch.randint(2**31, ()))
    return Sampling(seed=seed, repetition_penalty=penalty, **drawn)


def _limits(limits: Limits, settings: GenerationConfig, prompt: int) -> Limits:
    """`limits` lowered to what `generate` was asked for."""
    room = settings.max_new_tokens
    if room is None and settings.max_length is not None:
        room = settings.max_length - prompt
        if room < 1:
            raise ValueError(
                f"max_length is {settings.max_length}, which {prompt} tokens of the prompts have "
                "used up; give max_new_tokens, which counts what is written alone"
            )
    return limits if room is None else replace(limits, max_tokens=min(room, limits.max_tokens))


def _engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> LocalEngine:
    """The engine that the model keeps, or a new one where model or tokenizer have changed."""
    kept: KeptEngine = vars(model).setdefault(_KEPT, KeptEngine())
    now = (model.device, model.dtype, model.get_input_embeddings().weight.shape)
    same = kept.of == now and kept.engine is not None
    if same and kept.engine is not None and tokenizer in (None, kept.engine.tokenizer):
        return kept.engine
    kept.engine = LocalEngine(model, tokenizer or AutoTokenizer.from_pretrained(model.name_or_path))
    kept.of = now
    return kept.engine


def _beside(prompts: torch.Tensor, written: Iterable[tuple[int, ...]], pad: int) -> torch.Tensor:
    """Prompts [B, T] with what was written behind each, filled up with `pad`."""
    behind = [torch.tensor(ids, dtype=torch.long) for ids in written]
    filled = torch.nn.utils.rnn.pad_sequence(behind, batch_first=True, padding_value=pad)
    return torch.cat([prompts, filled.to(prompts.device)], dim=1)


def _first(*values: Any) -> Any:
    """The first value that is set."""
    return next(value for value in values if value is not None)
