"""The curator against `nprdsl serve`: the protocol holds, whatever a small model says.

The bundled model adds and multiplies; it can do none of the steps, and the chain is rejected.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import nprdsl
from tests.sglang.served import Served

pytest.importorskip("rapidfuzz")

from nprdsl.trainers.curate import (
    Account,
    Asker,
    Cache,
    Chain,
    Curator,
    Endpoint,
    Rejected,
    RejectReason,
    Service,
    Structured,
    room_of,
)


@pytest.mark.parametrize("structured", [Structured.AUTO, Structured.NEVER])
def test_a_model_that_cannot_do_it(structured: Structured, served: Served, tmp_path: Path) -> None:
    account, schema = Account(), nprdsl.load("multiverse")

    async def work() -> object:
        endpoint = Endpoint(
            Service(served.url, structured=structured, retries=1), Cache(tmp_path), account
        )
        sampling = {"max_completion_tokens": 8, "temperature": 0}
        asker = Asker(endpoint, account, "arith", sampling, attempts=2)
        curator = Curator(schema, schema.name, room_of(schema, 2), asker)
        try:
            return await curator.curate(
                Chain("1", "37*42+85*19?", "37*42=1554. 85*19=1615. It is 3169.")
            )
        finally:
            await endpoint.close()

    outcome = asyncio.run(work())
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.step) == (RejectReason.STEP_FAILED, "parse")
    cost = account.of("parse")
    assert (cost.calls, cost.again, cost.uncounted) == (2, 1, 0)
    assert cost.prompt_tokens > 0
