"""Branches that return data: questions about a support ticket, each answered by a pydantic model.

    python examples/triage.py --model FOLDER-OR-HUB-NAME [--seed 1] [TICKET]

The model asks two or three questions about the ticket. One branch for each answers it, all at the
same time; an answer is an instance of `Verdict`, whatever the model would rather have written. The
takeaway is a `Decision`. Any causal LM serves; a small one is legal and typed, but not wise.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, Field

import nprdsl
from nprdsl import Limits
from nprdsl.runtime import LocalEngine
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import Sampling

TICKET = """\
Subject: charged twice
Hello, I renewed my plan on Monday and my card was charged 24 euros two times. The app still says
that my plan has expired. I have to send a report to my team tonight. Can you please help?
Order 1187, Ines"""


class Verdict(BaseModel):
    answer: Literal["yes", "no", "unclear"]
    evidence: Annotated[str, Field(min_length=1, max_length=80)]


class Decision(StrEnum):
    CLOSE = "close"
    REPLY = "reply"
    ESCALATE = "escalate"


SCHEMA = nprdsl.load("triage", terminals={"VERDICT": Verdict, "DECISION": Decision})
LIMITS = Limits(max_tokens=320, branches=3, rule_tokens={"plan": 30})


@dataclass(frozen=True, slots=True)
class Triage:
    """The questions with their verdicts, in order, and the decision."""

    verdicts: tuple[tuple[str, Verdict], ...]
    decision: Decision


def triage(result: Result) -> Triage:
    """The typed values of a finished trace."""
    assert result.trace is not None
    questions = [text.text.strip() for text in result.trace.find("TEXT")]
    verdicts = [found.value for found in result.trace.find("VERDICT")]
    decision = result.trace.find("DECISION")[0].value
    assert all(isinstance(verdict, Verdict) for verdict in verdicts)
    assert isinstance(decision, Decision)
    return Triage(tuple(zip(questions, verdicts, strict=True)), decision)


def main() -> None:
    parser = argparse.ArgumentParser(description="Triage a support ticket.")
    parser.add_argument("ticket", nargs="?", default=TICKET)
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    engine = LocalEngine.from_pretrained(given.model)
    result = engine.generate(
        SCHEMA,
        given.ticket,
        sampling=Sampling(temperature=0.7, top_p=0.9, seed=given.seed),
        limits=LIMITS,
        chat=engine.chats,
        instructions=True,
    )
    found = triage(result)
    for question, verdict in found.verdicts:
        print(f"{question}\n    {verdict.answer}: {verdict.evidence}")
    print(f"decision: {found.decision.name}")
    usage = result.usage
    print(f"{usage.total} tokens, critical path {usage.critical_path}, {usage.time_s:.1f} s")


if __name__ == "__main__":
    main()
