"""What a model is loaded from: a folder, a GGUF file, an adapter on its base; else what is said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.runtime import LocalEngine
from nprdsl.runtime.adapter_settings import SETTINGS
from nprdsl.runtime.bundled import ARITH, is_bundled
from nprdsl.runtime.errors import ModelNotFoundError, UnsupportedModelError
from nprdsl.runtime.local.gguf_tokenizer import rebuilt
from nprdsl.runtime.local.loading import LoadOptions, load_model
from tests.runtime.tiny_models import SHAPE, byte_tokenizer, model

OWN = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""
GREETING = "It was 1945, and  don't\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = byte_tokenizer([])
    model("llama", len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def logits(one: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = one(input_ids=torch.tensor([[1, 2, 3]])).logits
    return found


# -- options ---------------------------------------------------------------------------------------


def test_options_are_transformers_own(base: Path) -> None:
    options = LoadOptions(dtype="fp32", attn_implementation="eager")
    loaded, _ = load_model(base, options)
    assert loaded.config._attn_implementation == "eager" and not loaded.training
    assert loaded.dtype is torch.float32
    whole, _ = load_model(base, LoadOptions(dtype="bf16", device_map={"": "cpu"}))
    assert whole.dtype is torch.bfloat16


def test_a_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def why_not(name: str, *, revision: str | None, file: str) -> str:
        asked.append(revision)
        return f"it has no revision `{revision}`"

    monkeypatch.setattr("nprdsl.runtime.local.loading.why_not", why_not)
    with pytest.raises(ModelNotFoundError, match="it has no revision `v9`"):
        LocalEngine.from_pretrained("some/model", revision="v9")
    assert asked == ["v9"]


def test_unknown_options_are_told_before_anything_is_loaded() -> None:
    with pytest.raises(TypeError, match="load_in_9bit"):
        LocalEngine.from_pretrained("/no/such/model", load_in_9bit=True)  # type: ignore[call-arg]


def test_an_engine_says_what_it_needs_where_it_is_missing() -> None:
    """As in a base install."""
    program = "import sys; sys.modules['torch'] = None; from nprdsl.runtime import LocalEngine"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    told = ran.stderr.strip().splitlines()[-1]
    assert told.endswith("LocalEngine needs torch; install it with: pip install 'nprdsl[local]'")


def test_code_of_a_models_own_runs_where_it_is_trusted(base: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    settings |= {"model_type": "own", "architectures": ["Own"]}
    settings["auto_map"] = {"AutoConfig": "code.OwnConfig", "AutoModelForCausalLM": "code.Own"}
    (base / "config.json").write_text(json.dumps(settings))
    (base / "code.py").write_text(OWN)
    with pytest.raises(ModelNotFoundError, match=r"custom code .*; trust_remote_code=True runs it"):
        LocalEngine.from_pretrained(base)
    engine = LocalEngine.from_pretrained(base, trust_remote_code=True)
    assert type(engine.model).__name__ == "Own"


# -- adapters --------------------------------------------------------------------------------------


def adapter(folder: Path, **settings: object) -> Path:
    folder.mkdir()
    given = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"]}
    (folder / SETTINGS).write_text(json.dumps({**given, **settings}))
    return folder


def test_an_adapter_without_peft_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    folder = adapter(tmp_path / "tuned", base_model_name_or_path="owner/base")
    with pytest.raises(
        ModelNotFoundError, match=r"PEFT adapter of the base model `owner/base`.*pip"
    ):
        LocalEngine.from_pretrained(folder)


def test_an_adapter_must_name_its_base(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="base_model_name_or_path"):
        LocalEngine.from_pretrained(adapter(tmp_path / "tuned"))


@pytest.mark.parametrize("text", [b"{", b"[]", b"null", b"\xff", b'{"base_model_name_or_path": 5}'])
def test_an_adapter_whose_settings_are_broken(text: bytes, tmp_path: Path) -> None:
    (adapter(tmp_path / "tuned") / SETTINGS).write_bytes(text)
    with pytest.raises(ModelNotFoundError, match=re.escape(SETTINGS)):
        LocalEngine.from_pretrained(tmp_path / "tuned")


def test_a_folder_without_a_model_hides_none_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(ARITH).mkdir()
    assert is_bundled(ARITH)
    Path(ARITH, "config.json").touch()
    assert not is_bundled(ARITH)


def test_an_adapter_runs_on_its_base(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    tuned.save_pretrained(tmp_path / "tuned")
    engine = LocalEngine.from_pretrained(tmp_path / "tuned", dtype="fp32")
    assert type(engine.model) is LlamaForCausalLM
    assert (logits(engine.model) - logits(tuned)).abs().max() <= 1e-5
    assert (logits(engine.model) - logits(LlamaForCausalLM.from_pretrained(base))).abs().max() > 0.1


@pytest.mark.parametrize("rows", [320, 257], ids=["padded", "as its tokenizer"])
@pytest.mark.parametrize("trained", ["modules_to_save", "target_modules"])
def test_an_adapter_whose_embeddings_have_other_rows_than_its_base(
    rows: int, trained: str, base: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    tuned = LlamaForCausalLM.from_pretrained(base)
    tuned.resize_token_embeddings(300, mean_resizing=False)
    tuned.save_pretrained(base)  # as of models with more rows than tokens
    tuned.resize_token_embeddings(rows, mean_resizing=False)
    whole = {"target_modules": ["q_proj"], trained: ["embed_tokens", "lm_head"]}
    tuned = peft.get_peft_model(tuned, peft.LoraConfig(r=4, **whole))
    tuned.save_pretrained(tmp_path / "tuned")
    byte_tokenizer([]).save_pretrained(tmp_path / "tuned")
    engine = LocalEngine.from_pretrained(tmp_path / "tuned", dtype="fp32")
    assert (logits(engine.model) - logits(tuned)).abs().max() <= 1e-5


def test_a_model_that_peft_has_wrapped_goes_in_as_it_is(base: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = LlamaForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(plain, config)
    engine = LocalEngine(tuned, byte_tokenizer([]))
    assert engine.model is tuned.get_base_model()
    assert torch.equal(logits(engine.model), logits(tuned))
    prefix = peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    prefixed = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), prefix)
    with pytest.raises(UnsupportedModelError, match="of the kind PREFIX_TUNING, which"):
        LocalEngine(prefixed, byte_tokenizer([]))


def test_an_adapter_of_another_base_says_what_does_not_fit(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    small = LlamaForCausalLM(LlamaConfig(**SHAPE | {"hidden_size": 16}, num_hidden_layers=1))
    tuned = peft.get_peft_model(small, peft.LoraConfig(r=4, target_modules=["q_proj"]))
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    tuned.save_pretrained(tmp_path / "tuned")
    with pytest.raises(ModelNotFoundError, match="do not fit the base model: size mismatch for"):
        LocalEngine.from_pretrained(tmp_path / "tuned")


def test_an_adapter_whose_base_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = adapter(tmp_path / "tuned", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(
        ModelNotFoundError, match="PEFT adapter, and its base model is missing: no "
    ):
        LocalEngine.from_pretrained(folder)


def test_adapters_that_are_no_weights_are_refused(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config).save_pretrained(
        tmp_path / "tuned"
    )
    with pytest.raises(ModelNotFoundError, match="of the kind PREFIX_TUNING, which"):
        LocalEngine.from_pretrained(tmp_path / "tuned")


# -- GGUF ------------------------------------------------------------------------------------------


def bytewise(pre: str) -> dict[str, Any]:
    """The fields of byte-level BPE with a few merges, one of them across digits."""
    core = json.loads(byte_tokenizer([]).backend_tokenizer.to_str())
    tokens = sorted(core["model"]["vocab"], key=core["model"]["vocab"].get)
    merges = [("1", "9"), ("4", "5"), ("19", "45"), ("I", "t"), ("\u0120", "w"), ("a", "s")]
    tokens += [a + b for a, b in merges] + ["<|end|>"]
    return {
        "general.architecture": "llama",
        "llama.context_length": 256,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 1) + [3],
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }


def sentencepiece(**others: object) -> dict[str, Any]:
    """The fields of BPE over characters, with bytes for the rest."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    kinds, scores = [2, 3, 3, *[6] * 256], [0.0] * 259
    words = ["\u2581", "a", "b", "ab", "\u2581ab", "aba", "1", "<tool>"]
    return {
        "general.architecture": "llama",
        "llama.context_length": 256,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces + words,
        "tokenizer.ggml.token_type": [*kinds, *[1] * (len(words) - 1), 4],
        "tokenizer.ggml.scores": [*scores, *[-float(n) for n in range(len(words))]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **others,
    }


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["It", "\u0120w", "as", "\u0120", "1945"]),
        ("smollm", ["It", "\u0120w", "as", "\u0120", "1", "9", "4", "5"]),
        ("llama-bpe", ["It", "\u0120w", "as", "\u0120", "19", "4", "5"]),
        ("qwen2", ["It", "\u0120w", "as", "\u0120", "1", "9", "4", "5"]),
    ],
)
def test_text_is_split_by_the_rule_that_the_file_names(pre: str, pieces: list[str]) -> None:
    tokenizer = rebuilt(bytewise(pre))
    assert tokenizer.tokenize("It was 1945") == pieces
    assert tokenizer.decode(tokenizer(GREETING).input_ids) == GREETING
    assert tokenizer.eos_token == "<|end|>" and tokenizer.tokenize("a<|end|>") == ["a", "<|end|>"]


def test_pieces_are_merged_by_their_scores() -> None:
    tokenizer = rebuilt(sentencepiece())
    assert tokenizer("ab aba").tokens() == ["<s>", "\u2581ab", "\u2581ab", "a"]
    assert tokenizer("\u00e9<tool>").tokens() == ["<s>", "\u2581", "<0xC3>", "<0xA9>", "<tool>"]
    plain = rebuilt(sentencepiece(**{"tokenizer.ggml.add_space_prefix": False}))
    assert plain("aba").tokens() == ["<s>", "aba"]
    assert plain.decode(plain("b \u00e9 a").input_ids, skip_special_tokens=True) == "b \u00e9 a"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        (bytewise("tekken"), "tokenizer.ggml.pre = tekken"),
        (sentencepiece(**{"tokenizer.ggml.model": "t5"}), "tokenizer.ggml.model = t5"),
        (sentencepiece(**{"tokenizer.ggml.precompiled_charsmap": [1]}), "precompiled_charsmap"),
    ],
)
def test_rules_that_are_not_known_are_refused_by_name(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"{rule} is not known; .*LocalEngine"):
        rebuilt(fields)


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    """Written by the library, with the weights of a Llama, whose rotary halves it interleaves."""
    gguf = pytest.importorskip("gguf")
    fields = bytewise("smollm")
    width = len(fields["tokenizer.ggml.tokens"])
    file = tmp_path / "tiny.gguf"
    original = _write(gguf, file, fields, width)
    for path, options in ((file, {}), (tmp_path, {"gguf_file": file.name})):
        engine = LocalEngine.from_pretrained(path, dtype="fp32", **options)
        assert isinstance(engine.tokenizer, PreTrainedTokenizerFast)
        assert engine.tokenizer.tokenize("1945") == ["1", "9", "4", "5"]
        assert (logits(engine.model) - logits(original)).abs().max() <= 1e-4
    with pytest.raises(ModelNotFoundError, match=r"the folder has no other\.gguf"):
        LocalEngine.from_pretrained(tmp_path, gguf_file="other.gguf")


def _write(gguf: Any, file: Path, fields: dict[str, Any], width: int) -> PreTrainedModel:
    shape = {**SHAPE, "num_key_value_heads": 4, "vocab_size": width, "num_hidden_layers": 1}
    shape |= {"max_position_embeddings": 256, "tie_word_embeddings": False, "rms_norm_eps": 1e-5}
    torch.manual_seed(0)
    original = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(width)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(fields["tokenizer.ggml.pre"])
    writer.add_token_list(fields["tokenizer.ggml.tokens"])
    writer.add_token_types(fields["tokenizer.ggml.token_type"])
    writer.add_token_merges(fields["tokenizer.ggml.merges"])
    writer.add_eos_token_id(width - 1)
    for name, weight in original.state_dict().items():
        writer.add_tensor(_TENSORS[name.removeprefix("model.")], _interleaved(name, weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return original


_TENSORS = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
    "layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
    "layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    "layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
    "layers.0.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
    "layers.0.mlp.up_proj.weight": "blk.0.ffn_up.weight",
    "layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    "layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
    "layers.0.post_attention_layernorm.weight": "blk.0.ffn_norm.weight",
}


def _interleaved(name: str, weight: np.ndarray) -> np.ndarray:
    """As llama.cpp has the rows of queries and keys."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    return weight.reshape(4, 2, 4, 32).swapaxes(1, 2).reshape(32, 32)
