"""What travels between a client and the scheduler, and nothing else.

In: a stock request whose sampling parameters carry `custom_params = {"nprdsl": ForkRequest}`; where
a router stands between, `session_params` of the request carries the same (see `Route`). The
schema travels as its text, the texts of the files that it imports, and the regex of every typed
terminal; so it is read, checked and compiled by the same code on both sides, and values are
converted by the client, which has the Python types. `bind` caches by `SchemaForm.key`.

Out: `meta_info["nprdsl"]`, a list with an entry for each of `output_ids`: a `Report` where a chunk
begins, else None (`reports` gives those that there are). `output_ids` are the trace's ids in linear
order, as far as the trace is settled: a token is sent when all that stands before it is written.
Live branches are seen in the reports' events. The last report has `final`; that of a request that
ended before it had a token is the one entry of `meta_info["nprdsl_alone"]`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.terminal_types import FreeText, TerminalType, typed
from nprdsl.machine.actions import ALL, JoinPolicy
from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.runtime.sampling import DEFAULT, SETTINGS, Sampling
from nprdsl.schema import Schema, SchemaNotFoundError, shipped
from nprdsl.structure.events import (
    BranchEndEvent,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)

KEY: Final = "nprdsl"  # in custom_params and in meta_info
KEY_ALONE: Final = "nprdsl_alone"  # in meta_info: a report without a token

_MAX_SOURCE = 1_000_000  # characters of a schema
_Text = Annotated[str, Field(max_length=_MAX_SOURCE)]


class Route(StrEnum):
    """How requests reach the server."""

    STRAIGHT = "straight"
    ROUTER = "router"  # SGLang's passes on what it knows; of what is free in form, session_params


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TerminalForm(_Form):
    """The type of a declared terminal; `pattern` None is free text."""

    pattern: _Text | None
    description: str = ""

    def type(self, name: str) -> TerminalType:
        """Raises TerminalTypeError where the pattern is no regex."""
        if self.pattern is None:
            return typed(name, FreeText)
        made = typed(name, self.pattern)
        return TerminalType(made.pattern, made.convert, self.description or made.description)


class SchemaForm(_Form):
    """A schema. `source` "" means the shipped schema of that name."""

    name: str
    source: _Text = ""
    imports: dict[str, _Text] = {}
    terminals: dict[str, TerminalForm] = {}

    @field_validator("name")
    @classmethod
    def _is_a_stem(cls, name: str) -> str:
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(f"the name of a schema is {name!r}, it must be a plain file name")
        return name

    @field_validator("imports")
    @classmethod
    def _stay_inside(cls, imports: dict[str, str]) -> dict[str, str]:
        for place in imports:
            path = PurePosixPath(place)
            if path.is_absolute() or ".." in path.parts or path.suffix != ".lark":
                raise ValueError(f"the import {place!r} must be a .lark file beside the schema")
        return imports

    @classmethod
    def of(cls, schema: Schema) -> SchemaForm:
        grammar = schema.grammar
        types = {
            name: TerminalForm(
                pattern=None if given.free_text else given.pattern, description=given.description
            )
            for name, given in grammar.types.items()
        }
        named = grammar.name in shipped() and grammar.source == _shipped(grammar.name)
        return cls(
            name=grammar.name,
            source="" if named else grammar.source,
            imports=dict(grammar.imports),
            terminals=types,
        )

    @property
    def key(self) -> str:
        """Equal for equal schemas."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def read(self) -> Schema:
        """The schema. Raises SchemaError, TerminalTypeError or SchemaNotFoundError."""
        types = {name: form.type(name) for name, form in self.terminals.items()}
        source = self.source or _shipped(self.name)
        with TemporaryDirectory() as folder:
            for place, text in self.imports.items():
                path = Path(folder, place)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            file = str(Path(folder, f"{self.name}.lark"))
            return Schema(read_grammar(source, file=file, name=self.name, types=types))


def _shipped(name: str) -> str:
    """The text of the shipped schema of that name, and of no other file."""
    if name not in shipped():
        hint = did_you_mean(name, shipped()) or f"shipped: {', '.join(shipped())}"
        raise SchemaNotFoundError(f"no schema is named `{name}`; {hint}")
    folder = importlib.resources.files("nprdsl.grammars")
    return (folder / f"{name}.lark").read_text(encoding="utf-8")


class LimitsForm(_Form):
    """`nprdsl.machine.budget.Limits`, field by field."""

    max_tokens: int = DEFAULT_LIMITS.max_tokens
    branch_tokens: int | None = None
    rule_tokens: dict[str, int] = {}
    depth: int | None = None
    branches: int | None = None
    blocks: int | None = None
    spawn: int | None = None

    @classmethod
    def of(cls, limits: Limits) -> LimitsForm:
        values = {f.name: getattr(limits, f.name) for f in dataclasses.fields(limits)}
        return cls(**values | {"rule_tokens": dict(limits.rule_tokens)})

    def limits(self) -> Limits:
        """Raises LimitError."""
        return Limits(**self.model_dump())


class ForkRequest(_Form):
    """One request for a trace: the value of `custom_params["nprdsl"]`.

    `sampling` holds the settings of `nprdsl.runtime.Sampling` that differ from its defaults; the
    stock sampling parameters of the request are not used. `quorum`: the complete branches that a
    join waits for. `parallel` False decodes one branch after another. `events` asks for events,
    `positions` for the positions at which tokens were fed (it costs a copy from the device).
    """

    language: SchemaForm
    limits: LimitsForm = LimitsForm()
    quorum: int | None = None
    sampling: dict[str, Any] = {}
    parallel: bool = True
    events: bool = False
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
        events: bool = False,
    ) -> ForkRequest:
        return cls(
            language=SchemaForm.of(schema),
            limits=LimitsForm.of(limits),
            quorum=join.quorum,
            sampling=_differing(sampling),
            parallel=parallel,
            events=events,
        )

    def wire(self) -> dict[str, Any]:
        """The `custom_params` of a stock request."""
        return {KEY: self.model_dump(mode="json", exclude_defaults=True)}

    def sampling_params(self) -> dict[str, Any]:
        """The stock sampling parameters of such a request; none but these has a meaning. Limits
        are lowered to what the server has room for, so SGLang is told of one token only."""
        return {
            "max_new_tokens": 1,
            "temperature": 0,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "custom_params": self.wire(),
        }

    def fields(self, route: Route = Route.STRAIGHT) -> dict[str, Any]:
        """What a stock request for `/generate` has besides its prompt."""
        sampling = self.sampling_params()
        if route is Route.STRAIGHT:
            return {"sampling_params": sampling}
        return {"session_params": sampling.pop("custom_params"), "sampling_params": sampling}

    def settings(self) -> Sampling:
        """Raises ValueError that names the setting."""
        return Sampling.from_dict(self.sampling)

    def join(self) -> JoinPolicy:
        """Raises LimitError."""
        return JoinPolicy(self.quorum)


def _differing(sampling: Sampling) -> dict[str, Any]:
    values = {name: getattr(sampling, name) for name in SETTINGS}
    values["rules"] = {rule: dict(over) for rule, over in sampling.rules.items()}
    return {name: value for name, value in values.items() if value != getattr(DEFAULT, name)}


def fork_request(custom_params: Mapping[str, Any] | None) -> ForkRequest | None:
    """The request in a stock request's `custom_params`; None for a plain one.

    Raises pydantic.ValidationError, a ValueError, where it has not the form.
    """
    if not custom_params or KEY not in custom_params:
        return None
    return ForkRequest.model_validate(custom_params[KEY])


class Report(_Form):
    """What happened since the last report, and with `final` all that is known of the request.

    `ids`, `logprobs` and `sampled` stand for the whole trace in linear order, the prompt apart:
    log-probabilities of the model's own distribution, None where the token was forced. `forwards`
    counts the model's calls that the request took part in, `positions` are those of `ids` as they
    were fed, None for a token that was not (the last one). `error` says what failed.
    """

    events: list[dict[str, Any]] = []
    final: bool = False
    finish: EndReason | None = None
    error: str = ""
    ids: list[int] = []
    logprobs: list[float | None] = []
    sampled: list[bool] = []
    positions: list[int | None] = []
    forwards: int = 0

    def seen(self) -> list[Event]:
        return [read_event(event) for event in self.events]

    def wire(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


def reports(meta_info: Mapping[str, Any]) -> list[Report]:
    """All reports in a stock response's `meta_info`, oldest first."""
    told = [*(meta_info.get(KEY) or ()), *(meta_info.get(KEY_ALONE) or ())]
    return [Report.model_validate(entry) for entry in told if entry]


def event_form(event: Event) -> dict[str, Any]:
    """An event as plain values, with its `kind`."""
    return {"kind": _KINDS[type(event)], **dataclasses.asdict(event)}


def read_event(form: Mapping[str, Any]) -> Event:
    """The event of such values. Raises ValueError for an unknown kind."""
    fields = dict(form)
    kind = fields.pop("kind", None)
    if kind not in _READERS:
        raise ValueError(f"no event is of the kind {kind!r}; kinds: {', '.join(_READERS)}")
    event: Event = _READERS[kind].validate_python(fields)
    return event


_KINDS: Final[dict[type[Any], str]] = {
    TokenEvent: "token",
    ForkEvent: "fork",
    BranchEndEvent: "branch_end",
    JoinEvent: "join",
    EndEvent: "end",
}
_READERS: Final[dict[str, TypeAdapter[Any]]] = {n: TypeAdapter(k) for k, n in _KINDS.items()}
