"""A random model, problems and traces of a size that a stage trains in a second or two."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from nprdsl.runtime.bundled import ARITH, model_folder


@dataclass(frozen=True)
class Tiny:
    """Folders and files that configurations name."""

    model: Path
    problems: Path
    traces: Path

    def config(self, stage: str, output: Path, **changes: object) -> Path:
        """A configuration of the stage beside its output; `section__key` changes a value."""
        values: dict[str, object] = {
            "schema": "arith",
            "model__path": str(self.model),
            "data__source": str(self.traces if stage == "sft" else self.problems),
            "run__output": str(output),
            "run__save_every": 1,
            "run__room": 512,
            "run__tensorboard": False,
            "optimizer__learning_rate": 1e-3,
        }
        if stage == "sft":
            values |= {"batch": 4, "epochs": 2}
        else:
            values |= {
                "reward": "random",
                "steps": 4,
                "rollout__prompts": 2,
                "rollout__samples": 4,
                "rollout__max_tokens": 60,
                "rollout__mismatch": 1e-3,
            }
        values |= changes
        file = output.with_suffix(".toml")
        file.write_text(toml(values), encoding="utf-8")
        return file


def toml(values: dict[str, object]) -> str:
    """Flat names to sections; JSON's values are TOML's."""
    lines: dict[str, list[str]] = {"": []}
    for name, value in values.items():
        section, _, key = name.rpartition("__")
        lines.setdefault(section.replace("__", "."), []).append(f"{key} = {json.dumps(value)}")
    return "\n".join(
        "\n".join(([f"[{section}]"] if section else []) + found) for section, found in lines.items()
    )


def make(folder: Path) -> Tiny:
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(model_folder(ARITH))
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = folder / "model"
    Qwen3ForCausalLM(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    rng = random.Random(5)
    sums = [(rng.randint(10, 99), rng.randint(10, 99)) for _ in range(10)]
    problems, traces = folder / "problems.jsonl", folder / "traces.jsonl"
    problems.write_text("".join(map(_problem, range(10), sums)), encoding="utf-8")
    traces.write_text("".join(map(_trace, range(10), sums)), encoding="utf-8")
    return Tiny(model, problems, traces)


def _problem(number: int, pair: tuple[int, int]) -> str:
    a, b = pair
    row = {"id": f"p{number}", "prompt": f"{a}+{b}?", "answer": str(a + b)}
    return json.dumps(row) + "\n"


def _trace(number: int, pair: tuple[int, int]) -> str:
    a, b = pair
    row = {
        "id": f"p{number}",
        "prompt": f"{a}+{b}?",
        "trace": f"<guideline><plan>1:{a}</plan><plan>2:{b}</plan></guideline><step>1:{a}</step>"
        f"<step>2:{b}</step><takeaway>{a}+{b}</takeaway>\\boxed{{{a + b}}}",
    }
    return json.dumps(row) + "\n"
