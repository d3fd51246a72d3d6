"""One trace as events of AG-UI 1.0, the protocol of agents and their user interfaces.

The answer is a text message. Every branch is a subagent, named after its rule and described by its
label; what a branch writes between forks and joins is a reasoning message of its own, with the
branch as `subagentRunId` (none for the trunk). Source: docs.ag-ui.com.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nprdsl.machine.actions import ROOT
from nprdsl.runtime.http.trace_writing import FailureCode, WireEvent
from nprdsl.runtime.results import Result
from nprdsl.structure.events import BranchEndEvent, Event, ForkEvent, TokenEvent

VERSION: Final = "1.0"


class AgUiWriter:
    """A `ProtocolWriter`; `thread` and `run` are the client's names for conversation and trace."""

    def __init__(self, model: str, thread: str, run: str) -> None:
        self._model = model
        self._names = {"threadId": thread, "runId": run}
        self._thoughts: dict[int, str] = {}  # the open reasoning message of a branch
        self._agents: dict[int, str] = {}  # the branches that run, but for the trunk
        self._answer = ""  # the open text message
        self._told = 0  # characters of the answer

    def begin(self) -> Iterator[WireEvent]:
        yield _event("RUN_STARTED", **self._names, protocolVersion=VERSION)

    def add(self, event: Event) -> Iterator[WireEvent]:
        match event:
            case TokenEvent():
                if event.text:
                    yield from self._think(event.branch, event.text)
                yield from self._say(event.answer)
            case ForkEvent():
                yield from self._pause(event.parent)
                for child, label in zip(event.children, event.labels, strict=True):
                    yield from self._start(child, event, label)
            case BranchEndEvent():
                yield from self._finish(event.branch)
            case _:
                pass

    def end(self, result: Result, trace: Mapping[str, Any]) -> Iterator[WireEvent]:
        yield from self._pause(ROOT)
        for branch in reversed(list(self._agents)):  # of a trace that was stopped
            yield from self._finish(branch)
        yield from self._say(result.answer[self._told :])
        if self._answer:
            yield _event("TEXT_MESSAGE_END", messageId=self._answer)
        tokens = {"inputTokens": result.usage.prompt_tokens, "outputTokens": result.usage.total}
        usage = {"model": self._model, **tokens, "totalTokens": sum(tokens.values())}
        yield _event("RUN_FINISHED", **self._names, result=dict(trace), usage=[usage])

    def fail(self, message: str, code: FailureCode) -> WireEvent:
        return _event("RUN_ERROR", message=message, code=code)

    def _say(self, text: str) -> Iterator[WireEvent]:
        if not text:
            return
        if not self._answer:
            self._answer = _new_id()
            yield _event("TEXT_MESSAGE_START", messageId=self._answer, role="assistant")
        self._told += len(text)
        yield _event("TEXT_MESSAGE_CONTENT", messageId=self._answer, delta=text)

    def _think(self, branch: int, text: str) -> Iterator[WireEvent]:
        if branch not in self._thoughts:
            self._thoughts[branch] = _new_id()
            yield self._thought("REASONING_START", branch)
            yield self._thought("REASONING_MESSAGE_START", branch, role="reasoning")
        yield self._thought("REASONING_MESSAGE_CONTENT", branch, delta=text)

    def _pause(self, branch: int) -> Iterator[WireEvent]:
        """The branch writes nothing for now."""
        if branch in self._thoughts:
            yield self._thought("REASONING_MESSAGE_END", branch)
            yield self._thought("REASONING_END", branch)
            del self._thoughts[branch]

    def _start(self, child: int, fork: ForkEvent, label: str) -> Iterator[WireEvent]:
        self._agents[child] = agent = _new_id()
        parent = self._agents.get(fork.parent)
        above = {} if parent is None else {"parentSubagentRunId": parent}
        about = {"name": fork.rule, "description": label, **above}
        yield _event("SUBAGENT_STARTED", subagentRunId=agent, **about)

    def _finish(self, branch: int) -> Iterator[WireEvent]:
        yield from self._pause(branch)
        yield _event("SUBAGENT_FINISHED", subagentRunId=self._agents.pop(branch))

    def _thought(self, kind: str, branch: int, **more: Any) -> WireEvent:
        agent = self._agents.get(branch)
        whose = {} if agent is None else {"subagentRunId": agent}
        return _event(kind, messageId=self._thoughts[branch], **whose, **more)


def _new_id() -> str:
    return uuid.uuid4().hex


def _event(kind: str, **fields: Any) -> WireEvent:
    return {"type": kind, **fields}
