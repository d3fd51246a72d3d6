"""One chain of thought through the five steps: a legal trace, or the reason why there is none.

The steps know texts, the schema knows tags: `forms` writes the document in any schema that has room
for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nprdsl.schema import Schema
from nprdsl.trainers.curate.asking import Asker, Review, StepFailedError, UnansweredError
from nprdsl.trainers.curate.capacity import Room
from nprdsl.trainers.curate.document import depth_of
from nprdsl.trainers.curate.draft import Draft, Wording
from nprdsl.trainers.curate.fidelity import distance
from nprdsl.trainers.curate.forms import Form, form_of
from nprdsl.trainers.curate.rows import Chain, Curated, Rejected, RejectReason
from nprdsl.trainers.curate.sentences import sentences
from nprdsl.trainers.curate.steps import arrange, group, judge, parse, refill, write
from nprdsl.trainers.curate.steps.arrange import Arrangement
from nprdsl.trainers.curate.steps.parse import Outline


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

    async def curate(self, chain: Chain) -> Curated | Rejected:
        """Raises UnusableEndpointError where no chain can be curated, OSError of the cache."""
        tag = self.schema.tag_pattern.search(chain.thought)
        if tag is not None:
            faults = (f"the chain of thought holds the tag `{tag[0]}`",)
            return Rejected(chain, RejectReason.TAG_IN_TEXT, "", faults)
        try:
            return await self._steps(chain)
        except StepFailedError as error:
            return Rejected(chain, RejectReason.STEP_FAILED, error.step, tuple(error.faults))
        except UnansweredError as error:
            return Rejected(chain, RejectReason.ENDPOINT_FAILED, error.step, (error.fault,))

    async def _steps(self, chain: Chain) -> Curated | Rejected:
        pieces = sentences(chain.thought)
        if len(pieces) < 2:
            return _sequential(chain, "", "the chain of thought is one sentence")
        given = parse.Chain(problem=chain.prompt, sentences=pieces)
        shown = parse.shown(given)
        outline = await self.asker.solve(parse.STEP, given, shown)
        groups = await self.asker.solve(group.STEP, group.Outlined(outline=outline), shown)
        if not groups.groups:
            return _sequential(chain, group.STEP.name, "no two neighbours are independent")
        grouped = arrange.Grouped(outline=outline, groups=groups, room=self.room)
        plan = await self.asker.solve(arrange.STEP, grouped, shown, self._fits(outline))
        planned = refill.Planned(outline=outline, sentences=len(pieces))
        filling = await self.asker.solve(refill.STEP, planned, shown)
        draft = Draft(
            schema_=self.schema,
            problem=chain.prompt,
            sentences=pieces,
            titles=tuple(leaf.title for leaf in outline.leaves()),
            runs=tuple((part.first, part.last) for part in filling.parts),
            form=self._form(outline, plan),
            limit=self.limit,
        )
        wording = await self.asker.solve(write.STEP, draft, shown, self._judged(draft, shown))
        return self._curated(chain, outline, plan, draft, wording)

    def _form(self, outline: Outline, plan: Arrangement) -> Form:
        form = form_of(self.schema.grammar, plan.document(outline))
        assert form is not None, "the review of the arrangement has found a form"
        return form

    def _fits(self, outline: Outline) -> Review[Arrangement]:
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
            found: list[str] = []
            for asker in self.judges:
                blocks = tuple(tuple(branches) for branches in draft.siblings(wording))
                given = judge.Siblings(blocks=blocks)
                verdict = await asker.solve(judge.STEP, given, shown)
                found += verdict.told()
            return found

        return review

    def _curated(
        self, chain: Chain, outline: Outline, plan: Arrangement, draft: Draft, wording: Wording
    ) -> Curated:
        trace = draft.trace(wording)
        blocks = [block.block for block in draft.parallel]
        return Curated(
            chain=chain,
            schema=self.schema_name,
            trace=trace,
            kinds=tuple(block.kind for block in blocks),
            branches=tuple(len(block.branches) for block in blocks),
            depth=depth_of(plan.document(outline)),
            degree=self.schema.parse(trace).graph.degree,
            distance=distance(chain.thought, "".join(draft.rewritten(wording))),
        )


def _sequential(chain: Chain, step: str, fault: str) -> Rejected:
    return Rejected(chain, RejectReason.NOTHING_PARALLEL, step, (fault,))
