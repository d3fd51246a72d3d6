"""What both benchmarks of the SGLang runtime share: a model, an engine, requests of known shape.

A forking request writes `branches` branches of exactly `tokens` letters each; a plain one, on the
same server, as many tokens one after another.
Non-goals: what is compared, and how it is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nprdsl.grammar.resolve import read_grammar
from nprdsl.machine.budget import Limits
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest, TraceReport, read_reports
from nprdsl.schema import Schema

SECONDS = 600  # the longest that a group of requests may take
PATHS = """
%import .parallel (spawn, reduce)
start: spawn{{path}}~1..64 reduce{{end}}
path:  "<path>" BODY "</path>"
end:   "<end>"
BODY:  /[a-z]{{{tokens}}}/
"""
TAGS = ("<path>", "</path>", "<end>")


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request: so many at once, with so many branches of so many letters."""

    branches: int
    tokens: int
    batch: int = 1
    prompt: int = 64


@dataclass(frozen=True, slots=True)
class Taken:
    """What a group of requests took: seconds until the last answer, tokens of all, the mean
    seconds to an answer, forwards of the first request (0 for plain ones), seconds of CPU time of
    all the server's processes."""

    seconds: float
    tokens: int
    answer_s: float
    forwards: int
    cpu_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Size:
    """A random Qwen3."""

    hidden: int
    layers: int
    positions: int = 32_768


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, and every tag."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(tag, special=True) for tag in ("<eos>", *TAGS)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def make_model(folder: Path, size: Size, dtype: torch.dtype) -> Path:
    """A random model with its tokenizer."""
    spelling = tokenizer()
    torch.manual_seed(0)
    heads = max(size.hidden // 64, 1)
    config = Qwen3Config(
        vocab_size=-(-len(spelling) // 64) * 64,
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        head_dim=64,
        max_position_embeddings=size.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=spelling.eos_token_id,
    )
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(folder)
    spelling.save_pretrained(folder)
    return folder


def schema(tokens: int) -> Schema:
    source = PATHS.format(tokens=tokens)
    return Schema(read_grammar(source, file="paths.lark", name="paths", types={}))


def forking(shape: Shape, *, parallel: bool = True, seed: int = 0) -> ForkRequest:
    """A token is at most one letter, so the budget is never what ends a branch; tags that are no
    tokens of the model are spelled."""
    spelled = sum(map(len, TAGS[:2]))
    limits = Limits(
        max_tokens=shape.branches * (shape.tokens + spelled) + len(TAGS[2]) + 1,
        spawn=shape.branches,
    )
    return ForkRequest.of(
        schema(shape.tokens), limits=limits, sampling=Sampling(seed=seed), parallel=parallel
    )


def plain(tokens: int) -> dict[str, Any]:
    """Stock settings of a request that writes so many tokens."""
    return {"temperature": 1.0, "max_new_tokens": tokens, "ignore_eos": True}


def prompts(shape: Shape, width: int, seed: int) -> list[list[int]]:
    """Prompts that share no beginning."""
    rng = random.Random(seed)
    return [[rng.randrange(width) for _ in range(shape.prompt)] for _ in range(shape.batch)]


class Runs:
    """An engine of SGLang in this process's children."""

    def __init__(self, model: Path, **options: Any) -> None:
        import sglang

        self.engine = sglang.Engine(
            **{
                "model_path": str(model),
                "disable_overlap_schedule": True,
                "page_size": 1,
                "log_level": "error",
                **options,
            }
        )

    def stop(self) -> None:
        self.engine.shutdown()

    def fork(self, shape: Shape, *, parallel: bool = True, seed: int = 0) -> Taken:
        request = forking(shape, parallel=parallel, seed=seed).sampling_params()
        return self._take(shape, request, seed)

    def plain(self, shape: Shape, tokens: int, *, seed: int = 0) -> Taken:
        return self._take(shape, plain(tokens), seed)

    def report(self, prompt: list[int], request: ForkRequest) -> TraceReport:
        """What the server tells of one request."""
        output = self._run(self._send(prompt, request.sampling_params()))[1]
        told = read_reports(output["meta_info"])
        if not told or not told[-1].final:
            raise RuntimeError(f"the server gave no report: {output['meta_info']}")
        return told[-1]

    def _take(self, shape: Shape, settings: dict[str, Any], seed: int) -> Taken:
        asked = prompts(shape, len(string.ascii_letters), seed)

        async def together() -> list[tuple[float, dict[str, Any]]]:
            return list(await asyncio.gather(*(self._send(prompt, settings) for prompt in asked)))

        begun, cpu = time.perf_counter(), self._cpu_s()
        answers = self._run(together())
        seconds = time.perf_counter() - begun
        told = read_reports(answers[0][1]["meta_info"])
        return Taken(
            seconds=seconds,
            tokens=sum(len(output["output_ids"]) for _, output in answers),
            answer_s=sum(took for took, _ in answers) / len(answers),
            forwards=told[-1].forwards if told else 0,
            cpu_s=self._cpu_s() - cpu,
        )

    def _cpu_s(self) -> float:
        """CPU time of the server's processes so far."""
        import psutil  # type: ignore[import-untyped]

        times = (psutil.Process(pid).cpu_times() for pid in self.engine.get_all_child_pids())
        return float(sum(each.user + each.system for each in times))

    async def _send(
        self, prompt: list[int], settings: dict[str, Any]
    ) -> tuple[float, dict[str, Any]]:
        begun = time.perf_counter()
        output = await self.engine.async_generate(input_ids=prompt, sampling_params=settings)
        return time.perf_counter() - begun, output

    def _run(self, work: Any) -> Any:
        return self.engine.loop.run_until_complete(asyncio.wait_for(work, SECONDS))


@contextmanager
def without_plugin() -> Iterator[None]:
    """Servers that are started meanwhile do not load the plugin."""
    os.environ["SGLANG_PLUGINS"] = "none"
    try:
        yield
    finally:
        del os.environ["SGLANG_PLUGINS"]
