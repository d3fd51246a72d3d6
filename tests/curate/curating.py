"""A curator against a scripted endpoint, for tests.

Non-goals: the command line (see `tests/cli/test_curate.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nprdsl
from nprdsl.schema import Schema
from nprdsl.trainers.curate import (
    Account,
    Asker,
    Cache,
    Chain,
    Curated,
    Curator,
    Endpoint,
    Rejected,
    Room,
    Service,
    curate_all,
    room_of,
)
from tests.curate.server import Scripted

MULTIVERSE = nprdsl.load("multiverse")


@dataclass
class Curating:
    """What a run needs; `account` adds up over all runs."""

    server: Scripted
    folder: Path
    schema: Schema = MULTIVERSE
    depth: int = 2
    limit: float = 0.2
    attempts: int = 3
    judges: tuple[str, ...] = ()
    in_flight: int = 4

    def __post_init__(self) -> None:
        self.account = Account()

    def __call__(self, chains: Iterable[Chain]) -> list[Curated | Rejected]:
        return asyncio.run(self._run(list(chains)))

    async def _run(self, chains: list[Chain]) -> list[Curated | Rejected]:
        service = Service(self.server.url, retries=2)
        endpoint = Endpoint(service, Cache(self.folder / "cache"), self.account)
        askers = [
            Asker(endpoint, self.account, model, {}, self.attempts)
            for model in ("oracle", *self.judges)
        ]
        curator = Curator(
            self.schema,
            self.schema.name,
            _room(self.schema, self.depth),
            askers[0],
            tuple(askers[1:]),
            self.limit,
        )
        found: list[Curated | Rejected] = []
        try:
            await curate_all(curator, chains, found.append, in_flight=self.in_flight)
        finally:
            await endpoint.close()
        return found


@cache
def _room(schema: Schema, depth: int) -> Room:
    return room_of(schema, depth)


def chain(row: dict[str, Any]) -> Chain:
    return Chain(row["id"], row["prompt"], row["solution"], {"answer": row["answer"]})
