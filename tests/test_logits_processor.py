"""Stock `model.generate` of transformers with a schema's logits processor, on tiny models."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nprdsl import Limits, Schema, TokenTrace, Vocabulary, load
from nprdsl.export.logits_processor import TraceLogitsProcessor
from nprdsl.grammar.resolve import read_grammar
from nprdsl.machine.budget import LimitError
from nprdsl.masks.matcher import IllegalTokenError
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.local.probe import probe
from tests.runtime.tiny_models import byte_tokenizer

WIDTH = 320  # more than any tokenizer here has
LIMITS = Limits(max_tokens=110)
PROMPTS = ["2*3?", "why is the sky blue?", "x"]

TYPES = {
    "VERDICT": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]},
    "DECISION": {"enum": ["close", "reply"]},
}
# Spawned branches with a list of their own inside; a branch that repeats what its item says.
SPAWN = r"""
%import .parallel (map, process, spawn, reduce, reread)
start: "<a>" spawn{way}~2..3 reread{done}
way:   "<w>" TEXT block? "</w>"
block: map{todo} process{item, do} reduce{end}
todo:  "<todo>" item~1..3 "</todo>"
item:  "<i>" N " " GOAL "</i>"
do:    "<d>" N " " GOAL ": " TEXT "</d>"
end:   "<e>" TEXT "</e>"
done:  "</a>"
N: /[1-9]/
GOAL: /[a-c]{1,3}/
%declare TEXT
"""
EMPTY_LIST = r"""
%import .parallel (map, process, reduce)
start: block
block: map{todo} process{item, do} reduce{end}
todo:  "<todo>" item* "</todo>"
item:  "<i>" N "</i>"
do:    "<d>" N TEXT "</d>"
end:   "<e>" TEXT "</e>"
N: /[1-9]/
%declare TEXT
"""
DATA = r"""
%import .parallel (map, process, reduce)
start: block
block: map{todo} process{item, do} reduce{end}
todo:  "<todo>" item~1..3 "</todo>"
item:  "<i>" N "</i>"
do:    "<d>" N ":" W "</d>"
end:   "<e>" W "</e>"
N: /[1-9]/
W: /[a-c]{1,3}/
"""
SHIPPED = ("arith", "multiverse", "npr", "parallel_r1", "threadweaver", "triage")
OWN = {"spawn": SPAWN, "empty_list": EMPTY_LIST, "data": DATA}


@cache
def schema(name: str) -> Schema:
    if name in OWN:
        return Schema(read_grammar(OWN[name], file=f"{name}.lark", name=name, types={}))
    return load(name, TYPES if name == "triage" else None)


@cache
def tokenizer(name: str, *, special: bool) -> PreTrainedTokenizerFast:
    made = byte_tokenizer(schema(name).tags if special else ())
    made.pad_token = "<eos>"
    made.padding_side = "left"
    return made


@cache
def model(name: str, *, special: bool = True, sees: bool = True, width: int = WIDTH) -> Any:
    """A random model that likes tags, so that traces fork and end. Where it does not see, its
    logits follow from the last token alone."""
    made = tokenizer(name, special=special)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=width,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 3.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[256 : len(made), 0] = 1.0
        if not sees:
            model.model.layers[0].self_attn.o_proj.weight.zero_()
    return model


def generate(
    name: str,
    prompts: list[str],
    *,
    special: bool = True,
    limits: Limits = LIMITS,
    sees: bool = True,
    **options: Any,
) -> list[TokenTrace]:
    made = tokenizer(name, special=special)
    processor = schema(name).logits_processor(made, limits)
    batch = made(prompts, padding=True, return_tensors="pt")
    output = model(name, special=special, sees=sees).generate(
        **batch,
        logits_processor=[processor],
        max_new_tokens=processor.max_new_tokens,
        pad_token_id=made.pad_token_id,
        **options,
    )
    traces: list[TokenTrace] = processor.traces(output)
    bound = schema(name).bind(Vocabulary.from_tokenizer(made))
    for trace, row in zip(traces, output.tolist(), strict=True):
        written = row[batch["input_ids"].shape[1] :]
        count = len(trace.ids) - trace.prompt
        assert tuple(written[:count]) == trace.ids[trace.prompt :]
        assert set(written[count:]) <= {made.eos_token_id}
        assert count <= limits.max_tokens
        assert bound.check(written[:count]) == []
        assert schema(name).check(trace.text) == []
    return traces


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", [*SHIPPED, *OWN])
def test_every_row_of_a_batch_is_a_legal_trace(name: str, special: bool) -> None:
    generate(name, PROMPTS, special=special)
    torch.manual_seed(5)
    generate(name, PROMPTS[:2], special=special, do_sample=True, num_return_sequences=2)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", [*SHIPPED, *OWN])
def test_tokens_are_those_of_the_engine_in_turn(
    name: str, special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that sees its last token only: whatever an engine hides from branches is then
    hidden from stock decoding too."""
    probed = probe(model(name, special=special))
    monkeypatch.setattr("nprdsl.runtime.local.engine.probe", lambda model: probed)
    made = tokenizer(name, special=special)
    engine = LocalEngine(model(name, special=special, sees=False), made, max_kv_tokens=2000)
    results = engine.generate(
        schema(name), PROMPTS, sampling=Sampling(temperature=0), limits=LIMITS, parallel=False
    )
    traces = generate(name, PROMPTS, special=special, sees=False)
    for result, trace in zip(results, traces, strict=True):
        end = (made.eos_token_id,)
        written = trace.ids[trace.prompt :]
        assert written in (result.token_ids, result.token_ids + end)
        assert result.trace is not None
        assert trace.sampled[trace.prompt :].tolist()[: len(result.token_ids)] == (
            result.trace.sampled[result.trace.prompt :].tolist()
        )


@pytest.mark.parametrize("name", ["arith", "npr", "threadweaver"])
def test_up_to_the_end_of_the_first_branch_attention_is_the_same_too(name: str) -> None:
    engine = LocalEngine(model(name), tokenizer(name, special=True), max_kv_tokens=2000)
    greedy = Sampling(temperature=0)
    result = engine.generate(schema(name), PROMPTS[1], sampling=greedy, limits=LIMITS)
    (trace,) = generate(name, PROMPTS[1:2])
    graph = trace.graph
    fork = graph.forks[0]
    behind = graph.segments[fork.after[1]].start if len(fork.after) > 1 else len(trace.ids)
    assert behind > graph.segments[fork.after[0]].start
    assert trace.ids[trace.prompt : behind] == result.token_ids[: behind - trace.prompt]


# several calls


def call(
    processor: TraceLogitsProcessor, prompt: str, name: str = "npr", **options: Any
) -> torch.Tensor:
    made = tokenizer(name, special=True)
    settings = {"max_new_tokens": processor.max_new_tokens, "pad_token_id": 256} | options
    batch = made([prompt], return_tensors="pt")
    output: torch.Tensor = model(name).generate(**batch, logits_processor=[processor], **settings)
    return output


def processor_of(name: str, limits: Limits = LIMITS) -> TraceLogitsProcessor:
    return schema(name).logits_processor(tokenizer(name, special=True), limits)


@pytest.mark.parametrize("name", ["npr", "parallel_r1"])
@pytest.mark.parametrize("prompts", [["ab", "ab"], ["ab", "abc", "abcd", "ab"], ["abcd", "ab"]])
def test_one_processor_serves_one_prompt_after_another(name: str, prompts: list[str]) -> None:
    processor = processor_of(name)
    for prompt in prompts:
        alone = call(processor_of(name), prompt, name)
        assert call(processor, prompt, name).tolist() == alone.tolist()
        assert len(processor.traces(alone)) == 1


def test_a_batch_of_another_size_begins_anew() -> None:
    processor, made = processor_of("npr"), tokenizer("npr", special=True)
    for prompts in (PROMPTS, PROMPTS[:1], PROMPTS[:2]):
        batch = made(prompts, padding=True, return_tensors="pt")
        output = model("npr").generate(
            **batch, logits_processor=[processor], max_new_tokens=111, pad_token_id=256
        )
        assert len(processor.traces(output)) == len(prompts)


def test_a_trace_may_be_written_in_several_calls() -> None:
    whole, processor = call(processor_of("npr"), "ab"), processor_of("npr")
    ids = call(processor, "ab", max_new_tokens=20)
    ids = model("npr").generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=[processor],
        max_new_tokens=91,
        pad_token_id=256,
    )
    assert ids.tolist() == whole.tolist()


def test_reset_makes_what_was_written_a_prompt() -> None:
    processor = processor_of("npr")
    ids = call(processor, "ab")
    processor.reset()
    output = model("npr").generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=[processor],
        max_new_tokens=111,
        pad_token_id=256,
    )
    (trace,) = processor.traces(output)
    assert trace.prompt == ids.shape[1]


# what is refused


@pytest.mark.parametrize("name", ["npr", "parallel_r1"])
@pytest.mark.parametrize(
    "options",
    [{"num_beams": 2}, {"num_beams": 3, "do_sample": True}, {"num_beams": 2, "min_new_tokens": 3}],
)
def test_beams_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="num_beams=1"):
        call(processor_of(name), "ab", name, **options)


@pytest.mark.parametrize("lookup", [True, False])
@pytest.mark.parametrize("name", ["npr", "parallel_r1"])
def test_assisted_decoding_is_refused_or_right(name: str, lookup: bool) -> None:
    """It is right where no token is taken back: nothing to look up, all drafts taken."""
    how = {"prompt_lookup_num_tokens": 3} if lookup else {"assistant_model": model("arith")}
    try:
        assisted = call(processor_of(name), "ab ab ab ab", name, **how)
    except ValueError as error:
        assert "assisted decoding" in str(error)
    else:
        assert assisted.tolist() == call(processor_of(name), "ab ab ab ab", name).tolist()


def test_several_samples_are_no_beams() -> None:
    torch.manual_seed(1)
    output = call(processor_of("npr"), "ab", do_sample=True, num_return_sequences=3)
    assert len(output) == 3


def test_what_generate_cuts_off_is_told() -> None:
    processor = processor_of("npr")
    with pytest.raises(ValueError, match="max_new_tokens=111"):
        processor.traces(call(processor, "ab", max_new_tokens=10))
    with pytest.raises(ValueError, match="gave last"):
        processor.traces(torch.zeros(1, 3, dtype=torch.long))


def test_traces_of_the_whole_output_and_of_lists() -> None:
    processor = processor_of("npr")
    output: Any = call(processor, "ab", return_dict_in_generate=True)
    (trace,) = processor.traces(output)
    assert trace.ids == processor.traces(output.sequences.tolist())[0].ids


@pytest.mark.parametrize("limits", [300, {"max_tokens": 300}, None])
def test_what_are_no_limits_is_named(limits: Any) -> None:
    with pytest.raises(TypeError, match=r"`limits` is .*, it must be Limits\(max_tokens=…\)"):
        processor_of("npr", limits)


def test_limits_that_cannot_be_met_are_refused_at_once() -> None:
    with pytest.raises(LimitError, match="at least"):
        processor_of("npr", Limits(max_tokens=3))


def test_a_tag_without_an_output_is_refused() -> None:
    made = tokenizer("npr", special=True)
    processor = schema("npr").logits_processor(made, LIMITS)
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        processor(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 258))


def test_other_processors_may_not_forbid_all_that_is_legal() -> None:
    forbidden = [[token] for token in range(WIDTH) if token != 256]
    with pytest.raises(ValueError, match="forbids every token"):
        call(processor_of("parallel_r1"), "ab", "parallel_r1", bad_words_ids=forbidden)


def test_forced_tokens_come_whatever_other_processors_say() -> None:
    processor = processor_of("npr")
    tag = tokenizer("npr", special=True).convert_tokens_to_ids("<guideline>")
    (trace,) = processor.traces(call(processor, "ab", bad_words_ids=[[tag]]))
    assert trace.text.startswith("<guideline>")


@pytest.mark.parametrize("options", [{"suppress_tokens": [256]}, {"min_new_tokens": 105}])
def test_the_end_comes_whatever_other_processors_say(options: dict[str, Any]) -> None:
    processor = processor_of("npr", Limits(max_tokens=90))
    (trace,) = processor.traces(call(processor, "ab", **options))
    assert schema("npr").check(trace.text) == []


def test_a_token_chosen_against_the_mask_is_an_error() -> None:
    processor = processor_of("npr")
    ids, scores = torch.tensor([[1, 2]]), torch.zeros(1, WIDTH)
    processor(ids, scores)
    with pytest.raises(IllegalTokenError, match="row 0: token 5"):
        processor(torch.tensor([[1, 2, 5]]), scores)
    processor(ids, scores)


@pytest.mark.parametrize(
    ("module", "missing", "told"),
    [
        ("nprdsl.export.logits_processor", "torch", r"processor needs torch; .*'nprdsl\[local\]'"),
        (
            "nprdsl.outlines",
            "outlines",
            r"nprdsl.outlines needs outlines 1.3; .* 'outlines>=1.3,<2'",
        ),
    ],
)
def test_a_base_install_says_what_to_install(
    module: str, missing: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*(name for name in sys.modules if name.startswith(f"{missing}.")), module):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=told):
        import_module(module)


# rows that end


def test_scores_are_left_as_they_are() -> None:
    scores = torch.zeros(1, WIDTH)
    masked = processor_of("npr")(torch.tensor([[1]]), scores)
    assert scores.sum() == 0 and masked.isfinite().sum() == 1


def test_a_row_that_was_stopped_by_a_criterion_is_left_alone() -> None:
    processor, made = processor_of("npr"), tokenizer("npr", special=True)
    batch = made(PROMPTS[:2], padding=True, return_tensors="pt")
    stopping = [lambda ids, scores: torch.tensor([ids.shape[1] > 40, False])]
    output = model("npr").generate(
        **batch,
        logits_processor=[processor],
        stopping_criteria=stopping,
        max_new_tokens=111,
        pad_token_id=256,
    )
    with pytest.raises(ValueError, match="row 0 was cut off"):
        processor.traces(output)


@pytest.mark.parametrize("eos", [None, "<eos>"])
def test_a_vocabulary_takes_the_place_of_a_tokenizer(eos: str | None) -> None:
    """Without an end token a row goes on as it likes behind its trace, until `generate` stops."""
    tokens = {i: bytes([i]) for i in range(256)}
    special = {tag: 257 + i for i, tag in enumerate(schema("npr").tags)} | {"<eos>": 256}
    processor = schema("npr").logits_processor(Vocabulary(tokens, special, eos), LIMITS)
    output = call(processor, "ab", eos_token_id=256 if eos else None)
    (trace,) = processor.traces(output)
    assert schema("npr").check(trace.text) == []
