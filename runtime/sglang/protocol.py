"""The wire format between a client and a server that runs the plugin.

Request: a stock SGLang request whose sampling parameters carry `custom_params = {"nprdsl": ...}`,
the JSON of a `ForkRequest`. SGLang's router drops fields that it does not know, but passes on
`session_params`, so behind a router the same dictionary travels there (see `Route`). Schemas and
limits travel in the forms of `nprdsl.runtime.http.wire_forms`.

Response: the stock one. `output_ids` are the trace's tokens in linear order; a token is sent once
everything before it in that order is known, so the tokens of later branches come after those of
earlier ones. `meta_info["nprdsl"]` has one entry for each output token: a `TraceReport` at the
first token of a chunk, None at the others. The report's events show the branches as they run. The
last report has `final`; if a request ends before its first token, that report is in
`meta_info["nprdsl_alone"]` instead.

A server describes itself by a `ServerInfo` under "nprdsl" in SGLang's own `/server_info`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeGuard

from pydantic import BaseModel, ConfigDict, TypeAdapter

from nprdsl.machine.actions import ALL, JoinPolicy
from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.machine.transcript import Alternatives, WrittenToken
from nprdsl.runtime.http.wire_forms import LimitsForm, SchemaForm
from nprdsl.runtime.sampling import DEFAULT, SETTINGS, Sampling
from nprdsl.schema import Schema
from nprdsl.structure.events import (
    BranchEndEvent,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)

KEY: Final = "nprdsl"  # in custom_params, session_params, meta_info and /server_info
KEY_GRAMMAR: Final = "nprdsl_grammar"  # in custom_params, inside a server: the schema, packed
KEY_ALONE: Final = "nprdsl_alone"  # in meta_info: a report of a request without any token
TOKENIZER_PATH: Final = "/nprdsl/tokenizer"  # GET: the tokenizer's files, as {name: text}

KEPT: Final = "the weights are as they were"  # ends the refusal of weights that changed nothing
MORE: Final = "the weights are mixed until all have come"  # of tensors that were taken meanwhile
MIXED: Final = "mixed"  # the version of weights of which a load failed in the middle

BRANCH_MARK: Final = "#branch-"  # in the name of a row: the request's, mark, branch number
SAMPLE_MARK: Final = "#sample-"  # in a name: mark and the number of one of n samples, from 1 on
MARKS: Final = (BRANCH_MARK, SAMPLE_MARK)


class Route(StrEnum):
    """How a request reaches the server, and so where its `ForkRequest` is put."""

    DIRECT = "direct"  # in custom_params
    ROUTER = "router"  # in session_params, which SGLang's router passes on


class _WireModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# -- requests --------------------------------------------------------------------------------------


class ForkRequest(_WireModel):
    """A request for one trace: the value of `custom_params["nprdsl"]`.

    `sampling` holds the settings of `nprdsl.runtime.Sampling` that differ from its defaults; the
    stock sampling parameters beside it are ignored. A join waits for `quorum` complete branches
    (None: for all). With `parallel` false branches are decoded one after another; `native` masks
    nothing, and forks where the model itself writes the tags of a fork. `events` asks for events in
    the reports, `logprobs` for log-probabilities in these; `positions` for the position ids that
    tokens were fed with, which costs a copy from the device in every step.
    """

    language: SchemaForm
    limits: LimitsForm = LimitsForm()
    quorum: int | None = None
    sampling: dict[str, Any] = {}
    parallel: bool = True
    native: bool = False
    events: bool = False
    logprobs: bool = False
    positions: bool = False

    @classmethod
    def of(
        cls,
        schema: Schema,
        *,
        limits: Limits = DEFAULT_LIMITS,
        join: JoinPolicy = ALL,
        sampling: Sampling = DEFAULT,
        parallel: bool = True,
        native: bool = False,
        events: bool = False,
        logprobs: bool = False,
    ) -> ForkRequest:
        return cls(
            language=SchemaForm.of(schema),
            limits=LimitsForm.of(limits),
            quorum=join.quorum,
            sampling=_non_default(sampling),
            parallel=parallel,
            native=native,
            events=events,
            logprobs=logprobs,
        )

    def sampling_params(self) -> dict[str, Any]:
        """The stock sampling parameters of the request. SGLang itself is asked for one token: the
        plugin lowers the limits to what the server can hold and decides when the trace ends."""
        return {
            "max_new_tokens": 1,
            "temperature": 0,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "custom_params": {KEY: self.model_dump(mode="json", exclude_defaults=True)},
        }

    def fields(self, route: Route = Route.DIRECT) -> dict[str, Any]:
        """The fields of a stock request for `/generate` besides its prompt."""
        sampling = self.sampling_params()
        if route is Route.DIRECT:
            return {"sampling_params": sampling}
        return {"session_params": sampling.pop("custom_params"), "sampling_params": sampling}

    def settings(self) -> Sampling:
        """Raises ValueError that names the setting."""
        return Sampling.from_dict(self.sampling)

    def join(self) -> JoinPolicy:
        """Raises LimitError."""
        return JoinPolicy(self.quorum)


def _non_default(sampling: Sampling) -> dict[str, Any]:
    rules = {rule: dict(over) for rule, over in sampling.rules.items()}
    values: dict[str, Any] = {"rules": rules} if rules else {}
    if sampling.avoid:
        values["avoid"] = list(sampling.avoid)
    given = {name: getattr(sampling, name) for name in SETTINGS if name not in ("rules", "avoid")}
    return values | {n: value for n, value in given.items() if value != getattr(DEFAULT, n)}


def wants_trace(custom_params: object) -> TypeGuard[dict[str, Any]]:
    """Whether the `custom_params` of a stock request, which may be anything, carry a
    `ForkRequest`."""
    return isinstance(custom_params, dict) and KEY in custom_params


def fork_request(custom_params: object) -> ForkRequest | None:
    """The `ForkRequest` in a stock request's `custom_params`; None for a plain request.

    Raises pydantic.ValidationError, a ValueError, if it is malformed.
    """
    if not wants_trace(custom_params):
        return None
    return ForkRequest.model_validate(custom_params[KEY])


# -- responses -------------------------------------------------------------------------------------


class TraceReport(_WireModel):
    """What happened since the last report; the one with `final` also has the whole trace.

    Of a final report, `ids`, `logprobs` and `sampled` cover the trace in linear order, without the
    prompt, and so do `alternatives` if they were kept; a log-probability is that of the model's own
    distribution, None for a forced token.
    `positions` (if the request asked for them) are the position ids of `ids`, None for a token that
    was never fed, such as the last one. `forwards` counts the forward passes in which the request
    took part. `error` says why it failed, "" if it did not.
    """

    events: list[dict[str, Any]] = []
    final: bool = False
    finish: EndReason | None = None
    error: str = ""
    ids: list[int] = []
    logprobs: list[float | None] = []
    sampled: list[bool] = []
    alternatives: tuple[Alternatives, ...] = ()
    positions: list[int | None] = []
    forwards: int = 0

    def read_events(self) -> list[Event]:
        return [event_from_dict(event) for event in self.events]

    def written(self) -> list[WrittenToken]:
        """The trace of a final report as the machine records tokens, in linear order."""
        return [
            WrittenToken(*token)
            for token in zip(
                self.ids,
                self.sampled,
                self.logprobs,
                self.alternatives or repeat((), len(self.ids)),
                strict=True,
            )
        ]

    def wire(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


def read_reports(meta_info: Mapping[str, Any]) -> list[TraceReport]:
    """All reports in a stock response's `meta_info`, oldest first."""
    entries = [*(meta_info.get(KEY) or ()), *(meta_info.get(KEY_ALONE) or ())]
    return [TraceReport.model_validate(entry) for entry in entries if entry]


def event_from_dict(values: Mapping[str, Any]) -> Event:
    """The event of the values of its `to_dict`. Raises ValueError for an unknown kind."""
    fields = dict(values)
    kind = fields.pop("kind", None)
    if kind not in _EVENT_READERS:
        kinds = ", ".join(_EVENT_READERS)
        raise ValueError(f"no event is of the kind {kind!r}; kinds: {kinds}")
    event: Event = _EVENT_READERS[kind].validate_python(fields)
    return event


_EVENT_READERS: Final[dict[str, TypeAdapter[Any]]] = {
    kind.kind.value: TypeAdapter(kind)
    for kind in (TokenEvent, ForkEvent, BranchEndEvent, JoinEvent, EndEvent)
}


# -- the server ------------------------------------------------------------------------------------


class ServerInfo(BaseModel):
    """What a server with the plugin says of itself.

    `nprdsl`: its version of this package. `model`: the name that it serves the model under.
    `positions`: the most tokens of one sequence, prompt included. `capacity`: the most tokens in
    its KV cache, of all requests together. `outputs`: the size of the model's output layer.
    `dtype`: what its weights are, a name of torch's. `sampling`: the model's own sampling settings.
    `refusal`: why it cannot run schemas, "" if it can.
    """

    nprdsl: str
    model: str
    positions: int
    capacity: int
    outputs: int
    dtype: str = "bfloat16"
    sampling: dict[str, Any] = {}
    refusal: str = ""


def tokenizer_files(tokenizer: Any) -> dict[str, str]:
    """The texts of the tokenizer's files, by name."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text("utf-8") for path in Path(folder).iterdir()}
