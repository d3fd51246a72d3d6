"""Which causal language models of the installed transformers the local engine runs, how exactly.

    python -m benchmarks.architectures [NAME ...] [--write docs/models.md]

Every architecture that transformers lists as a causal language model is built tiny, with random
weights, sliding windows of 8 tokens where it has them, and experts where it has them. If the engine
accepts it, two requests run at once in the schema `npr`, and every log-probability is compared with
one dense forward of the model over the trace's layout. A model with recurrent layers, which runs no
`reduce` joins, runs a schema of nested `reread` joins instead, and each branch is compared with a
plain forward over what it sees. `equal` is within 1e-4; `refused` has the engine's reason; `not
built` is what cannot be made small, or is only a part of another model. With names, `--write`
replaces the rows of those.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import nprdsl
from nprdsl import Limits, Schema, Vocabulary
from nprdsl.runtime import Result, Sampling
from nprdsl.runtime.errors import ErrorBoundary, UnsupportedModelError
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.local.attention import AttentionPath, implementation
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.recurrent_forward import Continuing, RecurrentForward

TOLERANCE: Final = 1e-4
LARGEST: Final = 30_000_000  # parameters of what counts as tiny
WINDOW: Final = 8
WIDTH: Final = 320
PROMPTS: Final = ("hello there", "x")
LIMITS: Final = Limits(
    max_tokens=90, branch_tokens=20, rule_tokens={"plan": 6, "takeaway": 10}, blocks=1
)
BEGIN, END = "<!-- architectures -->\n", "<!-- /architectures -->\n"

# By the names that configurations use. What a configuration does not have is left out.
SIZES: Final[dict[str, object]] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "decoder_ffn_dim", "n_inner"), 96),
    **dict.fromkeys(("encoder_ffn_dim", "ffn_hidden_size", "shared_intermediate_size"), 96),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_size", "expert_ffn_hidden_size"), 48),
    **dict.fromkeys(("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "attention_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "num_shared_experts"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"), 16),
    **dict.fromkeys(("sliding_window", "local_attention", "attention_window"), WINDOW),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions"), 2048),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), WIDTH),
    **dict.fromkeys(("hidden_size_per_layer_input", "global_head_dim", "swa_head_dim"), 16),
    **dict.fromkeys(("pad_token_id", "pad_token"), 0),
    **dict.fromkeys(("bos_token_id", "bos_token"), 1),
    **dict.fromkeys(("eos_token_id", "eos_token"), 2),
    "first_k_dense_replace": 1,
    "rotary_dim": 8,
    "num_kv_shared_layers": 0,
    "is_decoder": True,
}
MAMBA_2: Final[dict[str, object]] = {
    **{"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16},
    "mamba_chunk_size": 8,
}
# Where the sizes do not fit each other, or the defaults are not what such models are.
FITTED: Final[dict[str, dict[str, object]]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "bamba": {**MAMBA_2, "attn_layer_indices": [1, 3], "mamba_expand": 2},
    "falcon_h1": {**MAMBA_2, "mamba_d_ssm": 64, "mamba_n_heads": 4},
    "granitemoehybrid": {**MAMBA_2, "layer_types": ["mamba", "attention"] * 2, "mamba_expand": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16, "chunk_size": 8},
    "nemotron_h": {
        **{"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 16},
        **{"chunk_size": 8, "expand": 2, "hybrid_override_pattern": "M*-M"},
    },
    "zamba2": {
        **{"layers_block_type": ["mamba", "hybrid"] * 2, "num_mem_blocks": 1, "chunk_size": 8},
        **{"mamba_d_state": 16, "mamba_headdim": 16, "n_mamba_heads": 8, "mamba_ngroups": 1},
        **{"num_key_value_heads": 4},
    },
    "llama4_text": {"layer_types": ["chunked_attention", "full_attention"] * 2},
}
REREAD: Final = """
%import .parallel (map, process, spawn, reread)
start: "<P>" spawn{path}~2..3 reread{close} TEXT
path:  "<A>" TEXT "<Q>" map{list} process{item, sub} reread{end} TEXT "</A>"
list:  "<L>" item~2..3 "</L>"
item:  "<I>" LABEL ":" TEXT "</I>"
sub:   "<S>" LABEL ":" TEXT "</S>"
end:   "</Q>"
close: "</P>"
LABEL: /[1-9]/
%declare TEXT
"""
REREAD_LIMITS: Final = Limits(max_tokens=90, branch_tokens=25)
MOST_USED: Final = (  # of text models on the hub, one of each family
    *("llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "ministral3", "mixtral", "gemma"),
    *("gemma2", "gemma3_text", "gpt2", "gpt_neox", "gpt_neo", "gptj", "opt", "bloom", "falcon"),
    *("phi", "phi3", "gpt_oss", "deepseek_v2", "deepseek_v3", "olmo2", "olmo3", "smollm3"),
    *("granite", "cohere2", "glm4_moe", "gpt_bigcode", "starcoder2", "stablelm", "codegen"),
)


class Outcome(StrEnum):
    """What became of an architecture."""

    EQUAL = "equal"
    WRONG = "wrong"
    REFUSED = "refused"
    NOT_BUILT = "not built"


class NotBuiltError(ValueError):
    """No tiny model of the architecture can be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """`note`: the largest difference of a log-probability and who computes attention; or why."""

    architecture: str
    outcome: Outcome
    note: str


@cache
def language(*, merging: bool) -> tuple[Schema, Vocabulary]:
    """The schema that models run, and a vocabulary of bytes and its tags."""
    if merging:
        schema = nprdsl.load("npr")
    else:
        with TemporaryDirectory() as folder:
            path = Path(folder, "reread.lark")
            path.write_text(REREAD, encoding="utf-8")
            schema = nprdsl.load(path)
    special = {"<|end|>": 256} | {tag: 257 + n for n, tag in enumerate(schema.tags)}
    return schema, Vocabulary({n: bytes([n]) for n in range(256)}, special, "<|end|>")


def tiny_model(architecture: str) -> PreTrainedModel:
    """With random weights. Raises NotBuiltError."""
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[architecture]
    name = names if isinstance(names, str) else names[0]
    errors: list[Exception] = []
    with ErrorBoundary(errors.append):
        kind = vars(transformers).get(name) or getattr(transformers, name)
        config = _tiny_config(CONFIG_MAPPING[architecture], FITTED.get(architecture, {}))
        if kind.config_class is not type(config):  # of the text part of a larger model
            config = config.get_text_config()
        with torch.device("meta"):
            size = sum(weight.numel() for weight in kind(config).parameters())
        if size > LARGEST:
            raise NotBuiltError(f"{size:,} parameters at the least")
        return _stirred(kind, config)
    error = errors[0]
    if isinstance(error, NotBuiltError):
        raise error
    raise NotBuiltError(f"{type(error).__name__}: {error}") from error


def _tiny_config(kind: type[PreTrainedConfig], fitted: dict[str, object]) -> PreTrainedConfig:
    sizes = _sizes(kind()) | fitted
    whole = kind(**sizes)
    parts = {name: vars(whole)[name] for name in whole.sub_configs}
    return kind(**sizes, **{n: _sizes(part) for n, part in parts.items() if part is not None})


def _sizes(config: PreTrainedConfig) -> dict[str, object]:
    """Those of the sizes that a configuration has; sizes for each layer are left to it."""
    known = config.to_dict()
    sizes = {n: size for n, size in SIZES.items() if n in known and not isinstance(known[n], list)}
    if known.get("kv_lora_rank"):  # latent keys are spread over all heads
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    return sizes


def _stirred(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Random weights that no two logits share, also where a model's own begin as zeros."""
    torch.manual_seed(0)
    model = kind(config).eval().float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.08)
            else:
                weight.add_(0.05 * torch.randn_like(weight))
    return model


def examine(architecture: str) -> Found:
    """Builds it, runs it, compares it."""
    try:
        model = tiny_model(architecture)
    except NotBuiltError as error:
        return Found(architecture, Outcome.NOT_BUILT, _short(error))
    schema, vocabulary = language(merging=True)
    try:
        engine = LocalEngine(model, vocabulary, max_kv_tokens=2048)
    except UnsupportedModelError as error:
        return Found(architecture, Outcome.REFUSED, _short(error))
    forward = engine._scheduler.forward
    if isinstance(forward, RecurrentForward):
        worst, note = _reread(engine), ", schemas that join by `reread`"
        if forward.continuing is Continuing.TOKENS:
            note += "; token by token behind a state"
    else:
        results = engine.generate(schema, PROMPTS, limits=LIMITS, sampling=Sampling(seed=3))
        worst = max(difference(forward, result) for result in results)
        own = forward.log.path is AttentionPath.MODEL
        note = ", by attention code of its own" if own else ""
    outcome = Outcome.EQUAL if worst <= TOLERANCE else Outcome.WRONG
    return Found(architecture, outcome, f"{worst:.1e}{note}")


def _reread(engine: LocalEngine) -> float:
    """The largest difference where branches are read again, from plain forwards."""
    schema, vocabulary = language(merging=False)
    again = LocalEngine(engine.model, vocabulary, max_kv_tokens=2048)
    results = again.generate(schema, PROMPTS, limits=REREAD_LIMITS, sampling=Sampling(seed=3))
    return max(difference_of_branches(engine.model, result) for result in results)


@torch.no_grad()
def difference_of_branches(model: PreTrainedModel, result: Result) -> float:
    """The largest difference from the log-probabilities of plain forwards, each over all that a
    drawn token sees."""
    layout, ids = result.layout, [*result.prompt_ids, *result.token_ids]
    assert layout is not None
    seen, worst = layout.visible(), 0.0
    for entry in np.flatnonzero(layout.sampled):
        path = np.flatnonzero(seen[entry])
        assert layout.position[path].tolist() == list(range(len(path)))
        tokens = [ids[token] for token in layout.token[path]]
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -2]
        drawn = result.logprobs[int(layout.token[entry]) - len(result.prompt_ids)]
        assert drawn is not None
        worst = max(worst, abs(drawn - float(logits.float().log_softmax(-1)[tokens[-1]])))
    return worst


@torch.no_grad()
def difference(forward: Forward, result: Result) -> float:
    """The largest difference from the log-probabilities of one dense forward over the layout."""
    layout, ids = result.layout, np.array([*result.prompt_ids, *result.token_ids])
    assert layout is not None
    seen, positions = layout.visible(), np.asarray(layout.position, np.int64)
    with implementation(forward.model, "eager"):
        logits = forward.model(
            input_ids=torch.tensor(ids[layout.token])[None],
            position_ids=torch.from_numpy(positions)[None],
            attention_mask=forward.dense_masks(seen, positions),
            use_cache=False,
        ).logits[0]
    logprobs, worst = logits.float().log_softmax(-1), 0.0
    for entry in np.flatnonzero(layout.sampled):
        before, place = np.flatnonzero(seen[entry, :entry])[-1], int(layout.token[entry])
        drawn = result.logprobs[place - len(result.prompt_ids)]
        assert drawn is not None
        worst = max(worst, abs(drawn - float(logprobs[before, ids[place]])))
    return worst


def _short(error: Exception) -> str:
    """A reason without the class's name before it, on one line."""
    text = " ".join(str(error).split()).partition("; the local engine")[0]
    text = re.sub(r"^\w+For\w+ |^\w+LMHead\w* ", "", text)
    return (text if len(text) <= 150 else f"{text[:147]}...").replace("|", "\\|")


def told(text: str) -> dict[str, Found]:
    """The rows of a page's table, by architecture."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| (\S+) \| (\D+?) \| (.*) \|$", table, re.MULTILINE)
    found = [
        Found(name, Outcome(outcome), note)
        for name, outcome, note in rows
        if name[0] != "-" and outcome in set(Outcome)
    ]
    return {one.architecture: one for one in found}


def page(found: list[Found]) -> Iterator[str]:
    """The lines of the table, and the counts above it, in Markdown."""
    counts = Counter(one.outcome for one in found)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    yield f"transformers {transformers.__version__}: {told}."
    yield ""
    yield "| architecture | result | largest difference, or reason |"
    yield "|---|---|---|"
    for one in found:
        yield f"| {one.architecture} | {one.outcome} | {one.note} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="architectures; all by default")
    parser.add_argument("--write", type=Path, help="puts the table into this page")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    found = []
    for name in given.names or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        begin = time.perf_counter()
        found.append(examine(name))
        seconds = time.perf_counter() - begin
        print(f"{seconds:5.1f} s  {name:24} {found[-1].outcome:10} {found[-1].note}", flush=True)
    if given.write is not None:
        text = given.write.read_text(encoding="utf-8")
        kept = told(text) if given.names else {}
        rows = kept | {one.architecture: one for one in found}
        table = "\n".join(page([rows[name] for name in sorted(rows)])) + "\n"
        head, _, rest = text.partition(BEGIN)
        given.write.write_text(
            head + BEGIN + table + END + rest.partition(END)[2], encoding="utf-8"
        )


if __name__ == "__main__":
    main()
