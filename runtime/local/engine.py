"""The embedded engine: schema, prompt and model in; a legal trace and its log-probabilities out.

Everything that runs at once shares one KV log and one forward a round (`scheduler`). Calls from
several threads are served together; each waits for its own results. On a CPU that others use too,
set GOMP_SPINCOUNT=0 and OMP_WAIT_POLICY=passive before torch is imported: its threads then do not
wait busily.
Non-goals: serving over a network, training (the engine never changes the model's weights).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, TypeGuard, Unpack, cast, overload

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.actions import ALL, JoinPolicy
from nprdsl.bound import BoundSchema
from nprdsl.events import EndReason, Event
from nprdsl.ledger import LimitError, Limits
from nprdsl.machine import Machine
from nprdsl.runtime.local.forward import Forward, UnsupportedModelError
from nprdsl.runtime.local.loading import load_model
from nprdsl.runtime.local.outcome import outcome
from nprdsl.runtime.local.probe import probe
from nprdsl.runtime.local.prompts import Ids, Message, PromptEncoder
from nprdsl.runtime.local.requests import Decoding, Job, Request
from nprdsl.runtime.local.scheduler import Scheduler, Timings
from nprdsl.runtime.local.sizing import most_fed
from nprdsl.runtime.results import GenerationError, Result
from nprdsl.runtime.sampling import DEFAULT, Sampling
from nprdsl.schema import Schema
from nprdsl.vocabulary import Vocabulary

Prompt = str | Sequence[int] | Sequence[Message]

MAX_KV_TOKENS = 65_536
MAX_ROWS = 512
DEFAULT_LIMITS = Limits()


class Options(TypedDict, total=False):
    """What `generate`, `stream` and `submit` take besides schema, prompt and sampling."""

    limits: Limits
    join: JoinPolicy
    parallel: bool
    chat: bool
    instructions: bool


@dataclass(frozen=True, slots=True)
class _Running:
    request: Request
    machine: Machine


class LocalEngine:
    """One model, ready to run any schema.

    `tokenizer` is the model's fast tokenizer, or a `Vocabulary` (prompts are then ids, or texts
    that it can spell). `max_kv_tokens` bounds the tokens in memory, of all requests together: a
    request reserves its prompt and its budget, and waits while there is no room. `max_rows` bounds
    the tokens of one forward. Raises UnsupportedModelError where the model does not honour masks
    and positions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast | Vocabulary,
        *,
        max_kv_tokens: int = MAX_KV_TOKENS,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._width = probe(model)
        if isinstance(tokenizer, Vocabulary):
            self.tokenizer, self.vocabulary = None, tokenizer
        else:
            self.tokenizer = tokenizer
            self.vocabulary = Vocabulary.from_tokenizer(tokenizer)
        self.model = model
        self._prompts = PromptEncoder(self.tokenizer, self.vocabulary)
        forward = Forward(model, max_kv_tokens)
        self._scheduler = Scheduler(forward, self._width, max_rows=max_rows)
        self._bound: dict[str, BoundSchema] = {}
        self._open: dict[int, _Running] = {}
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "auto",
        max_kv_tokens: int = MAX_KV_TOKENS,
        max_rows: int = MAX_ROWS,
    ) -> LocalEngine:
        """The engine of the model in a folder, or of that name on the hub.

        `dtype` "auto" is the checkpoint's own, else "fp32", "bf16" or "fp16". Raises
        ModelNotFoundError, UnsupportedModelError, and ValueError for a bad device or dtype.
        """
        model, tokenizer = load_model(path, device, dtype)
        return cls(model, tokenizer, max_kv_tokens=max_kv_tokens, max_rows=max_rows)

    @property
    def chats(self) -> bool:
        """The model has a chat template, so `chat=True` can be asked for."""
        return self._prompts.chats

    @property
    def timings(self) -> Timings:
        """Where the time went since the engine was made."""
        return self._scheduler.timings

    # -- generating --------------------------------------------------------------------------------

    @overload
    def generate(  # type: ignore[overload-overlap]
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = ...,
        **options: Unpack[Options],
    ) -> Result: ...

    @overload
    def generate(
        self,
        schema: Schema,
        prompt: Sequence[Prompt],
        *,
        sampling: Sampling | Sequence[Sampling] = ...,
        **options: Unpack[Options],
    ) -> list[Result]: ...

    def generate(
        self,
        schema: Schema,
        prompt: Prompt | Sequence[Prompt],
        *,
        sampling: Sampling | Sequence[Sampling] = DEFAULT,
        **options: Unpack[Options],
    ) -> Result | list[Result]:
        """Runs one prompt to its result, or a list of prompts together to a list of results.

        A prompt is text, token ids, or chat messages (`{"role": …, "content": …}`). Options:
        `limits`: budgets and bounds, `Limits()` by default; `max_tokens` is lowered to what the
        model's positions allow. `join`: how many branches a join waits for, all by default; which
        are complete first is a matter of `parallel`. `parallel=False` decodes one branch after
        another: the autoregressive baseline. `chat=True`
        puts a text prompt into the tokenizer's chat template. `instructions=True` puts
        `schema.prompt()` before the prompt, for models that were not trained on the format.
        `sampling` may be a list, one for each prompt. Raises LimitError, PromptError and
        CapacityError at once. A request that fails later raises GenerationError if it is the only
        one; in a list its result has `finish` FAILED and an `error`.
        """
        if _is_single(prompt):
            if not isinstance(sampling, Sampling):
                raise TypeError(
                    "one prompt takes one Sampling; a list of them needs a list of prompts"
                )
            with self._closing([]) as numbers:
                numbers.append(self.submit(schema, prompt, sampling=sampling, **options))
                return _succeeded(self.wait(numbers[0]))
        prompts = cast(Sequence[Prompt], prompt)
        each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        if len(each) != len(prompts):
            raise ValueError(f"there are {len(prompts)} prompts, but {len(each)} Samplings")
        with self._closing([]) as numbers:
            for one, how in zip(prompts, each, strict=True):
                numbers.append(self.submit(schema, one, sampling=how, **options))
            return [self.wait(number) for number in numbers]

    def stream(
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = DEFAULT,
        **options: Unpack[Options],
    ) -> Iterator[Event | Result]:
        """Yields what happens, each event with its branch, and the result last.

        Options as in `generate`. Closing the iterator aborts the request. Raises GenerationError.
        """
        with self._closing([]) as numbers:
            numbers.append(self.submit(schema, prompt, sampling=sampling, **options))
            running = self._open[numbers[0]]
            while running.request.ended is None:
                events = self._round(running)
                yield from events
            yield from running.machine.drain_events()
            yield _succeeded(self.wait(numbers[0]))

    def submit(
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = DEFAULT,
        limits: Limits = DEFAULT_LIMITS,
        join: JoinPolicy = ALL,
        parallel: bool = True,
        chat: bool = False,
        instructions: bool = False,
    ) -> int:
        """Queues a request; gives its number, for `wait` and `abort`. Options as in `generate`."""
        bound = self.bind(schema)
        sampling.check_rules(schema.grammar.rules)
        ids = self._encode(schema, prompt, chat=chat, instructions=instructions)
        limits = self._within_positions(limits, len(ids))
        machine = Machine(bound, prompt=ids, limits=limits, join=join)
        job = Job(
            machine=machine,
            prompt=ids,
            slots=most_fed(schema.grammar, limits, len(ids)),
            sampling=sampling,
            decoding=Decoding.PARALLEL if parallel else Decoding.IN_TURN,
        )
        with self._lock:
            request = self._scheduler.submit(job)
            self._open[request.number] = _Running(request, machine)
            return request.number

    def wait(self, number: int) -> Result:
        """Works until the request has ended; gives its result, once."""
        with self._lock:
            if number not in self._open:
                raise KeyError(f"there is no open request {number}: results are given once")
            running = self._open[number]
        while running.request.ended is None:
            self._round(running)
        with self._lock:
            del self._open[number]
        return outcome(running.request, running.machine)

    def abort(self, number: int) -> None:
        """Stops a request with all its branches, from any thread; `wait` gives what there is."""
        with self._lock:
            running = self._open.get(number)
            if running is not None and running.request.ended is None:
                self._scheduler.abort(running.request)

    def bind(self, schema: Schema) -> BoundSchema:
        """The schema over this model's vocabulary; kept, so that later calls cost nothing."""
        key = schema.grammar.digest
        with self._lock:
            if key not in self._bound:
                self._check_outputs(schema)
                self._bound[key] = schema.bind(self.vocabulary)
            return self._bound[key]

    # -- parts -------------------------------------------------------------------------------------

    def _round(self, running: _Running) -> list[Event]:
        with self._lock:
            if running.request.ended is None:
                self._scheduler.round()
            return list(running.machine.drain_events())

    @contextmanager
    def _closing(self, numbers: list[int]) -> Iterator[list[int]]:
        """Requests that are still open behind the block are aborted and forgotten."""
        try:
            yield numbers
        finally:
            for number in numbers:
                self.abort(number)
                with self._lock:
                    self._open.pop(number, None)

    def _encode(self, schema: Schema, prompt: Prompt, *, chat: bool, instructions: bool) -> Ids:
        lead = f"{schema.prompt()}\n" if instructions else ""
        if isinstance(prompt, str):
            if not chat:
                return self._prompts.text(lead + prompt, schema.tags)
            prompt = [{"role": "user", "content": prompt}]
        if not prompt or not isinstance(prompt[0], Mapping):
            if chat or instructions:
                raise ValueError(
                    "a prompt of token ids is taken as it is: no chat, no instructions"
                )
            return self._prompts.ids(cast(Sequence[int], prompt))
        return self._prompts.chat(cast(Sequence[Message], prompt), lead)

    def _within_positions(self, limits: Limits, prompt: int) -> Limits:
        positions = self.model.config.get_text_config().max_position_embeddings
        room = positions - prompt
        if room < 1:
            raise LimitError(
                f"the prompt has {prompt} tokens, the model only {positions} positions"
            )
        return limits if limits.max_tokens <= room else replace(limits, max_tokens=room)

    def _check_outputs(self, schema: Schema) -> None:
        """Tags of which the model knows no output cannot be generated."""
        for tag in schema.tags:
            token = self.vocabulary.special.get(tag, -1)
            if token >= self._width:
                raise UnsupportedModelError(
                    f"the tag {tag} is token {token} of the tokenizer, but the model has only "
                    f"{self._width} outputs; call model.resize_token_embeddings(len(tokenizer))"
                )


def _is_single(prompt: Prompt | Sequence[Prompt]) -> TypeGuard[Prompt]:
    """One prompt: a text, ids, or messages; not a list of those."""
    if isinstance(prompt, str):
        return True
    if not prompt:
        return False
    return isinstance(prompt[0], (int, Mapping))


def _succeeded(result: Result) -> Result:
    if result.finish is EndReason.FAILED:
        raise GenerationError(result)
    return result
