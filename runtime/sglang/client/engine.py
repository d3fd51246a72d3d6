"""`SGLangEngine`: the interface of every engine, for a model that an SGLang server runs.

On a server with the plugin a request is one HTTP call, and forks and joins happen there (`Call`).
On a stock server, schemas whose joins are all `reread` run too: this process forks, and sends plain
requests for each branch (`RereadingCall`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from nprdsl.machine.budget import LimitError
from nprdsl.runtime.api_key import REFUSED
from nprdsl.runtime.api_key import api_key as own_key
from nprdsl.runtime.engine import Engine, Submission
from nprdsl.runtime.errors import CapacityError, EngineUnavailableError, UnsupportedServerError
from nprdsl.runtime.kv_reservation import most_fed
from nprdsl.runtime.prompts import Ids, PromptEncoder
from nprdsl.runtime.results import Completion, Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client.call import Call
from nprdsl.runtime.sglang.client.remote_server import RemoteServer
from nprdsl.runtime.sglang.client.rereading import RereadingCall, check_needs_no_plugin
from nprdsl.runtime.sglang.client.stock_requests import completions
from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from nprdsl.runtime.sglang.client.weights import Weights
from nprdsl.runtime.sglang.protocol import Route
from nprdsl.structure.events import Event
from nprdsl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_CALLS: Final = 256  # requests at once; more wait here
_MOST_ABORTS: Final = 16  # sent at once


class SGLangEngine(Engine):
    """The model of the server at `url`, such as `nprdsl serve` starts.

    `tokenizer` is the model's fast tokenizer, by default the server's own; `api_key` what a server
    with `--api-key` asks for, by default NPRDSL_API_KEY of the environment. If `url` is that of a
    router, `worker` is the address of one server behind it. `fork_here` lets requests fork in this
    process even if the server has the plugin. Raises EngineUnavailableError if no server answers,
    or it does not take the key.
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
        key = own_key(api_key)
        self._transport = Transport(url, key)
        one_server = Transport(worker, key) if worker else self._transport
        try:
            server = RemoteServer(one_server)
            server.check()
            self.tokenizer = server.tokenizer() if tokenizer is None else tokenizer
            vocabulary = Vocabulary.from_tokenizer(self.tokenizer)
            self.info = server.info(vocabulary.size)
            self._longest_prompt = server.longest_prompt
        except ServerError as error:
            if error.status == REFUSED:
                raise EngineUnavailableError(str(error)) from error
            raise EngineUnavailableError(
                f"what answers at {one_server.url} is no SGLang server ({error})"
            ) from error
        self.forks_here = fork_here or server.plugin is None
        self._route = Route.ROUTER if worker else Route.DIRECT
        self.weights = Weights(self._transport, self.info.dtype)
        super().__init__(PromptEncoder(self.tokenizer, vocabulary), vocabulary)
        self._numbers = count(1)
        self._pool = ThreadPoolExecutor(MOST_CALLS, thread_name_prefix="nprdsl-call")
        self._aborts = ThreadPoolExecutor(_MOST_ABORTS, thread_name_prefix="nprdsl-abort")
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
        """Aborts open requests and ends the threads of this client; the server runs on."""
        for number in list(self._open):
            self.abort(number)
        self._pool.shutdown()
        self._aborts.shutdown()
        self._branches.shutdown()

    # -- running -----------------------------------------------------------------------------------

    def _begin(self, submission: Submission, *, events: bool) -> int:
        self._check_capacity(submission)
        number = next(self._numbers)
        if self.forks_here:
            check_needs_no_plugin(submission)
            call: Call = RereadingCall(
                number, submission, self._transport, self._branches, events=events
            )
        else:
            call = Call(number, submission, self._transport, events=events, route=self._route)
        with self._lock:
            self._open[number] = call
        call.start(self._pool, self._aborts)
        return number

    def _events(self, number: int) -> Iterator[Event]:
        call: Call = self._open[number]
        return call.events()

    def wait(self, number: int) -> Result:
        call: Call = self._awaited(number)
        result = call.result()
        self._forget(number)
        return result

    def abort(self, number: int) -> None:
        call: Call | None = self._open.get(number)
        if call is not None:
            call.abort()

    def _complete(
        self, prompts: Sequence[Ids], budgets: Sequence[int], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        """Prompt and completion together must be short enough for a prompt: the server may have to
        read them again for the log-probabilities."""
        most = [self._longest_prompt - len(prompt) for prompt in prompts]
        for prompt, tokens in zip(prompts, most, strict=True):
            if tokens < 1:
                raise LimitError(
                    f"the prompt has {len(prompt)} tokens, but the server completes prompts of "
                    f"{self._longest_prompt - 1} at most"
                )
        lowered = [min(pair) for pair in zip(budgets, most, strict=True)]
        try:
            return completions(self._transport, self.vocabulary, prompts, lowered, sampling)
        except ServerError as error:
            if error.status >= 500:
                raise
            raise UnsupportedServerError(f"{self._transport.url}: {error}") from error

    def _check_capacity(self, submission: Submission) -> None:
        """Raises CapacityError for a request that the server's KV cache can never hold."""
        prompt = len(submission.machine.prompt)
        slots = most_fed(submission.schema.grammar, submission.limits, prompt)
        if slots > self.info.capacity:
            raise CapacityError(
                f"the request may feed {slots:,} tokens (prompt, budget, reread copies), but the "
                f"server keeps {self.info.capacity:,} at most: lower Limits.max_tokens, or raise "
                "--max-total-tokens or --mem-fraction-static there"
            )
