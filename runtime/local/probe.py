"""Finds out, before anything is generated, whether a model is right over the KV log, and how.

Some models accept masks and positions and ignore them; their branches would silently be wrong. So
two requests of unequal lengths, with two branches each, are fed together: all in one forward, then
each branch a little further, then what follows the joins. Every logit must equal that of the
model's own forward over what its token sees. A model that cannot merge branches so may still fork
them and read them again (see `nprdsl.runtime.local.recurrent_probe`). In goes a model; out comes
how it runs, or the reason why the local engine cannot run it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from transformers import PreTrainedModel

from nprdsl.machine.actions import Action, FeedAction, ForkAction, JoinAction
from nprdsl.runtime.errors import ErrorBoundary, UnsupportedModelError
from nprdsl.runtime.local.attention import AttentionPath, implementation
from nprdsl.runtime.local.forward import Forward, arrange
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.plain_forward import EXACT, NOTHING, Ids, PlainForward, spread
from nprdsl.runtime.local.recurrent_forward import Continuing
from nprdsl.runtime.local.recurrent_probe import RecurrentTrial
from nprdsl.runtime.local.trace_log import TraceLog

_LENGTH: Final = 32  # slots of a request
_FAR: Final = 1024  # slots, where a model's own attention must bear what lies between
_SHIFT: Final = 5  # positions
_FOLDED: Final = (
    "has recurrent layers, which fold all that they read into one state: the states of several "
    "branches cannot be merged"
)


@dataclass(frozen=True, slots=True)
class Probed:
    """The `width` of a model's logits, and who computes its attention over the log. Where branches
    cannot be merged, `unmergeable` says why, as the end of a sentence that begins with the model,
    and `continuing` how branches go on; else it is empty."""

    width: int
    path: AttentionPath
    unmergeable: str = ""
    continuing: Continuing = Continuing.PIECES


@dataclass(frozen=True, slots=True)
class _Story:
    """The tokens of one request: its prompt, two branches, what each writes next, what follows."""

    prompt: Ids
    first: tuple[Ids, Ids]
    more: tuple[Ids, Ids]
    after: Ids

    def branch(self, which: int) -> Ids:
        return self.first[which] + self.more[which]


@dataclass(frozen=True, slots=True, eq=False)
class _Logits:
    """Of one request `[tokens, vocabulary]`: of its branches, and of what follows the join, if that
    was run."""

    branches: tuple[torch.Tensor, torch.Tensor]
    after: torch.Tensor | None


def probe(model: PreTrainedModel) -> Probed:
    """How the model runs. Raises UnsupportedModelError, with the reason, where it would be wrong.

    transformers' attention interface is tried first, then the model's own attention code, then a
    sequence for each branch. Puts the model into evaluation mode.
    """
    model.eval()
    try:
        merging = _merging(model)
    except UnsupportedModelError as error:
        merging, kinds = str(error), f"{error}, and "
    else:
        kinds = ""
    if isinstance(merging, Probed):
        return merging
    trial = RecurrentTrial(model)
    reason = _reason(trial.wrong)
    if trial.keeps_states:
        if reason is None:
            return Probed(trial.plain.width, AttentionPath.INTERFACE, _FOLDED, trial.continuing)
        kinds = "keeps states in recurrent layers, and "
    reason = f"{kinds}{reason}" if kinds and reason else merging
    if model.config.is_encoder_decoder:
        reason = "is an encoder and a decoder, where one model must read prompt and trace"
    raise UnsupportedModelError(f"{type(model).__name__} {reason}; the local engine cannot run it")


def _merging(model: PreTrainedModel) -> Probed | str:
    """How the model runs where branches are merged, or what is wrong then. Raises
    UnsupportedModelError for layers that cannot be tried so."""
    trial, own = (_Trial(model, path) for path in AttentionPath)
    reason = _reason(trial.wrong)
    if reason is None:
        return Probed(trial.plain.width, AttentionPath.INTERFACE)
    of_own = _reason(own.wrong)
    if of_own is None:
        return Probed(own.plain.width, AttentionPath.MODEL)
    if not trial.forward.attention.calls and not model._supports_attention_backend:
        return (
            f"computes attention in code of its own, not by transformers' interface, and {of_own}"
        )
    return reason


def _reason(wrong: Callable[[], str | None]) -> str | None:
    """What is wrong, as the end of a sentence that begins with the model; None if nothing."""
    errors: list[Exception] = []  # of a cache, a mask or an attention that the model rejects
    found: list[str | None] = []
    with ErrorBoundary(errors.append):
        found.append(wrong())
    for error in errors:
        if isinstance(error, UnsupportedModelError):
            return str(error)
        return f"does not run over the KV log ({type(error).__name__}: {error})"
    return found[0]


class _Trial:
    """One way to run a model, and what is wrong with it."""

    def __init__(self, model: PreTrainedModel, path: AttentionPath) -> None:
        self.forward = Forward(model, _FAR, path)
        self.plain = PlainForward(model)
        self._model = model
        self._stories = _stories(self.plain.vocabulary)

    def wrong(self) -> str | None:
        story = self._stories[0]
        self.plain.measure(story.prompt + story.branch(1), len(story.prompt) - 1)
        one, other = (self.plain(story.prompt + story.branch(i)) for i in (0, 1))
        if not self.plain.same(one[: len(story.prompt)], other[: len(story.prompt)]):
            return "sees tokens that come later: it is no decoder, or `is_decoder` is not set"
        together = self._run(self._stories)
        if not self.forward.log.written:
            return "does not keep its keys and values in the cache that it is given"
        second = together[0].branches[1]
        sibling = replace(story, first=(self.plain.rotated(story.first[0]), story.first[1]))
        apart = self._run([sibling, self._stories[1]], joined=False)[0].branches[1]
        if not self.plain.same(second, apart, EXACT):
            return "lets a branch see its sibling: some layer does not honour a 4-D attention mask"
        moved = self._run(self._stories, shift=_SHIFT, joined=False)[0].branches[1]
        if self.plain.same(second, moved, NOTHING):
            return "ignores position_ids: branches cannot continue at their own positions"
        for story, logits in zip(self._stories, together, strict=True):
            if not self._branches_equal(story, logits):
                return self._why_different()
        for story, logits in zip(self._stories, together, strict=True):
            assert logits.after is not None
            if not self.plain.same(logits.after, self._joined(story)):
                return "gives other logits behind a join than in one forward with a mask"
        return None

    def _branches_equal(self, story: _Story, logits: _Logits) -> bool:
        """Each branch is as in the model's plain forward over the prompt and that branch."""
        plain = [self.plain(story.prompt + story.branch(i))[len(story.prompt) :] for i in (0, 1)]
        return all(map(self.plain.same, logits.branches, plain))

    def _why_different(self) -> str:
        story = self._stories[0]
        tokens, length = story.prompt + story.first[1], len(story.first[1])
        plain = self.plain(tokens)
        if not self.plain.same(plain, self.plain(tokens, torch.arange(len(tokens)))):
            return "numbers positions in a way of its own, not from 0"
        alone = self._run([story])[0]
        if self._branches_equal(story, alone):
            return "gives other logits where two requests share a forward"
        if self.plain.same(alone.branches[1][:length], plain[-length:]):
            return "does not see what earlier forwards have put into the log"
        return "gives other logits over the KV log than in its own plain forward"

    @torch.no_grad()
    def _joined(self, story: _Story) -> torch.Tensor:
        """Logits of what follows the join, by one forward over all tokens with a mask.

        Not every implementation takes such a mask; the plain one, eager, does.
        """
        first, second, after = story.branch(0), story.branch(1), story.after
        begin, middle = len(story.prompt), len(story.prompt) + len(first)
        end = middle + len(second)
        longest = begin + max(len(first), len(second))
        seen = np.tri(end + len(after), dtype=bool)
        seen[middle:end, begin:middle] = False
        starts = (range(middle), range(begin, begin + len(second)))
        positions = np.array([*starts[0], *starts[1], *range(longest, longest + len(after))])
        ids = torch.tensor([story.prompt + first + second + after], device=self._model.device)
        with implementation(self._model, "eager"):
            logits: torch.Tensor = self._model(
                input_ids=ids,
                position_ids=torch.from_numpy(positions)[None].to(self._model.device),
                attention_mask=self.forward.dense_masks(seen, positions),
                use_cache=False,
            ).logits[0]
        return logits[end:].float()

    # -- over the log ------------------------------------------------------------------------------

    def _run(self, stories: list[_Story], *, shift: int = 0, joined: bool = True) -> list[_Logits]:
        """All in one forward, then each branch further, then what follows the joins."""
        far = self.forward.log.path is AttentionPath.MODEL
        extents = [Extent(i * (_FAR - _LENGTH if far else _LENGTH), _LENGTH) for i in (0, 1)]
        logs = [TraceLog(_LENGTH) for _ in stories]
        found: list[dict[int, list[torch.Tensor]]] = [{0: [], 1: [], 2: []} for _ in stories]
        for log, story in zip(logs, stories, strict=True):
            log.apply([FeedAction(0, story.prompt), ForkAction(0, (1, 2))])
            log.apply([FeedAction(1, story.first[0])])
            log.branches[2].position += shift
            log.apply([FeedAction(2, story.first[1])])
        self._step(logs, extents, found)
        for log, story in zip(logs, stories, strict=True):
            log.apply([FeedAction(1 + which, story.more[which]) for which in (0, 1)])
        self._step(logs, extents, found)
        if joined:
            for log, story in zip(logs, stories, strict=True):
                actions: list[Action] = [JoinAction(0, (1, 2)), FeedAction(0, story.after)]
                log.apply(actions)
            self._step(logs, extents, found)
        return [
            _Logits((torch.cat(f[1]), torch.cat(f[2])), f[0][-1] if joined else None) for f in found
        ]

    def _step(
        self,
        logs: list[TraceLog],
        extents: list[Extent],
        found: list[dict[int, list[torch.Tensor]]],
    ) -> None:
        """One forward over what waits, the last request first; each run's logits to its branch."""
        order = list(reversed(range(len(logs))))
        taken = {i: logs[i].take(_LENGTH) for i in order}
        parts = arrange([(logs[i], extents[i], taken[i]) for i in order])
        logits, at = self.forward(parts, list(range(parts[-1].group.last))), 0
        for i in order:
            for run in taken[i]:
                found[i][run.branch].append(logits[at : at + len(run.tokens)])
                at += len(run.tokens)


def _stories(vocabulary: int) -> list[_Story]:
    """Two requests of unequal lengths."""
    texts = iter(spread(vocabulary, [6, 9, 5, 2, 1, 3, 3, 4, 7, 1, 1, 2]))
    return [
        _Story(next(texts), (next(texts), next(texts)), (next(texts), next(texts)), next(texts))
        for _ in range(2)
    ]
