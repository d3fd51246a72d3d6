"""examples/trl_sft.py trains a model whose tags are new, and what it saves is opened again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from nprdsl.runtime import LocalEngine
from tests.runtime.tiny_models import byte_tokenizer
from tests.trainers.trl.steps import OTHER, QUESTION, TRACE

pytest.importorskip("trl", minversion="1.16")

from examples.trl_sft import train


def test_a_model_is_trained_and_opened_again(tmp_path: Path) -> None:
    model, traces, output = tmp_path / "model", tmp_path / "traces.jsonl", tmp_path / "run"
    plain = byte_tokenizer(())
    plain.save_pretrained(model)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(plain), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        )
    ).save_pretrained(model)  # fmt: skip
    lines = [json.dumps({"prompt": QUESTION, "trace": trace}) for trace in (TRACE, OTHER)]
    traces.write_text("\n".join(lines), encoding="utf-8")
    first = train(str(model), str(traces), str(output), "npr", 1)
    assert train(str(model), str(traces), str(output), "npr", 20) < first
    engine = LocalEngine.from_pretrained(str(output))
    assert engine.vocabulary.tag_tokens(("<plan>",))["<plan>"] >= len(plain)
