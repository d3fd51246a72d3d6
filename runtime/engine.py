"""What every engine offers: a schema, a prompt and options in; a `Result`, or its events, out.

Prompts, limits and schemas are read here, so that all engines take and refuse the same. An engine
brings its vocabulary, its bounds, and what runs a `Submission`. `complete` lets the model write
without a schema's constraint: the autoregressive model that parallel ones are compared with.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NoReturn, Unpack, cast, overload

from nprdsl.machine.actions import ALL, JoinPolicy
from nprdsl.machine.budget import DEFAULT_LIMITS, LimitError, Limits, check_count
from nprdsl.machine.machine import Machine
from nprdsl.machine.native import NativeMachine
from nprdsl.machine.shares import shared_limits
from nprdsl.masks.bound_schema import BoundSchema, TagMode
from nprdsl.prompting.examples import ExampleChoice
from nprdsl.runtime.async_calls import AsyncCall, Begun
from nprdsl.runtime.errors import CapacityError, UnsupportedModelError, UnsupportedServerError
from nprdsl.runtime.options import (
    Options,
    check_options,
    check_sampling,
    check_schema,
    shown_examples,
)
from nprdsl.runtime.prompts import Ids, Prompt, PromptEncoder, PromptError, is_single
from nprdsl.runtime.results import Completion, GenerationError, Result
from nprdsl.runtime.sampling import DEFAULT, Sampling
from nprdsl.runtime.schema_cache import Bindings
from nprdsl.runtime.untrained import MAX_TOKENS, eased
from nprdsl.schema import Schema
from nprdsl.structure.events import EndReason, Event
from nprdsl.tokens.vocabulary import Vocabulary

REFUSALS: Final = (CapacityError, LimitError, PromptError, UnsupportedServerError)  # of one prompt


def _nobody(_: int) -> None:
    """Nobody wants to know that a request has begun."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One request, checked: its limits can be met, and its machine has not begun."""

    schema: Schema
    machine: Machine
    limits: Limits
    join: JoinPolicy
    sampling: Sampling
    parallel: bool
    logprobs: bool


class Engine(ABC):
    """One model behind one vocabulary, ready to run any schema.

    Calls may come from several threads; each waits for its own results.
    """

    def __init__(self, prompts: PromptEncoder, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._prompts = prompts
        self._bindings = Bindings(vocabulary)
        self._lock = threading.RLock()
        self._open: dict[int, Any] = {}  # the engine's own view of requests, by their numbers

    @property
    def chats(self) -> bool:
        """The model has a chat template, so `chat=True` can be asked for."""
        return self._prompts.chats

    @property
    @abstractmethod
    def sampling_defaults(self) -> dict[str, Any]:
        """The model's own settings for `Sampling`: greedy unless it says that it samples."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or sent to another process: calls from many "
            "threads share it; make another one there"
        )

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
        another: the autoregressive baseline. `native=True` masks nothing: forks and joins follow
        the tags that the model writes by itself, and the first token that the schema forbids ends
        the request (`finish` ILLEGAL, with `violations`). `chat=True` puts a text prompt into the
        tokenizer's chat template. `instructions=True` shows the format before the prompt, for
        models that were not trained on it: two of `schema.examples`, or `examples`, as earlier
        turns; without any, `schema.prompt()`. `sampling` may be a list, one for each prompt.
        `logprobs=True` puts log-probabilities into the events of a stream; results have them
        anyway. Where a model of this process does not know the format (`knows`), limits that are
        not given share out 1,024 tokens (`shared_limits`), and sampling that is not given has a
        mild repetition penalty inside free text. Raises LimitError, PromptError, CapacityError, and
        TypeError for options that are none, at once. A request that fails later raises
        GenerationError if it is the only one; in a list its result has `finish` FAILED and an
        `error`.
        """
        return self._generated(schema, prompt, sampling, options)

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
        return self._streamed(schema, prompt, sampling, options)

    @overload
    async def agenerate(  # type: ignore[overload-overlap]
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = ...,
        **options: Unpack[Options],
    ) -> Result: ...

    @overload
    async def agenerate(
        self,
        schema: Schema,
        prompt: Sequence[Prompt],
        *,
        sampling: Sampling | Sequence[Sampling] = ...,
        **options: Unpack[Options],
    ) -> list[Result]: ...

    async def agenerate(
        self,
        schema: Schema,
        prompt: Prompt | Sequence[Prompt],
        *,
        sampling: Sampling | Sequence[Sampling] = DEFAULT,
        **options: Unpack[Options],
    ) -> Result | list[Result]:
        """`generate` for asyncio: the event loop is free meanwhile, and calls share rounds.
        Cancelling it (`asyncio.timeout`, a task's `cancel`) aborts within one round."""

        def work(begun: Begun) -> Iterator[Result | list[Result]]:
            yield self._generated(schema, prompt, sampling, options, begun)

        async with AsyncCall[Result | list[Result]](self.abort, work) as results:
            return await anext(results)

    async def astream(
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = DEFAULT,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Event | Result]:
        """`stream` for asyncio. Cancelling the task that reads, or closing the generator
        (`contextlib.aclosing`), aborts within one round."""

        def work(begun: Begun) -> Iterator[Event | Result]:
            return self._streamed(schema, prompt, sampling, options, begun)

        async with AsyncCall[Event | Result](self.abort, work) as items:
            async for item in items:
                yield item

    def submit(
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        sampling: Sampling = DEFAULT,
        **options: Unpack[Options],
    ) -> int:
        """Queues a request; gives its number, for `wait` and `abort`. Options as in `generate`."""
        submission = self._read(schema, prompt, sampling, options)
        return self._begin(submission, events=False)

    def in_order(
        self,
        schema: Schema,
        prompts: Iterable[tuple[Prompt, Sampling]],
        *,
        ahead: int,
        **options: Unpack[Options],
    ) -> Iterator[Result | str]:
        """Runs many prompts, `ahead` open at once; yields the result of each in order, or why it
        was refused. Options as in `generate`. Closing the iterator aborts what is open."""
        check_count("ahead", ahead)
        waiting, submitted = iter(prompts), deque[int | str]()
        with self._closing() as add:
            while True:
                for prompt, sampling in islice(waiting, ahead - len(submitted)):
                    try:
                        number = add(self.submit(schema, prompt, sampling=sampling, **options))
                        submitted.append(number)
                    except REFUSALS as error:
                        submitted.append(str(error))
                if not submitted:
                    return
                first = submitted.popleft()
                yield first if isinstance(first, str) else self.wait(first)

    def complete(
        self,
        schema: Schema,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        sampling: Sampling | Sequence[Sampling] = DEFAULT,
        chat: bool = False,
        instructions: bool = False,
    ) -> list[Completion]:
        """What the model writes of itself behind each prompt: autoregressive, unconstrained.

        Prompts are read as by `generate`; the schema says which tags they cannot spell, and writes
        the instructions. `max_tokens` is lowered to what the model's positions allow. Raises
        ValueError for settings of single rules: without a schema there are none; PromptError.
        A request that fails has `finish` FAILED and an `error`. An end token that is a tag of the
        schema stands in the text.
        """
        check_schema(schema)
        check_options({"chat": chat, "instructions": instructions})
        limits = Limits(max_tokens=max_tokens)
        if is_single(prompts):
            raise PromptError("`complete` takes a list of prompts: give [prompt] for one")
        each = _one_each(sampling, len(prompts))
        for settings in each:
            if settings.rules:
                rules = ", ".join(f"`{rule}`" for rule in settings.rules)
                raise ValueError(f"sampling is set for {rules}, but a completion has no rules")
            if settings.avoid:
                raise ValueError("`avoid` is a setting of traces: no completion can keep to it")
        ids = [self._prompts.read(schema, p, chat=chat, instructions=instructions) for p in prompts]
        budgets = [self._within_positions(limits, len(one)).max_tokens for one in ids]
        done = self._complete(ids, budgets, each)
        return [replace(one, text=one.text + self._last_tag(one, schema)) for one in done]

    def _last_tag(self, done: Completion, schema: Schema) -> str:
        """The end token where it is a tag, else nothing."""
        if done.finish is not EndReason.COMPLETED:
            return ""
        text = self.vocabulary.special_text.get(done.token_ids[-1], "")
        return text if text in schema.tags else ""

    @abstractmethod
    def wait(self, number: int) -> Result:
        """Works until the request has ended; gives its result, once."""

    @abstractmethod
    def abort(self, number: int) -> None:
        """Stops a request with all its branches, from any thread; `wait` gives what there is."""

    def bind(self, schema: Schema) -> BoundSchema:
        """The schema over this model's vocabulary; kept, so that later calls cost nothing."""
        check_schema(schema)
        self._check_outputs(schema)
        with self._lock:
            return self._bindings.get(schema)

    def knows(self, schema: Schema) -> bool:
        """The model was trained on the format of the schema, as far as can be seen: all tags are
        tokens of its vocabulary."""
        return self.bind(schema).mode is TagMode.SPECIAL

    def shared_limits(self, schema: Schema, max_tokens: int = MAX_TOKENS) -> Limits:
        """Limits under which each text of a trace has its share of the budget, for models that do
        not know the format: `nprdsl.machine.shares.shared_limits`."""
        return shared_limits(self.bind(schema), max_tokens)

    def helps(self, schema: Schema) -> bool:
        """Whether requests without limits and sampling of their own get those of an untrained
        model."""
        return False

    # -- what an engine brings ---------------------------------------------------------------------

    @property
    @abstractmethod
    def _positions(self) -> int:
        """The most tokens of a sequence, prompt included; sys.maxsize where nothing limits them."""

    @property
    @abstractmethod
    def _outputs(self) -> int:
        """The number of tokens that the model can choose."""

    @abstractmethod
    def _complete(
        self, prompts: Sequence[Ids], budgets: Sequence[int], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        """Runs unconstrained requests to their ends."""

    @abstractmethod
    def _begin(self, submission: Submission, *, events: bool) -> int:
        """Queues it; gives its number. `events`: someone will listen."""

    @abstractmethod
    def _events(self, number: int) -> Iterator[Event]:
        """What happens to a request, until it has ended."""

    # -- parts -------------------------------------------------------------------------------------

    def _generated(
        self,
        schema: Schema,
        prompt: Prompt | Sequence[Prompt],
        sampling: Sampling | Sequence[Sampling],
        options: Options,
        begun: Begun = _nobody,
    ) -> Result | list[Result]:
        """`generate`; `begun` is told the numbers of its requests."""
        if is_single(prompt):
            if isinstance(sampling, Sequence):
                raise TypeError(
                    "one prompt takes one Sampling; a list of them needs a list of prompts"
                )
            with self._closing(begun) as add:
                return succeeded(
                    self.wait(add(self.submit(schema, prompt, sampling=sampling, **options)))
                )
        prompts = cast(Sequence[Prompt], prompt)
        each = _one_each(sampling, len(prompts))
        with self._closing(begun) as add:
            pairs = zip(prompts, each, strict=True)
            numbers = [add(self.submit(schema, one, sampling=how, **options)) for one, how in pairs]
            return [self.wait(number) for number in numbers]

    def _streamed(
        self,
        schema: Schema,
        prompt: Prompt,
        sampling: Sampling,
        options: Options,
        begun: Begun = _nobody,
    ) -> Iterator[Event | Result]:
        """`stream`; `begun` is told the number of its request."""
        with self._closing(begun) as add:
            submission = self._read(schema, prompt, sampling, options)
            number = add(self._begin(submission, events=True))
            yield from self._events(number)
            yield succeeded(self.wait(number))

    def _awaited(self, number: int) -> Any:
        """What is open under that number. Raises KeyError."""
        with self._lock:
            if number not in self._open:
                raise KeyError(f"there is no open request {number}: results are given once")
            return self._open[number]

    def _forget(self, number: int) -> None:
        """Nobody will wait for the request any more."""
        with self._lock:
            self._open.pop(number, None)

    def _read(
        self, schema: Schema, prompt: Prompt, sampling: Sampling, options: Options
    ) -> Submission:
        check_options(options)
        check_sampling(sampling)
        bound = self.bind(schema)
        helped = self.helps(schema) and not options.get("native", False)
        if helped and sampling is DEFAULT:
            sampling = eased(sampling, schema, shown_examples(schema, options))
        sampling.check_rules(schema.grammar.rules)
        ids = self._prompts.read(
            schema,
            prompt,
            chat=options.get("chat", False),
            instructions=options.get("instructions", False),
            examples=options.get("examples", ExampleChoice.OWN),
        )
        limits = self._within_positions(options.get("limits", DEFAULT_LIMITS), len(ids))
        if helped and "limits" not in options:
            limits = self.shared_limits(schema, min(limits.max_tokens, MAX_TOKENS))
        join = options.get("join", ALL)
        kind = NativeMachine if options.get("native", False) else Machine
        try:
            machine = kind(bound, ids, limits, join)
        except LimitError as error:
            if limits.max_tokens + len(ids) < self._positions or limits is options.get("limits"):
                raise
            raise LimitError(
                f"{error}; the model has {self._positions} positions, {len(ids)} of them for the "
                "prompt"
            ) from None
        machine.events.logprobs = logprobs = options.get("logprobs", False)
        parallel = options.get("parallel", True)
        return Submission(schema, machine, limits, join, sampling, parallel, logprobs)

    @contextmanager
    def _closing(self, begun: Begun = _nobody) -> Iterator[Callable[[int], int]]:
        """Gives what takes the numbers of requests, and tells `begun`; those that are still open
        behind the block are aborted and forgotten."""
        numbers: list[int] = []

        def add(number: int) -> int:
            numbers.append(number)
            begun(number)
            return number

        try:
            yield add
        finally:
            for number in numbers:
                self.abort(number)
                self._forget(number)

    def _within_positions(self, limits: Limits, prompt: int) -> Limits:
        room = self._positions - prompt
        if room < 1:
            raise LimitError(
                f"the prompt has {prompt} tokens, the model only {self._positions} positions"
            )
        return limits if limits.max_tokens <= room else replace(limits, max_tokens=room)

    def _check_outputs(self, schema: Schema) -> None:
        """Tags of which the model knows no output cannot be generated."""
        for tag, token in self.vocabulary.tag_tokens(schema.tags).items():
            if token >= self._outputs:
                raise UnsupportedModelError(
                    f"the tag {tag} is token {token} of the tokenizer, but the model has only "
                    f"{self._outputs} outputs; call model.resize_token_embeddings(len(tokenizer))"
                )


def _one_each(sampling: Sampling | Sequence[Sampling], prompts: int) -> list[Sampling]:
    if isinstance(sampling, Sampling) or not isinstance(sampling, Iterable):
        check_sampling(sampling)
        return [sampling] * prompts
    each = list(sampling)
    for one in each:
        check_sampling(one)
    if len(each) != prompts:
        raise ValueError(f"there are {prompts} prompts, but {len(each)} Samplings")
    return each


def succeeded(result: Result) -> Result:
    """The result, unless it failed. Raises GenerationError."""
    if result.finish is EndReason.FAILED:
        raise GenerationError(result)
    return result


def own_sampling(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for `Sampling` from a model's `generation_config.json`: greedy unless it samples."""
    if not generation_config.get("do_sample"):
        return {"temperature": 0.0}
    names = ("temperature", "top_p", "top_k", "min_p")
    return {n: generation_config[n] for n in names if generation_config.get(n) is not None}
