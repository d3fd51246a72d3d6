"""Supervised fine-tuning on parallel traces with TRL's own `SFTTrainer`.

    pip install 'nprdsl[trl]'
    python examples/trl_sft.py Qwen/Qwen3-0.6B traces.jsonl run --schema npr

Rows have a `prompt` and a legal `trace`, as `nprdsl curate` writes them. The tags become tokens of
the model; nprdsl makes ids, labels, positions and masks of the rows, and all else is TRL's: any
option of `SFTConfig`, PEFT, logging. What is trained writes its traces with `nprdsl run`.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import nprdsl
from nprdsl.runtime.prompts import PromptEncoder
from nprdsl.trainers.batch.trace_rows import trace_row
from nprdsl.trainers.run.add_tags import add_tags
from nprdsl.trainers.trl.model_inputs import mask_form
from nprdsl.trainers.trl.sft import SFT_SETTINGS, RowCollator, sft_dataset


def train(model_name: str, traces: str, output: str, schema_name: str, steps: int) -> float:
    """Trains and saves the model; gives the last loss."""
    schema = nprdsl.load(schema_name)
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForCausalLM.from_pretrained(model_name, attn_implementation="sdpa")
    add_tags(model, tokenizer, schema.tags)
    vocabulary = nprdsl.Vocabulary.from_tokenizer(tokenizer)
    encoder, bound = PromptEncoder(tokenizer, vocabulary), schema.bind(vocabulary)
    chat = tokenizer.chat_template is not None
    rows = []
    for line in Path(traces).read_text("utf-8").splitlines():
        row = json.loads(line)
        rows.append(trace_row(bound, encoder.read(schema, row["prompt"], chat=chat), row["trace"]))
    trainer = SFTTrainer(
        model,
        SFTConfig(
            output,
            max_steps=steps,
            logging_steps=1,
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),
            **SFT_SETTINGS,
        ),
        train_dataset=sft_dataset(rows),
        data_collator=RowCollator(mask_form(model)),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(output)
    return float(next(e["loss"] for e in reversed(trainer.state.log_history) if "loss" in e))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "traces", "output"):
        parser.add_argument(name)
    parser.add_argument("--schema", default="npr")
    parser.add_argument("--steps", type=int, default=100)
    asked = parser.parse_args()
    loss = train(asked.model, asked.traces, asked.output, asked.schema, asked.steps)
    print(f"last loss {loss:.3f}; nprdsl run --model {asked.output} --schema {asked.schema} …")
