"""`SGLangEngine`: the engine of a server, with the interface of the local one.

On a server with the plugin a request is one call, and forks and joins happen there. On one without
it, schemas whose joins read branches again run by calls of this process (see `rereading`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from nprdsl.machine.budget import LimitError
from nprdsl.runtime.engine import Engine, Submission
from nprdsl.runtime.errors import CapacityError, EngineUnavailableError
from nprdsl.runtime.kv_reservation import most_fed
from nprdsl.runtime.prompts import Ids, PromptEncoder
from nprdsl.runtime.results import Completion, Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client.call import Call
from nprdsl.runtime.sglang.client.forks_here import RereadingCall, check_server
from nprdsl.runtime.sglang.client.plain_text import completions
from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from nprdsl.runtime.sglang.client.weights import Weights
from nprdsl.runtime.sglang.protocol import Route
from nprdsl.runtime.sglang.server_info import ServerSelf
from nprdsl.structure.events import Event
from nprdsl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_CALLS: Final = 256  # requests at once; more wait here


class SGLangEngine(Engine):
    """The model of the server at `url`, such as `nprdsl serve` starts.

    `tokenizer` is the model's fast tokenizer, by default the server's own. `worker` is the address
    of one server where `url` is that of a router. `fork_here` lets requests fork in this process,
    as on a server without the plugin. Raises EngineUnavailableError where none answers.
    """

    def __init__(
        self,
        url: str,
        *,
        tokenizer: PreTrainedTokenizerFast | None = None,
        api_key: str | None = None,
        worker: str | None = None,
        fork_here: bool = False,
    ) -> None:
        self._transport = Transport(url, api_key)
        asked = Transport(worker, api_key) if worker else self._transport
        try:
            itself = ServerSelf(asked)
            itself.check()
            self.tokenizer = itself.tokenizer() if tokenizer is None else tokenizer
            vocabulary = Vocabulary.from_tokenizer(self.tokenizer)
            self.info = itself.info(vocabulary.size)
            self._longest = itself.longest
        except ServerError as error:
            raise EngineUnavailableError(
                f"what answers at {asked.url} is no SGLang server ({error})"
            ) from error
        self.forks_here = fork_here or itself.plugin is None
        self._route = Route.ROUTER if worker else Route.STRAIGHT
        self.weights = Weights(self._transport)
        super().__init__(PromptEncoder(self.tokenizer, vocabulary), vocabulary)
        self._numbers = count(1)
        self._open: dict[int, Call] = {}
        self._pool = ThreadPoolExecutor(MOST_CALLS, thread_name_prefix="nprdsl-call")
        self._branches = ThreadPoolExecutor(MOST_CALLS, thread_name_prefix="nprdsl-branch")

    @property
    def sampling_defaults(self) -> dict[str, Any]:
        return dict(self.info.sampling)

    @property
    def _positions(self) -> int:
        return self.info.positions

    @property
    def _outputs(self) -> int:
        return self.info.outputs

    def close(self) -> None:
        """Aborts what is open and ends the threads; the server goes on."""
        for number in list(self._open):
            self.abort(number)
        self._pool.shutdown()
        self._branches.shutdown()

    # -- running -----------------------------------------------------------------------------------

    def _begin(self, submission: Submission, *, events: bool) -> int:
        self._check_room(submission)
        number = next(self._numbers)
        if self.forks_here:
            check_server(submission)
            call: Call = RereadingCall(
                number, submission, self._transport, self._branches, events=events
            )
        else:
            call = Call(number, submission, self._transport, events=events, route=self._route)
        with self._lock:
            self._open[number] = call
        call.begin(self._pool)
        return number

    def _events(self, number: int) -> Iterator[Event]:
        return self._open[number].events()

    def wait(self, number: int) -> Result:
        with self._lock:
            if number not in self._open:
                raise KeyError(f"there is no open request {number}: results are given once")
            call = self._open[number]
        result = call.result()
        self._forget(number)
        return result

    def abort(self, number: int) -> None:
        with self._lock:
            call = self._open.get(number)
        if call is not None:
            call.abort()

    def _complete(
        self, prompts: Sequence[Ids], budgets: Sequence[int], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        """What is written must fit into a prompt, to be read again (see `plaintext`)."""
        rooms = [self._longest - len(prompt) for prompt in prompts]
        for prompt, room in zip(prompts, rooms, strict=True):
            if room < 1:
                raise LimitError(
                    f"the prompt has {len(prompt)} tokens, but the server completes prompts of "
                    f"{self._longest - 1} at most"
                )
        least = [min(pair) for pair in zip(budgets, rooms, strict=True)]
        return completions(self._transport, self.vocabulary, prompts, least, sampling)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._open.pop(number, None)

    def _check_room(self, submission: Submission) -> None:
        """Raises CapacityError for what can never fit."""
        prompt = len(submission.machine.prompt)
        slots = most_fed(submission.schema.grammar, submission.limits, prompt)
        if slots > self.info.capacity:
            raise CapacityError(
                f"the request may feed {slots:,} tokens (prompt, budget, reread copies), but the "
                f"server keeps {self.info.capacity:,} at most: lower Limits.max_tokens, or raise "
                "--max-total-tokens or --mem-fraction-static there"
            )
