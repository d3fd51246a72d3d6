"""One plain answer while it is written: what of its text may be told, and where a stop ends it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nprdsl.runtime.results import Completion
from nprdsl.structure.events import EndReason, TokenEvent
from nprdsl.trace.answer_stream import overlap


@dataclass(slots=True)
class WrittenAnswer:
    """The answer to the prompt of that number.

    `add` and `end` give what of the text is new. What might be the beginning of one of the `stops`
    is held back; once one of them has come, `finish` is "stop" and nothing more is told.
    """

    prompt: int
    stops: tuple[str, ...]
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    finish: str = ""
    prompt_tokens: int = 0
    lead: str = ""  # the prompt, where it is part of the answer
    _held: str = ""
    _told: int = 0

    def add(self, event: TokenEvent) -> str:
        """Tokens were written."""
        self.tokens += event.tokens
        self.logprobs += event.logprobs
        return self._tell(self._held + event.text)

    def end(self, completion: Completion) -> str:
        """It is over."""
        self.prompt_tokens = len(completion.prompt_ids)
        rest, self._held = self._held, ""
        if not self.finish:
            self.finish = "length" if completion.finish is EndReason.BUDGET else "stop"
        self.text += rest
        return rest

    def untold(self) -> slice:
        """The tokens since the last call."""
        first, self._told = self._told, len(self.tokens)
        return slice(first, self._told)

    def _tell(self, text: str) -> str:
        found = [at for at in (text.find(stop) for stop in self.stops) if at >= 0]
        if found:
            self.finish, self._held = "stop", ""
            new = text[: min(found)]
        else:
            held = max((overlap(text, stop) for stop in self.stops), default=0)
            new, self._held = text[: len(text) - held], text[len(text) - held :]
        self.text += new
        return new
