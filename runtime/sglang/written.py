"""A report's tokens as the machine's own record of them."""

from __future__ import annotations

from nprdsl.machine.branch_state import Written
from nprdsl.runtime.sglang.protocol import Report


def written_of(report: Report) -> list[Written]:
    """The trace of a final report, in linear order."""
    rows = zip(report.ids, report.sampled, report.logprobs, strict=True)
    return [Written(*row) for row in rows]
