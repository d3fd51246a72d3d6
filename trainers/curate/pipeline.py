"""Chains of thought through the five steps, many at the same time.

Each chain becomes a legal trace, or is rejected with the reason. The steps know texts and sentence
numbers; only `placement` knows the tags of the schema. Each chain waits for one reply at a time, so
the chains under way are the requests in flight. A run that ends for any reason, a kill included, is
continued by running it again: every reply that was received is in the cache.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nprdsl.schema import Schema
from nprdsl.trainers.curate.asking import Asker, Review, StepFailedError, UnansweredError
from nprdsl.trainers.curate.document import Passage, depth_of, opened_by_prose
from nprdsl.trainers.curate.form import TraceForm
from nprdsl.trainers.curate.outcomes import Chain, Curated, Outcome, Rejected, RejectReason
from nprdsl.trainers.curate.placement import Room, form_of
from nprdsl.trainers.curate.sentences import distance, sentences
from nprdsl.trainers.curate.steps import arrange, group, judge, parse, refill, write
from nprdsl.trainers.curate.steps.arrange import Arrangement
from nprdsl.trainers.curate.steps.group import needed_leaves
from nprdsl.trainers.curate.steps.parse import Outline
from nprdsl.trainers.curate.steps.write import Draft, Wording

_AHEAD: Final = 8  # chains that may be done before the first of them, for each request in flight


@dataclass(frozen=True, slots=True)
class Curator:
    """Curates chains for one schema. `schema_name` is what rows call it; `judges` holds the model
    that reviews branches, or nobody; `limit` is that of the edit distance."""

    schema: Schema
    schema_name: str
    room: Room
    asker: Asker
    judges: tuple[Asker, ...] = ()
    limit: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 1:
            raise ValueError(f"the limit {self.limit:g} is no distance; give 0 to 1")

    async def curate(self, chain: Chain) -> Outcome:
        """Raises UnusableEndpointError where no chain can be curated, OSError of the cache."""
        tag = self.schema.tag_pattern.search(chain.thought)
        if tag is not None:
            fault = f"the chain of thought holds the tag `{tag[0]}`"
            return Rejected(chain, RejectReason.TAG_IN_TEXT, "", (fault,))
        try:
            return await self._steps(chain)
        except StepFailedError as error:
            return Rejected(chain, RejectReason.STEP_FAILED, error.step, tuple(error.faults))
        except UnansweredError as error:
            return Rejected(chain, RejectReason.ENDPOINT_FAILED, error.step, (error.fault,))

    async def _steps(self, chain: Chain) -> Outcome:
        split, solve = sentences(chain.thought), self.asker.solve
        if len(split) < 2:
            return _sequential(chain, "", "the chain of thought is one sentence")
        shown = parse.shown(chain.prompt, split)
        outline = await solve(parse.STEP, split, shown)
        groups = await solve(group.STEP, outline, shown)
        if not groups.groups:
            return _sequential(chain, group.STEP.name, "no two neighbours are independent")
        grouped = arrange.ArrangeInput(outline, groups, self.room)
        plan = await solve(arrange.STEP, grouped, shown, self._has_place(outline))
        filling = await solve(refill.STEP, refill.RefillInput(outline, len(split)), shown)
        document, form = self._placed(plan.document(outline), needed_leaves(groups, outline))
        draft = Draft(
            schema=self.schema,
            problem=chain.prompt,
            sentences=split,
            titles=tuple(leaf.title for leaf in outline.leaves()),
            runs=tuple((part.first, part.last) for part in filling.parts),
            form=form,
            limit=self.limit,
        )
        wording = await solve(write.STEP, draft, shown, self._judged(draft, shown))
        trace = draft.trace(wording)
        return Curated(
            chain=chain,
            schema=self.schema_name,
            trace=trace,
            kinds=tuple(block.block.kind for block in draft.parallel),
            branches=tuple(len(block.block.branches) for block in draft.parallel),
            depth=depth_of(document),
            degree=self.schema.parse(trace).graph.degree,
            distance=distance(chain.thought, "".join(draft.rewritten(wording))),
        )

    def _placed(
        self, document: tuple[Passage, ...], needed: dict[int, set[int]]
    ) -> tuple[tuple[Passage, ...], TraceForm]:
        """The document and its form; where the schema would take prose as a block of one branch,
        prose that no branch needs from outside goes into one."""
        form = form_of(self.schema.grammar, document)
        assert form is not None, "the review of the arrangement has found a form"
        if form.wraps:
            opened = opened_by_prose(document, needed)
            other = form_of(self.schema.grammar, opened)
            if other is not None and other.wraps < form.wraps:
                return opened, other
        return document, form

    def _has_place(self, outline: Outline) -> Review[Arrangement]:
        async def review(plan: Arrangement) -> list[str]:
            if form_of(self.schema.grammar, plan.document(outline)) is not None:
                return []
            return [
                "the format has no place for these blocks and the parts that stand outside them "
                f"(blocks: {len(plan.blocks)}); make other blocks, or fewer"
            ]

        return review

    def _judged(self, draft: Draft, shown: str) -> Review[Wording]:
        async def review(wording: Wording) -> list[str]:
            faults: list[str] = []
            for asker in self.judges:
                verdict = await asker.solve(judge.STEP, draft.siblings(wording), shown)
                faults += verdict.faults()
            return faults

        return review


def _sequential(chain: Chain, step: str, fault: str) -> Rejected:
    return Rejected(chain, RejectReason.NOTHING_PARALLEL, step, (fault,))


async def curate_all(
    curator: Curator,
    chains: Iterable[Chain],
    take: Callable[[Outcome], None],
    *,
    in_flight: int = 8,
) -> None:
    """Give the outcome of every chain to `take`, in their order, with `in_flight` requests at most.

    Raises UnusableEndpointError where no chain can be curated, OSError of the cache.
    """
    if in_flight < 1:
        raise ValueError(f"{in_flight} requests in flight are none; give 1 or more")
    gate = asyncio.Semaphore(in_flight)

    async def one(chain: Chain) -> Outcome:
        async with gate:
            return await curator.curate(chain)

    under_way: deque[asyncio.Task[Outcome]] = deque()
    try:
        for chain in chains:
            under_way.append(asyncio.create_task(one(chain)))
            if len(under_way) == in_flight * _AHEAD:
                take(await under_way[0])
                under_way.popleft()
        while under_way:
            take(await under_way[0])
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
