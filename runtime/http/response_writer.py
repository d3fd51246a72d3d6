"""One response of OpenAI's `/v1/responses` while it is written: its output items, and the events
that tell a client of them.

In go the events of a trace, or plain text; out come events in the form of the `openai` package.
Each stretch that one branch writes between forks and joins is a `reasoning` item of its own, so
that branches grow side by side; the answer is a `message` of its own, which begins once it is
certain what is part of it. All texts of the reasoning items, in the order of the trace, add up to
its text.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nprdsl.machine.actions import ROOT
from nprdsl.runtime.http.trace_writing import FailureCode, WireEvent
from nprdsl.runtime.results import Result
from nprdsl.structure.events import BranchEndEvent, EndReason, Event, ForkEvent, TokenEvent

_ANSWER: Final = -1  # the place of the answer among the branches


@dataclass(slots=True)
class _Item:
    """An item that is being written. `about`: what it says of its branch."""

    id: str
    index: int
    kind: str  # "reasoning" or "message"
    about: Mapping[str, Any]
    text: str = ""

    @property
    def part_kind(self) -> str:
        return "reasoning_text" if self.kind == "reasoning" else "output_text"

    def part(self) -> dict[str, Any]:
        part: dict[str, Any] = {"type": self.part_kind, "text": self.text}
        return part if self.kind == "reasoning" else part | {"annotations": [], "logprobs": []}

    def to_dict(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part()]
        item: dict[str, Any] = {
            "id": self.id,
            "type": self.kind,
            "status": status,
            "content": content,
        }
        more: dict[str, Any] = (
            {"summary": []} if self.kind == "reasoning" else {"role": "assistant"}
        )
        return {**item, **more, **self.about}


class ResponseWriter:
    """`settings` are the fields of the request that a response repeats."""

    def __init__(self, model: str, settings: Mapping[str, Any]) -> None:
        self._response: dict[str, Any] = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
            **settings,
        }
        self._count = 0  # of events
        self._items = 0
        self._open: dict[int, _Item] = {}  # by branch
        self._about: dict[int, dict[str, Any]] = {
            ROOT: _about(ROOT, (), "", ""),
            _ANSWER: {"phase": "final_answer"},
        }
        self._reasoning_tokens = 0
        self._told = 0  # characters of the answer

    @property
    def response(self) -> dict[str, Any]:
        """The response as it is now."""
        return {**self._response, "output": list(self._response["output"])}

    def begin(self) -> Iterator[WireEvent]:
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    # -- a trace -----------------------------------------------------------------------------------

    def add(self, event: Event) -> Iterator[WireEvent]:
        """Something happened in the trace."""
        match event:
            case TokenEvent():
                self._reasoning_tokens += 0 if event.answer else len(event.tokens)
                if event.text:
                    yield from self._write(event.branch, event.text)
                yield from self._tell_answer(event.answer)
            case ForkEvent():
                yield from self._close(event.parent)
                for at, (child, label) in enumerate(zip(event.children, event.labels, strict=True)):
                    path = (*event.path, event.block, at)
                    self._about[child] = _about(child, path, event.rule, label)
                    yield from self._add(child, "reasoning", self._about[child])
            case BranchEndEvent():
                yield from self._close(event.branch)
            case _:
                pass

    def end(self, result: Result, trace: Mapping[str, Any]) -> Iterator[WireEvent]:
        """The trace is over: its answer is told, and then the whole response."""
        for branch in [branch for branch in self._open if branch != _ANSWER]:
            yield from self._close(branch)
        yield from self._tell_answer(result.answer[self._told :])
        if _ANSWER not in self._open:  # it is empty
            yield from self._add(_ANSWER, "message", self._about[_ANSWER])
        yield from self._close(_ANSWER)
        graph = result.trace.graph if result.trace is not None else None
        details = {
            "reasoning_tokens": self._reasoning_tokens,
            "critical_path": result.usage.critical_path,
            "branches": 0 if graph is None else sum(len(fork.after) for fork in graph.forks),
        }
        self._response["trace"] = dict(trace)
        self._tell_usage(result.usage.prompt_tokens, result.usage.total, details)
        yield self._ended(result.finish)

    # -- plain text --------------------------------------------------------------------------------

    def add_text(self, text: str) -> Iterator[WireEvent]:
        """The model has written of itself."""
        if ROOT not in self._open:
            yield from self._add(ROOT, "message", {})
        if text:
            yield from self._write(ROOT, text)

    def end_text(self, prompt_tokens: int, tokens: int, finish: EndReason) -> Iterator[WireEvent]:
        """It is over."""
        yield from self.add_text("")
        yield from self._close(ROOT)
        details = {"reasoning_tokens": 0, "critical_path": tokens, "branches": 0}
        self._tell_usage(prompt_tokens, tokens, details)
        yield self._ended(finish)

    def fail(self, message: str, code: FailureCode) -> WireEvent:
        """It cannot be ended."""
        self._response |= {"status": "failed", "error": {"code": code, "message": message}}
        return self._event("response.failed", response=self.response)

    # -- items -------------------------------------------------------------------------------------

    def _write(self, branch: int, text: str) -> Iterator[WireEvent]:
        if branch not in self._open:
            kind = "message" if branch == _ANSWER else "reasoning"
            yield from self._add(branch, kind, self._about[branch])
        item = self._open[branch]
        item.text += text
        told: dict[str, Any] = {} if item.kind == "reasoning" else {"logprobs": []}
        yield self._item_event(f"response.{item.part_kind}.delta", item, delta=text, **told)

    def _tell_answer(self, text: str) -> Iterator[WireEvent]:
        if text:
            self._told += len(text)
            yield from self._write(_ANSWER, text)

    def _add(self, branch: int, kind: str, about: Mapping[str, Any]) -> Iterator[WireEvent]:
        prefix = "rs" if kind == "reasoning" else "msg"
        item = _Item(f"{prefix}_{uuid.uuid4().hex}", self._items, kind, about)
        self._items += 1
        self._open[branch] = item
        self._response["output"].append(item.to_dict("in_progress"))
        added = item.to_dict("in_progress")
        yield self._event("response.output_item.added", output_index=item.index, item=added)
        yield self._item_event("response.content_part.added", item, part=item.part())

    def _close(self, branch: int) -> Iterator[WireEvent]:
        item = self._open.pop(branch, None)
        if item is None:
            return
        told: dict[str, Any] = {} if item.kind == "reasoning" else {"logprobs": []}
        yield self._item_event(f"response.{item.part_kind}.done", item, text=item.text, **told)
        yield self._item_event("response.content_part.done", item, part=item.part())
        done = item.to_dict("completed")
        self._response["output"][item.index] = done
        yield self._event("response.output_item.done", output_index=item.index, item=done)

    def _tell_usage(self, prompt: int, tokens: int, details: dict[str, Any]) -> None:
        self._response["usage"] = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": tokens,
            "output_tokens_details": details,
            "total_tokens": prompt + tokens,
        }

    def _ended(self, finish: EndReason) -> WireEvent:
        if finish is EndReason.COMPLETED:
            self._response["status"] = "completed"
            return self._event("response.completed", response=self.response)
        reason = {"reason": "max_output_tokens"}
        self._response |= {"status": "incomplete", "incomplete_details": reason}
        return self._event("response.incomplete", response=self.response)

    def _item_event(self, kind: str, item: _Item, **more: Any) -> WireEvent:
        place = {"item_id": item.id, "output_index": item.index, "content_index": 0}
        return self._event(kind, **place, **more)

    def _event(self, kind: str, **more: Any) -> WireEvent:
        number, self._count = self._count, self._count + 1
        return {"type": kind, "sequence_number": number, **more}


def _about(branch: int, path: tuple[int, ...], rule: str, label: str) -> dict[str, Any]:
    """What the item of a branch says of it: fields that other clients ignore."""
    return {"branch": branch, "path": list(path), "rule": rule, "label": label}
