"""The embedded engine: schema, prompt and model in; a legal trace and its log-probabilities out.

Everything that runs at once shares one KV log and one forward a round (`Scheduler`). Calls may come
from several threads: whichever waits runs the next round, for all. On a CPU that others use too,
set GOMP_SPINCOUNT=0 and OMP_WAIT_POLICY=passive before torch is imported, so that its threads do
not wait busily.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.grammar.ir import Grammar, JoinKind
from nprdsl.machine.budget import Limits, check_count
from nprdsl.machine.machine import Machine
from nprdsl.runtime.async_calls import AsyncCall, Begun
from nprdsl.runtime.drawing.avoided_runs import AvoidedTexts
from nprdsl.runtime.engine import Engine, Submission, own_sampling
from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.kv_reservation import most_fed
from nprdsl.runtime.local.adapters import without_wrapper
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.loading import LoadOptions, load_model
from nprdsl.runtime.local.model_facts import most_positions
from nprdsl.runtime.local.packed_matrices import PackedMatrices
from nprdsl.runtime.local.probe import probe
from nprdsl.runtime.local.recurrent_forward import RecurrentForward
from nprdsl.runtime.local.requests import Decoding, FreeRun, ScheduledRequest, any_token
from nprdsl.runtime.local.scheduler import Scheduler, Timings
from nprdsl.runtime.metrics import Observer
from nprdsl.runtime.options import Options
from nprdsl.runtime.prompts import Ids, Prompt, PromptEncoder
from nprdsl.runtime.results import Completion, Ending, Result, result_of
from nprdsl.runtime.sampling import DEFAULT, Sampling
from nprdsl.runtime.untrained import is_recorded
from nprdsl.schema import Schema
from nprdsl.structure.events import Event, TokenEvent
from nprdsl.tokens.text_decoder import TextDecoder
from nprdsl.tokens.vocabulary import Vocabulary

MAX_KV_TOKENS = 65_536
MAX_ROWS = 512
PREFIX_TOKENS = 16_384


class EngineBounds(NamedTuple):
    """The most tokens of one sequence, and of all in memory; the tokens that can be chosen."""

    positions: int
    capacity: int
    outputs: int


class LocalEngine(Engine):
    """One model, ready to run any schema.

    `tokenizer` is the model's fast tokenizer, or a `Vocabulary` (prompts are then ids, or texts
    that it can spell). `max_kv_tokens` bounds the tokens in memory, of all requests together: a
    request begins when its prompt and what it is likely to write have room, and the youngest waits
    again where too many have grown. Beside them at most `prefix_tokens` tokens of prompts are kept
    for later ones that begin alike; 0 keeps none. `max_rows` bounds the tokens of one forward.
    `packed` lays a model's matrices out a second time, as CPUs read them (`PackedMatrices`), which
    decodes faster there: for weights that are not changed by way of `Tensor.data`. The model is put
    into evaluation mode. Raises UnsupportedModelError where it does not honour masks and positions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast | Vocabulary,
        *,
        max_kv_tokens: int = MAX_KV_TOKENS,
        max_rows: int = MAX_ROWS,
        prefix_tokens: int = PREFIX_TOKENS,
        packed: bool = False,
    ) -> None:
        model = _of_transformers(model)
        check_count("max_kv_tokens", max_kv_tokens)
        check_count("max_rows", max_rows)
        check_count("prefix_tokens", prefix_tokens, 0)
        probed = probe(model)
        self._width = probed.width
        if isinstance(tokenizer, Vocabulary):
            self.tokenizer, vocabulary = None, tokenizer
        else:
            self.tokenizer = tokenizer
            vocabulary = Vocabulary.from_tokenizer(tokenizer)
        self._config = model.config.to_dict()
        super().__init__(PromptEncoder(self.tokenizer, vocabulary), vocabulary)
        self.model = model
        self._most_positions = most_positions(model)
        self._unmergeable = probed.unmergeable
        forward = (
            RecurrentForward(model, max_kv_tokens, probed.continuing)
            if self._unmergeable
            else Forward(model, max_kv_tokens, probed.path)
        )
        if packed:
            forward.matrices = PackedMatrices(model)
        self._scheduler = Scheduler(
            forward,
            self._width,
            max_rows=max_rows,
            prefix_tokens=0 if self._unmergeable else prefix_tokens,
        )
        self._any_token = any_token(self._width)
        self._avoided = AvoidedTexts(self.vocabulary)
        self._ends = _ends(model, vocabulary)
        self._turn = threading.Condition()  # one thread runs a round; what follows is held under it
        self._is_rounding = False
        self._stopped: list[ScheduledRequest[Any]] = []  # aborted while a round runs
        self._news: dict[int, list[Event]] = {}  # of the requests that somebody listens to

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "auto",
        max_kv_tokens: int = MAX_KV_TOKENS,
        max_rows: int = MAX_ROWS,
        prefix_tokens: int = PREFIX_TOKENS,
        revision: str | None = None,
        attn_implementation: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        quantization_config: object = None,
        trust_remote_code: bool = False,
        gguf_file: str | None = None,
    ) -> LocalEngine:
        """The engine of the model in a folder, or of that name on the hub.

        `dtype` "auto" is the checkpoint's own, else "fp32", "bf16" or "fp16". `gguf_file` is the
        name of a file in the folder or repository; its path alone does as well. A folder may hold a
        PEFT adapter, whose base model is loaded with it. The other options are those of
        transformers; `device_map` takes the place of `device`. Raises ModelNotFoundError,
        UnsupportedModelError, and ValueError for a bad device or dtype.
        """
        options = LoadOptions(
            device=device,
            dtype=dtype,
            revision=revision,
            attn_implementation=attn_implementation,
            device_map=device_map,
            quantization_config=quantization_config,
            trust_remote_code=trust_remote_code,
            gguf_file=gguf_file,
        )
        model, tokenizer = load_model(path, options)
        return cls(
            model,
            tokenizer,
            max_kv_tokens=max_kv_tokens,
            max_rows=max_rows,
            prefix_tokens=prefix_tokens,
            packed=True,
        )

    @property
    def timings(self) -> Timings:
        """Where the time went since the engine was made."""
        return self._scheduler.timings

    @property
    def sampling_defaults(self) -> dict[str, Any]:
        config = self.model.generation_config
        return own_sampling({} if config is None else config.to_dict())

    @property
    def bounds(self) -> EngineBounds:
        """What a server has to tell its clients."""
        return EngineBounds(self._positions, self._scheduler.pool.total, self._outputs)

    @property
    def _positions(self) -> int:
        return self._most_positions

    @property
    def _outputs(self) -> int:
        return self._width

    def knows(self, schema: Schema) -> bool:
        """All tags are tokens of the model's vocabulary, or `nprdsl train` has trained it on this
        schema, as its configuration says."""
        return super().knows(schema) or is_recorded(self._config, schema.grammar)

    def helps(self, schema: Schema) -> bool:
        return not self.knows(schema)

    def forget(self) -> None:
        """Forgets what earlier requests have left: what was computed of prompts, and how long
        traces were. What comes is then the same to the last bit as in a new engine.

        To be called where the model is changed in a way that its parameters do not show: an adapter
        that is switched on or off, a write through `.data`. An optimizer's step and
        `load_state_dict` are noticed without it.
        """
        with self._turn:
            while self._is_rounding:
                self._turn.wait()
            self._scheduler.forget()
            self._turn.notify()  # one of those that would have run the next round

    # -- requests that a server follows ------------------------------------------------------------

    def watch(
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = DEFAULT,
        **options: Unpack[Options],
    ) -> int:
        """`submit`, for `afollow`: what happens is kept until it is asked for."""
        return self._begin(self._read(schema, prompt, sampling, options), events=True)

    async def afollow(self, number: int) -> AsyncGenerator[Event | Result]:
        """What happens to a request, if it is watched, and its result last. Closing the generator
        aborts it."""

        def work(begun: Begun) -> Iterator[Event | Result]:
            with self._closing(begun) as add:
                yield from self._events(add(number))
                yield self.wait(number)

        async with AsyncCall[Event | Result](self.abort, work) as items:
            async for item in items:
                yield item

    def submit_text(self, prompt: Prompt, *, max_tokens: int, sampling: Sampling = DEFAULT) -> int:
        """Queues a request without a schema, for `afollow_text`. `max_tokens` is lowered to what
        the model's positions allow. A prompt of text is taken as it is, so that special tokens may
        be spelled in it. Raises LimitError, PromptError, CapacityError."""
        ids = self._prompts.plain(prompt)
        budget = self._within_positions(Limits(max_tokens=max_tokens), len(ids)).max_tokens
        decoder = TextDecoder(self.vocabulary)
        run = FreeRun(self._any_token, budget, self._ends, decoder)
        request = ScheduledRequest(run, ids, len(ids) + budget, sampling)
        with self._turn:
            self._scheduler.submit(request)
            self._open[request.number] = request
            self._news[request.number] = []
        return request.number

    async def afollow_text(self, number: int) -> AsyncGenerator[TokenEvent | Completion]:
        """What such a request writes, and all of it last. Closing the generator aborts it."""

        def work(begun: Begun) -> Iterator[TokenEvent | Completion]:
            with self._closing(begun) as add:
                request = self._awaited(add(number))
                for event in self._events(number):
                    assert isinstance(event, TokenEvent)
                    yield event
                yield _completion(request, self.vocabulary, self._ends)

        async with AsyncCall[TokenEvent | Completion](self.abort, work) as items:
            async for item in items:
                yield item

    def discard(self, number: int) -> None:
        """Stops a request that nobody will follow."""
        with self._turn:
            self._news.pop(number, None)
        self.abort(number)
        self._forget(number)

    def observed_by(self, observer: Observer) -> None:
        """Tells the observer of all requests from now on."""
        self._scheduler.observer = observer

    # -- running -----------------------------------------------------------------------------------

    def _begin(self, submission: Submission, *, events: bool) -> int:
        machine = submission.machine
        self._check_joins(submission.schema.grammar)
        request = ScheduledRequest(
            machine,
            machine.prompt,
            most_fed(submission.schema.grammar, submission.limits, len(machine.prompt)),
            submission.sampling,
            Decoding.PARALLEL if submission.parallel else Decoding.IN_TURN,
            least=machine.least,
            kind=submission.schema.grammar.digest,
            avoided=self._avoided.runs(submission.sampling.avoid),
        )
        with self._turn:
            self._scheduler.submit(request)
            self._open[request.number] = request
            if events:
                self._news[request.number] = []
        return request.number

    def _check_joins(self, grammar: Grammar) -> None:
        """Raises UnsupportedModelError where the model cannot join branches as the schema says."""
        merging = [block.rule for block in grammar.blocks if block.join is not JoinKind.REREAD]
        if merging and self._unmergeable:
            raise UnsupportedModelError(
                f"the `reduce` join of `{merging[0]}` merges branches, and "
                f"{type(self.model).__name__} {self._unmergeable}; let the schema join with "
                "`reread`, which this model can run"
            )

    def _events(self, number: int) -> Iterator[Event]:
        request: ScheduledRequest[Machine] = self._awaited(number)
        try:
            while not request.is_over:
                self._round(request)
                yield from self._told(number)
            yield from self._told(number)
        finally:
            with self._turn:
                self._news.pop(number, None)

    def _told(self, number: int) -> list[Event]:
        with self._turn:
            if number not in self._news:
                return []
            news, self._news[number] = self._news[number], []
        return news

    def wait(self, number: int) -> Result:
        request: ScheduledRequest[Machine] = self._awaited(number)
        while not request.is_over:
            self._round(request)
        self._forget(number)
        return _result(request)

    def abort(self, number: int) -> None:
        request = self._open.get(number)
        if request is not None:
            self._stop([request])

    def _complete(
        self, prompts: Sequence[Ids], budgets: Sequence[int], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        requests: list[ScheduledRequest[FreeRun]] = []
        try:
            for ids, budget, settings in zip(prompts, budgets, sampling, strict=True):
                run = FreeRun(self._any_token, budget, self._ends)
                request = ScheduledRequest(run, ids, len(ids) + budget, settings)
                with self._turn:
                    self._scheduler.submit(request)
                requests.append(request)
            for request in requests:
                while not request.is_over:
                    self._round(request)
        finally:
            self._stop(requests)
        return [_completion(request, self.vocabulary, self._ends) for request in requests]

    # -- rounds ------------------------------------------------------------------------------------

    def _round(self, request: ScheduledRequest[Any]) -> None:
        """Runs one round for all; or waits for those of other threads, until the request is over,
        has news, or nobody runs one."""
        with self._turn:
            while self._is_rounding:
                self._turn.wait()
                if request.is_over or self._news.get(request.number):
                    return
            if request.is_over:
                return
            self._is_rounding = True
        ended: list[ScheduledRequest[Any]] = []
        try:
            ended = self._scheduler.round()
        finally:
            with self._turn:
                self._is_rounding = False
                self._settle(ended)

    def _stop(self, requests: Sequence[ScheduledRequest[Any]]) -> None:
        """Aborts requests: now, or behind the round that runs."""
        with self._turn:
            self._stopped += requests
            if not self._is_rounding:
                self._settle([])

    def _settle(self, ended: list[ScheduledRequest[Any]]) -> None:
        """Between two rounds: aborts what was stopped meanwhile, gathers events, and wakes the
        threads that wait for them; else one of them, to run the next round."""
        stopped, self._stopped = self._stopped, []
        for request in stopped:
            self._scheduler.abort(request)
        for number, news in self._news.items():
            news += self._open[number].machine.drain_events()
        for request in (*ended, *stopped):
            request.is_over = True
        if ended or stopped or any(self._news.values()):
            self._turn.notify_all()
        else:
            self._turn.notify()


def _of_transformers(given: object) -> PreTrainedModel:
    """The model that is run. Raises TypeError for what is none of transformers."""
    model = without_wrapper(given)
    if not isinstance(model, torch.nn.Module) or "config" not in dir(model):
        shown = type(model).__name__ if isinstance(model, torch.nn.Module) else repr(model)
        raise TypeError(
            f"the model is {shown}, it must be one of transformers; LocalEngine.from_pretrained "
            "loads one from a folder or the hub"
        )
    return cast(PreTrainedModel, model)


def _ends(model: PreTrainedModel, vocabulary: Vocabulary) -> frozenset[int]:
    """What ends a text without a schema: the tokenizer's end token and, as in `model.generate`,
    what else the model names. Gemma and Phi-3 end their turns with such a one."""
    config = model.generation_config
    named = None if config is None else config.eos_token_id
    ids = {named} if isinstance(named, int) else set(named or ())
    ends: set[int] = ids & vocabulary.special_text.keys()
    return frozenset(ends if vocabulary.eos_id is None else ends | {vocabulary.eos_id})


def _completion(
    request: ScheduledRequest[FreeRun], vocabulary: Vocabulary, ends: Collection[int]
) -> Completion:
    run, finish = request.machine, request.ended
    assert finish is not None, "the request has not ended"
    has_end_token = bool(run.token_ids) and run.token_ids[-1] in ends
    return Completion(
        prompt_ids=request.prompt,
        text=vocabulary.text(run.token_ids[: len(run.token_ids) - has_end_token]),
        token_ids=tuple(run.token_ids),
        logprobs=tuple(run.logprobs),
        finish=finish,
        error=request.error,
    )


def _result(request: ScheduledRequest[Machine]) -> Result:
    machine, finish = request.machine, request.ended
    assert finish is not None, "the request has not ended"
    ending = Ending(
        request_id=request.number,
        finish=finish,
        forwards=request.forwards,
        time_s=request.ended_s - request.submitted_s,
        longest=_longest(request),
        error=request.error,
        constrained=machine.constrained,
        limits=machine.limits,
    )
    return result_of(machine.bound, machine.prompt, machine.written, ending)


def _longest(request: ScheduledRequest[Machine]) -> int:
    """Tokens of the longest path so far, by positions."""
    log = request.log
    if not log.used:
        return 0
    return int(log.positions[: log.used].max()) + 1 - len(request.prompt)
