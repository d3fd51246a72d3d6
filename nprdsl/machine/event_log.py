"""What happened in a generation, kept for whoever watches it: tokens, forks, ends and joins.

A machine notes what it does, in order; `drain` makes events of that. Most generations are not
watched, so noting is cheap and the work is done here: the texts of a branch are whole characters, a
token that ends inside one adds its text with the token that completes it, and what a branch leaves
incomplete where it is stopped comes before the end. So the texts of all branches, in the order of
the trace, add up to the text of the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from nprdsl.machine.actions import ROOT
from nprdsl.structure.events import EndEvent, Event, ForkEvent, TokenEvent
from nprdsl.structure.tag_machine import TagState
from nprdsl.tokens.text_decoder import TextDecoder
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.answer_stream import AnswerStream


class _Note(NamedTuple):
    """Tokens, each with the state that it was written in. `logprob` is that of a single token, None
    where tokens were forced or it is not known; `shown`: they are part of the text."""

    branch: int
    states: Sequence[TagState]
    tokens: tuple[int, ...]
    sampled: bool
    logprob: float | None = None
    shown: bool = True


@dataclass(slots=True)
class _Watched:
    """A branch: its path, its label, its text so far."""

    path: tuple[int, ...]
    label: str
    decoder: TextDecoder


class EventLog:
    """The events of one generation. `logprobs`: those of tokens are told too."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.logprobs = False
        self._vocabulary = vocabulary
        self._notes: list[Event | _Note] = []
        self._answer = AnswerStream()
        self._counted: Counter[str] = Counter()  # tokens that events told of, by rule
        self._branches = {ROOT: _Watched((), "", TextDecoder(vocabulary))}

    def drew(
        self, branch: int, state: TagState, token: int, logprob: float | None, *, shown: bool = True
    ) -> None:
        """A branch wrote a token that was sampled. Not `shown`: the end, which is no text."""
        self._notes.append(_Note(branch, (state,), (token,), True, logprob, shown))

    def forced(self, branch: int, states: Sequence[TagState], tokens: tuple[int, ...]) -> None:
        """A branch wrote tokens that the model did not choose, each in one of these states."""
        self._notes.append(_Note(branch, states, tokens, False))

    def add(self, event: Event) -> None:
        """Anything else."""
        self._notes.append(event)

    def drain(self) -> list[Event]:
        """What happened since the last call."""
        notes, self._notes = self._notes, []
        return [event for note in notes for event in self._events(note)]

    def tokens_by_rule(self) -> Counter[str]:
        """The tokens written so far, of all branches, by the rule that they were written in."""
        notes = (note for note in self._notes if isinstance(note, _Note))
        return self._counted + Counter(state.rule for note in notes for state in note.states)

    def _events(self, note: Event | _Note) -> Iterator[Event]:
        if isinstance(note, _Note):
            yield from self._token_events(note)
            return
        if isinstance(note, ForkEvent):
            branches = zip(note.children, note.labels, strict=True)
            for index, (child, label) in enumerate(branches):
                path = (*note.path, note.block, index)
                self._branches[child] = _Watched(path, label, TextDecoder(self._vocabulary))
            if note.parent == ROOT:
                self._answer.fork()
        elif isinstance(note, EndEvent):
            yield from self._incomplete()
        yield note

    def _token_events(self, note: _Note) -> Iterator[TokenEvent]:
        """One event for each stretch in one rule."""
        watched, at = self._branches[note.branch], 0
        for rule, run in groupby(note.states, attrgetter("rule")):
            states = list(run)
            tokens = note.tokens[at : at + len(states)]
            at += len(tokens)
            self._counted[rule] += len(tokens)
            texts = [watched.decoder.add((token,)) if note.shown else "" for token in tokens]
            yield TokenEvent(
                branch=note.branch,
                path=watched.path,
                tokens=tokens,
                text="".join(texts),
                forced=not note.sampled,
                rule=rule,
                label=watched.label,
                logprobs=(note.logprob,) * len(tokens) if self.logprobs else (),
                answer="".join(map(self._answer.add, states, texts)) if note.branch == ROOT else "",
            )

    def _incomplete(self) -> Iterator[TokenEvent]:
        """What the branches leave of characters that will not be completed."""
        for number, watched in self._branches.items():
            rest = watched.decoder.end()
            if rest:
                yield TokenEvent(number, watched.path, (), rest, False, label=watched.label)
