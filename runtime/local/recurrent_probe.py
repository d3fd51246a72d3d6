"""Finds out whether a model is right with a sequence and a row of state for each branch.

That is how models run whose layers keep states: branches can fork and be read again there, but not
be merged. Two requests of unequal lengths, with two branches each, are fed together: all in one
forward, each branch a little further, then the parents read their branches again. Every logit must
equal that of the model's own forward over the text that its token sees.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from nprdsl.machine.actions import DropAction, FeedAction, ForkAction
from nprdsl.runtime.local.forward import arrange
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.model_facts import attention_windows
from nprdsl.runtime.local.plain_forward import EXACT, Ids, PlainForward, distance, spread
from nprdsl.runtime.local.recurrent_forward import Continuing, RecurrentForward
from nprdsl.runtime.local.trace_log import TraceLog

_LENGTH = 48  # slots of a request
_LENGTHS = (
    [6, 9, 5, 2, 1, 3],
    [3, 4, 7, 1, 1, 2],
)  # prompt, two branches, more of each, what follows


class RecurrentTrial:
    """A model tried in that way."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.continuing = Continuing.PIECES
        self.plain = PlainForward(model)
        self.forward = RecurrentForward(model, 2 * _LENGTH)
        self._model = model
        tokens = spread(self.plain.vocabulary, [*_LENGTHS[0], *_LENGTHS[1]])
        self._stories = (tokens[:6], tokens[6:])

    @property
    def keeps_states(self) -> bool:
        """The model has left states in its cache."""
        return bool(self.forward.log.states)

    def wrong(self) -> str | None:
        """What is wrong, as the end of a sentence that begins with the model; None if nothing."""
        prompt, first, *_ = self._stories[0]
        self.plain.measure(prompt + first, len(prompt) - 1)
        slots = self._counts_slots(prompt, first)
        if not self.keeps_states:
            return "keeps no states in the cache that it is given"
        if slots:
            return "ignores position_ids, and counts what is in its cache instead"
        kinds = {kind for _, kind, _ in self.forward.log.states}
        if not all(self._reads_states(prompt, first, kind) for kind in kinds):
            self.continuing = Continuing.TOKENS
            self.forward = RecurrentForward(self._model, 2 * _LENGTH, self.continuing)
        for fed, visible in self._run():
            count = len(fed)
            if not self.plain.same(fed, self.plain(visible)[-count:]):
                return "gives other logits with its cache than in its own plain forward"
        if attention_windows(self._model) - self.forward.attention.windows:
            return "has attention windows that it does not tell to its attention function"
        return None

    def _reads_states(self, prompt: Ids, text: Ids, kind: str) -> bool:
        """Several tokens at once go on from the states of a kind as one token does.

        The states are blown up, lest small ones hide that they are not read.
        """
        found = []
        for tokens, blown_up in ((text[:1], False), (text[:1], True), (text, True)):
            log, extent = TraceLog(_LENGTH), Extent(0, _LENGTH)
            log.apply([FeedAction(0, prompt)])
            self._step_alone(log, extent)
            state = log.branches[0].state
            for (_, own, _), tensor in state.states.items() if state and blown_up else ():
                if own == kind:
                    tensor += 1 + tensor.abs().max()
            log.apply([FeedAction(0, tokens)])
            found.append(self._step_alone(log, extent)[0])
        small, large, together = found
        return self.plain.same(large, together, effect=distance(small, large))

    def _counts_slots(self, prompt: Ids, text: Ids) -> bool:
        """What others put into the log between two forwards changes the logits."""
        found = []
        for slots in (_LENGTH, 2 * _LENGTH):
            log, extent = TraceLog(_LENGTH), Extent(0, _LENGTH)
            log.apply([FeedAction(0, prompt)])
            self._step_alone(log, extent)
            self.forward.log.write_to(slice(0, 0), slots)
            log.apply([FeedAction(0, text)])
            found.append(self._step_alone(log, extent))
        return not self.plain.same(found[0], found[1], EXACT)

    def _step_alone(self, log: TraceLog, extent: Extent) -> torch.Tensor:
        rows = arrange([(log, extent, log.take(_LENGTH))])
        logits = self.forward(rows, list(range(rows[0].group.last)))
        self.forward.accept()
        return logits

    def _run(self) -> list[tuple[torch.Tensor, Ids]]:
        """Logits of each piece that was fed, with all that its last token sees."""
        logs = [TraceLog(_LENGTH) for _ in self._stories]
        found = []
        for log, (prompt, a, b, *_) in zip(logs, self._stories, strict=True):
            log.apply([FeedAction(0, prompt), ForkAction(0, (1, 2))])
            log.apply([FeedAction(1, a), FeedAction(2, b)])
        texts = [text for p, a, b, *_ in self._stories for text in (p, p + a, p + b)]
        found += self._step(logs, texts)
        for log, (_, _, _, c, d, _) in zip(logs, self._stories, strict=True):
            log.apply([FeedAction(1, c), FeedAction(2, d)])
        texts = [t for p, a, b, c, d, _ in self._stories for t in (p + a + c, p + b + d)]
        found += self._step(logs, texts)
        for log, (_, a, b, c, d, after) in zip(logs, self._stories, strict=True):
            again = FeedAction(0, a + c + b + d + after)
            log.apply([DropAction(0, (1, 2)), again])
        texts = [p + a + c + b + d + after for p, a, b, c, d, after in self._stories]
        return found + self._step(logs, texts)

    def _step(self, logs: list[TraceLog], texts: list[Ids]) -> list[tuple[torch.Tensor, Ids]]:
        """One forward over what waits; the logits of each run, with the text that it ends."""
        extents = [Extent(i * _LENGTH, _LENGTH) for i in range(len(logs))]
        taken = [log.take(_LENGTH) for log in logs]
        parts = arrange(list(zip(logs, extents, taken, strict=True)))
        logits = self.forward(parts, list(range(parts[-1].group.last)))
        self.forward.accept()
        lengths = [len(run.tokens) for runs in taken for run in runs]
        return list(zip(torch.split(logits, lengths), texts, strict=True))
