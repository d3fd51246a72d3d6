"""How many parallel blocks a reader finds in real chains of thought, and how many the curator does.

The model is scripted: it answers the curator's questions over HTTP from what a reader wrote down
about each solution (`tests/curate/math`), and groups by rule. So this shows what the pipeline loses
or finds on the way from a reader's understanding to a trace, and nothing about any model.

    python -m benchmarks.curator
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import nprdsl
from nprdsl.trainers.curate import (
    Account,
    Asker,
    Cache,
    Chain,
    Curated,
    Curator,
    Endpoint,
    Rejected,
    Service,
    curate_all,
    room_of,
)
from tests.curate.oracle import MATH, math_chains, math_oracle
from tests.curate.server import scripted

Outcome = Curated | Rejected


def main() -> None:
    hand = {row["id"]: row for row in json.loads((MATH / "hand.json").read_text("utf-8"))}
    outcomes = {outcome.chain.id: outcome for outcome in asyncio.run(_curated())}
    print(f"{'chain':<30}{'hand':>6}{'pipeline':>10}")
    for key, row in hand.items():
        print(f"{key:<30}{row['blocks']:>6}{_blocks(outcomes[key]):>10}")
    found = sum(_blocks(outcomes[key]) for key in hand)
    print(f"{'ten chains':<30}{sum(row['blocks'] for row in hand.values()):>6}{found:>10}")
    print(f"{'all twenty':<30}{'':>6}{sum(map(_blocks, outcomes.values())):>10}")


def _blocks(outcome: Outcome) -> int:
    return len(outcome.kinds) if isinstance(outcome, Curated) else 0


async def _curated() -> list[Outcome]:
    """The sample as traces of `multiverse`, whose blocks nest."""
    schema, account, found = nprdsl.load("multiverse"), Account(), list[Outcome]()
    chains = [Chain(row["id"], row["prompt"], row["solution"]) for row in math_chains()]
    with scripted(math_oracle()) as server, tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(Service(server.url), Cache(Path(folder)), account)
        asker = Asker(endpoint, account, "oracle", {}, attempts=3)
        curator = Curator(schema, schema.name, room_of(schema, depth=2), asker)
        await curate_all(curator, chains, found.append)
        await endpoint.close()
    return found


if __name__ == "__main__":
    main()
