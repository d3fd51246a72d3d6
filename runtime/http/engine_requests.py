"""What `SGLangEngine` asks of a server, answered by an engine of this process.

So whatever names a server, `--engine URL` and programs, works with a server of either engine. The
forms are those of `nprdsl.runtime.sglang.protocol`; prompts are token ids, which the client has
read, and every request has a schema. Plain completions, whose sampling is SGLang's, are refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.completion_format import DONE
from nprdsl.runtime.http.followed import Followed, submitted
from nprdsl.runtime.http.packed_grammar import unpacked_schema
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, as_refusal, refusing
from nprdsl.runtime.http.replies import (
    JsonReply,
    Reply,
    StreamReply,
    error_reply,
    server_sent_event,
)
from nprdsl.runtime.http.request_models import Listed
from nprdsl.runtime.http.schema_intake import SchemaIntake
from nprdsl.runtime.results import Result
from nprdsl.runtime.sglang.protocol import (
    KEY,
    ForkRequest,
    ServerInfo,
    TraceReport,
    fork_request,
    tokenizer_files,
)
from nprdsl.structure.events import Event

if TYPE_CHECKING:
    from nprdsl.runtime.local.engine import LocalEngine
    from nprdsl.runtime.options import Options

_PLAIN: Final = (
    "this server runs the local engine, whose `/generate` takes traces of schemas alone; text "
    "without one comes from /v1/completions"
)


class GenerateRequest(BaseModel):
    """A request for one trace; of `sampling_params` only the `custom_params` are read."""

    model_config = ConfigDict(extra="forbid")

    rid: str
    input_ids: Listed[int]
    sampling_params: dict[str, Any]
    stream: bool = False


class AbortRequest(BaseModel):
    """Names one request; `abort_all`, which SGLang has, would end those of others."""

    model_config = ConfigDict(extra="forbid")

    rid: str


class EngineRequests:
    """The endpoints over one engine, which is served as `model`. A name belongs to the client that
    gave it: no other can stop its request, and each may give the same one."""

    def __init__(self, engine: LocalEngine, model: str, intake: SchemaIntake) -> None:
        self._engine = engine
        self._model = model
        self._intake = intake
        self._running: dict[tuple[str, str], int | None] = {}  # numbers by (client, `rid`), None
        # while the schema is read

    def info(self) -> dict[str, Any]:
        """What a client has to know of the server, as SGLang says it."""
        engine, bounds = self._engine, self._engine.bounds
        told = ServerInfo(
            nprdsl=version("nprdsl"),
            model=self._model,
            positions=bounds.positions,
            capacity=bounds.capacity,
            outputs=bounds.outputs,
            sampling=engine.sampling_defaults,
        )
        return {
            "max_req_input_len": bounds.positions + 1,
            "max_total_num_tokens": bounds.capacity,
            KEY: told.model_dump(mode="json"),
        }

    def tokenizer(self) -> JsonReply:
        """The tokenizer's files, by name."""
        if self._engine.tokenizer is None:
            return error_reply("this server's engine has no tokenizer", HTTPStatus.NOT_FOUND)
        return JsonReply(dict(tokenizer_files(self._engine.tokenizer)))

    def abort(self, body: dict[str, Any], source: str) -> JsonReply:
        """Stops the request of that name; what it has written is its answer."""
        try:
            name = _abort(body)
        except RefusedError as refusal:
            return error_reply(str(refusal), refusal.status)
        number = self._running.get((source, name))
        if number is not None:
            self._engine.abort(number)
        return JsonReply({})

    async def generate(self, body: dict[str, Any], source: str) -> Reply:
        """The answer to one request; `source` is the client."""
        refusals: list[RefusedError | PreparationError] = []
        with ErrorBoundary(lambda error: refusals.append(as_refusal(error, body))):
            asked, fork = _read(body)
            running = await self._begun(asked, fork, source)
        for refusal in refusals:
            return error_reply(str(refusal), refusal.status)
        reports = _reports(running)
        if asked.stream:
            return StreamReply(_chunks(reports), running.aclose)
        async with aclosing(reports):
            return JsonReply({"meta_info": {KEY: [report.wire() async for report in reports]}})

    async def _begun(
        self, asked: GenerateRequest, fork: ForkRequest, source: str
    ) -> Followed[Event | Result]:
        """The request, which has its name until it is over. Raises RefusedError for a name that is
        taken."""
        name = (source, asked.rid)
        if name in self._running:
            raise RefusedError(
                f"`rid` `{asked.rid}` names a request that is running: give each one its own"
            )
        with ExitStack() as naming:
            self._running[name] = None
            naming.callback(self._running.pop, name)
            packed = await self._intake.packed(fork.language, source)
            numbers = await submitted(
                lambda: self._submit(asked, fork, packed), self._engine.discard
            )
            (self._running[name],) = numbers
            running = Followed(numbers, self._engine.afollow, self._engine.abort)
            running.when_over(naming.pop_all().close)
        return running

    @refusing()
    def _submit(self, asked: GenerateRequest, fork: ForkRequest, packed: str) -> list[int]:
        options: Options = {
            "limits": fork.limits.limits(),
            "join": fork.join(),
            "parallel": fork.parallel,
            "native": fork.native,
            "logprobs": fork.logprobs,
        }
        begin = self._engine.watch if fork.events else self._engine.submit
        schema, sampling = unpacked_schema(packed), fork.settings()
        return [begin(schema, asked.input_ids, sampling=sampling, **options)]


@refusing()
def _read(body: dict[str, Any]) -> tuple[GenerateRequest, ForkRequest]:
    params = body.get("sampling_params")
    fork = fork_request(params.get("custom_params")) if isinstance(params, dict) else None
    if fork is None:
        raise RefusedError(_PLAIN)
    return GenerateRequest.model_validate(body), fork


@refusing()
def _abort(body: dict[str, Any]) -> str:
    return AbortRequest.model_validate(body).rid


async def _reports(running: Followed[Event | Result]) -> AsyncGenerator[TraceReport]:
    async with aclosing(running):
        async for _, item in running:
            if isinstance(item, Result):
                yield _final(item)
            else:
                yield TraceReport(events=[item.to_dict()])


def _final(result: Result) -> TraceReport:
    return TraceReport(
        final=True,
        finish=result.finish,
        error=result.error,
        ids=list(result.token_ids),
        logprobs=list(result.logprobs),
        sampled=[value is not None for value in result.logprobs],
        forwards=result.usage.forwards,
    )


async def _chunks(reports: AsyncGenerator[TraceReport]) -> AsyncGenerator[bytes]:
    async with aclosing(reports):
        async for report in reports:
            yield server_sent_event({"meta_info": {KEY: [report.wire()]}})
    yield DONE
