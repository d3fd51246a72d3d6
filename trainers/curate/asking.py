"""Asking for a step until its answer holds: read, mend, check, and ask again with the reason.

The chain of thought stands at the front of every question, so that a server that keeps prefixes
reads it once for all steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from nprdsl.trainers.curate.cache import Message, Reply, Request
from nprdsl.trainers.curate.cost import Account
from nprdsl.trainers.curate.endpoint import Endpoint, EndpointError
from nprdsl.trainers.curate.replies import ReplyError, read_reply
from nprdsl.trainers.curate.step import In, Out, Step, StepName

T = TypeVar("T")
SYSTEM: Final = (
    "You are an editor of mathematical and logical reasoning. You are given a problem and a chain "
    "of thought that solves it, as numbered sentences. Step by step the chain is turned into one "
    "in which independent parts are worked out in parallel, without changing what it says. You "
    "never solve the problem anew, never correct the chain, and never invent content. You reply "
    "with one JSON object and nothing else; a backslash of LaTeX is written twice in JSON."
)
_RESERVED: Final = frozenset({"model", "messages", "stream", "n", "response_format"})
_TOLD: Final = 12  # faults of one answer that the model is told


class StepFailedError(ValueError):
    """No answer of a step held; `faults` are those of the last."""

    def __init__(self, step: StepName, faults: list[str]) -> None:
        self.step, self.faults = step, faults
        super().__init__(f"{step}: {'; '.join(faults)}")


class UnansweredError(RuntimeError):
    """The endpoint gave no answer for a step."""

    def __init__(self, step: StepName, fault: str) -> None:
        self.step, self.fault = step, fault
        super().__init__(f"{step}: {fault}")


Review = Callable[[T], Awaitable[list[str]]]  # a check that has to wait: what is wrong


async def nothing(_: object) -> list[str]:
    """The review of a step that has none."""
    return []


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one model; `attempts` counts all answers of a step, the first included. `sampling` goes
    into the request as it is: `{"temperature": 0.6}`."""

    endpoint: Endpoint
    account: Account
    model: str
    sampling: Mapping[str, object]
    attempts: int

    def __post_init__(self) -> None:
        reserved = _RESERVED & set(self.sampling)
        if reserved:
            names = ", ".join(f"`{name}`" for name in sorted(reserved))
            raise ValueError(f"{names} is no sampling parameter: the curator sets it itself")
        if self.attempts < 1:
            raise ValueError(f"{self.attempts} attempts are too few; a step needs 1 at least")

    async def solve(
        self,
        step: Step[In, Out],
        given: In,
        shown: str,
        review: Review[Out] = nothing,
    ) -> Out:
        """An answer that holds. `shown` is the chain; `review` is a check that has to wait.

        Raises StepFailedError, UnansweredError, and what ends the whole run (see `endpoint`).
        """
        question = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{shown}\n\n{step.ask(given)}"},
        ]
        messages: list[Message] = [*question]
        faults: list[str] = []
        for attempt in range(self.attempts):
            self.account.of(step.name).again += bool(attempt)
            form = step.output.model_json_schema()
            request = Request(self.model, messages, form, self.sampling)
            try:
                reply = await self.endpoint.ask(step.name, request)
            except EndpointError as error:
                raise UnansweredError(step.name, str(error)) from error
            answer, faults = _read(step, given, reply)
            if answer is not None and not faults:
                faults = await review(answer)
            if answer is not None and not faults:
                return answer
            messages = [*question, *_complaint(attempt + 1, reply, faults)]
        raise StepFailedError(step.name, faults)


def _read(step: Step[In, Out], given: In, reply: Reply) -> tuple[Out | None, list[str]]:
    """The answer in a reply, and what is wrong with it."""
    if reply.refusal:
        return None, [f"the model refused: {reply.refusal}"]
    if reply.finish == "length":
        return None, ["the reply was cut off before its end; say the same in fewer words"]
    try:
        answer = step.mend(read_reply(reply.text, step.output), given)
    except ReplyError as error:
        return None, [str(error)]
    return answer, step.faults(answer, given)


def _complaint(attempt: int, reply: Reply, faults: list[str]) -> list[Message]:
    """The number makes every request another one, so that the cache does not answer it."""
    listed = "\n".join(f"- {fault}" for fault in faults[:_TOLD])
    return [
        {"role": "assistant", "content": reply.text or "(nothing)"},
        {
            "role": "user",
            "content": f"Answer {attempt} does not hold:\n{listed}\n"
            "Give the whole JSON object again, mended.",
        },
    ]
