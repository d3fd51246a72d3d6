"""From sequential solutions to a model that reasons in parallel: `nprdsl curate`, then
`nprdsl train sft` on its output as it is."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import nprdsl
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.trainers.curriculum.small_model import character_tokenizer
from tests.cli.commands import invoke
from tests.curate.arithmetic import Solution, arithmetic_oracle
from tests.curate.server import scripted

SCHEMA = nprdsl.load("npr")
CONFIG = """
schema = "npr"
batch = 16
epochs = 40
[model]
path = "beginner"
[data]
source = "traces.jsonl"
[prompt]
chat = false
[optimizer]
kind = "muon"
learning_rate = 1e-2
floor = 0.02
weight_decay = 0.0
betas = [0.9, 0.98]
[run]
output = "run"
room = 512
rows = 8
tensorboard = false
"""


def solved() -> list[Solution]:
    """All pairs of sums of two digits up to 2, in an order that is drawn."""
    parts = [(f"{a}+{b}", a + b) for a in range(3) for b in range(3)]
    pairs = [Solution(pair) for pair in itertools.product(parts, repeat=2)]
    random.Random(0).shuffle(pairs)
    return pairs


def write_beginner(folder: Path, texts: list[str]) -> None:
    """A model of random weights whose tokens are the tags and every character of the texts."""
    torch.manual_seed(0)
    letters = sorted({c for text in texts for c in text} | set("0123456789"))
    tokenizer = character_tokenizer(SCHEMA.tags, "".join(letters))
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_chains_of_thought_become_a_model_that_reasons_in_parallel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = solved()
    learned, held_out = made[:63], made[63:]
    Path("chains.jsonl").write_text("".join(json.dumps(s.row) + "\n" for s in learned))
    with scripted(arithmetic_oracle(learned)) as server:
        where = ("--endpoint", server.url, "--model", "m", "--out", "traces.jsonl")
        assert invoke("curate", "chains.jsonl", "--schema", "npr", *where).exit_code == 0
    traces = [json.loads(line) for line in Path("traces.jsonl").read_text("utf-8").splitlines()]
    write_beginner(Path("beginner"), [row["prompt"] + row["trace"] for row in traces])
    Path("sft.toml").write_text(CONFIG)

    trained = invoke("train", "sft", "--config", "sft.toml")
    assert (trained.exit_code, trained.stderr) == (0, "")

    engine = LocalEngine.from_pretrained("run/model", dtype="fp32")
    prompts, greedy = [solution.prompt for solution in held_out], Sampling(temperature=0)
    results = engine.generate(SCHEMA, prompts, sampling=greedy)
    right = sum(
        result.answer.endswith(f"\\boxed{{{solution.total}}}.")
        for result, solution in zip(results, held_out, strict=True)
    )
    assert right >= 0.8 * len(held_out)
    assert all(len(r.trace.graph.forks[0].after) == 2 for r in results if r.trace is not None)
    assert all(r.usage.degree > 1.1 for r in results)
