"""A folder that a training run wrote, in stock transformers: `generate(custom_generate=…)`."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from nprdsl import Limits, load
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.trainers.config import SftConfig, read_config
from nprdsl.trainers.run.custom_generate import write_custom_generate
from nprdsl.trainers.stages.sft import train_sft
from tests.trainers.stages.tiny import Tiny, make

LIMITS = Limits(max_tokens=80)
QUESTIONS = ["12+34?", "5?"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies code of models into a folder of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def folder(tiny: Tiny) -> Path:
    write_custom_generate(tiny.model, load("arith"))
    return tiny.model


def generate(folder: Path, model: Any = None, **options: Any) -> torch.Tensor:
    model = model or AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    batch = tokenizer(QUESTIONS, padding=True, return_tensors="pt")
    output: torch.Tensor = model.generate(
        **batch, custom_generate=str(folder), trust_remote_code=True, **options
    )
    return output


def test_rows_are_what_the_engine_writes(folder: Path) -> None:
    engine = LocalEngine.from_pretrained(folder)
    output = generate(folder, limits=LIMITS)
    greedy = Sampling(temperature=0)
    for row, question in zip(output.tolist(), QUESTIONS, strict=True):
        ids = engine.tokenizer(question).input_ids
        result = engine.generate(load("arith"), ids, sampling=greedy, limits=LIMITS)
        behind = row[6:]
        assert tuple(behind[: len(result.token_ids)]) == result.token_ids
        assert set(behind[len(result.token_ids) :]) <= {0}
        assert result.trace is not None and result.trace.graph.forks


def test_samples_follow_the_seed_of_torch(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(
            generate(folder, model, do_sample=True, num_return_sequences=2, max_new_tokens=80)
        )
    assert drawn[0].shape[0] == 4 and drawn[0].shape[1] <= 6 + 80
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()
    assert drawn[0][0].tolist() != drawn[0][1].tolist()


def test_a_model_that_was_loaded_with_its_code_needs_no_more(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    batch = AutoTokenizer.from_pretrained(folder)(["12+34?"], return_tensors="pt")
    alone = model.generate(**batch, limits=LIMITS)
    assert alone.tolist() == generate(folder, limits=LIMITS)[:1, : alone.shape[1]].tolist()


def test_the_engine_is_kept_and_copies_of_the_model_have_none(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    generate(folder, model, limits=LIMITS)
    kept = vars(model)["_nprdsl_engine"]
    before = kept.engine
    generate(folder, model, limits=LIMITS)
    assert kept.engine is before
    assert vars(copy.deepcopy(model))["_nprdsl_engine"].engine is None
    assert vars(pickle.loads(pickle.dumps(model)))["_nprdsl_engine"].engine is None
    model.resize_token_embeddings(64)
    generate(folder, model, limits=LIMITS)
    assert kept.engine is not before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_beams": 2}, "no beam search"),
        ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size"),
        ({"logits_processor": [lambda ids, scores: scores]}, "logits_processor"),
        ({"eos_token_id": 7}, "eos_token_id"),
        ({"max_new_tokens": 3}, "at least"),
        ({"max_length": 6}, "max_length is 6, which 6 tokens of the prompts have used up"),
        ({"token_type_ids": torch.zeros(2, 6, dtype=torch.long)}, "token_type_ids"),
        ({"generation_config": GenerationConfig(no_repeat_ngram_size=2)}, "no_repeat_ngram_size"),
        ({"generation_config": GenerationConfig(eos_token_id=7)}, "eos_token_id"),
    ],
)
def test_what_the_engine_does_not_do_is_refused(
    folder: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        generate(folder, **options)


def test_the_models_own_settings_are_not_left_out_silently(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.update(bad_words_ids=[[7]], cache_implementation="static")
    with pytest.raises(ValueError, match="know `bad_words_ids`; leave it out, here and in the gen"):
        generate(folder, model, limits=LIMITS)
    model.generation_config.update(bad_words_ids=None, typical_p=1.0, no_repeat_ngram_size=0)
    settings = GenerationConfig(return_dict_in_generate=False, num_beams=1, length_penalty=1.0)
    rows = generate(folder, model, limits=LIMITS, generation_config=settings).tolist()
    assert rows == generate(folder, limits=LIMITS).tolist()


def test_without_the_package_it_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("nprdsl", "nprdsl.runtime.local.custom_generate"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'nprdsl\[local\]'"):
        generate(folder)


def test_a_run_writes_it_with_its_schema(tiny: Tiny, tmp_path: Path) -> None:
    own = tmp_path / "sums.lark"
    own.write_text((Path(__file__).parents[2] / "grammars" / "arith.lark").read_text() + "\n//\n")
    config = tiny.config("sft", tmp_path / "run", schema=str(own), epochs=1)
    train_sft(read_config(SftConfig, config))
    output = generate(tmp_path / "run" / "model", limits=LIMITS)
    assert output.shape[0] == len(QUESTIONS)
