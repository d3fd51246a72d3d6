"""The values of a field that a branch repeats, and the tokens by which it repeats them."""

from __future__ import annotations

from nprdsl.grammar.ir import TerminalKind
from nprdsl.masks.parts import TagMode
from nprdsl.masks.states import Begun
from nprdsl.structure.field_content import ArcContent
from nprdsl.structure.stack import BoundValue, Capture
from nprdsl.structure.tag_machine import Arc
from nprdsl.tokens.vocabulary import Vocabulary


class Capturing:
    """Reads the tokens of complete fields."""

    def __init__(self, vocabulary: Vocabulary, mode: TagMode) -> None:
        self._vocabulary = vocabulary
        self._mode = mode
        self._contents: dict[Arc, ArcContent] = {}

    def values(self, arc: Arc, field: Begun, inside: bytes, tag: str) -> tuple[BoundValue, ...]:
        """The values that the field holds; `inside` are the bytes of the token that completes the
        tag, up to the tag's end."""
        data = field.head + b"".join(map(self._vocabulary.bytes_of, field.tokens)) + inside
        if self._mode is TagMode.TEXT:
            data = data.removesuffix(tag.encode())
        content = self._contents.get(arc)
        if content is None:
            content = self._contents[arc] = ArcContent(arc.fields)
        values = content.captured(data.decode())
        captures = [symbol for symbol in arc.fields[0] if isinstance(symbol, Capture)]
        return tuple(
            BoundValue(value.text, self._repeat(value.text, symbol, field.tokens))
            for value, symbol in zip(values, captures, strict=True)
        )

    def _repeat(self, text: str, symbol: Capture, field: tuple[int, ...]) -> tuple[int, ...]:
        """The model's own tokens for free text, which begins and ends between tokens; the fewest
        that spell it for a label."""
        data = text.encode()
        if symbol.field.terminal.kind is TerminalKind.TEXT:
            for first in range(len(field)):
                tail = field[first:]
                if b"".join(map(self._vocabulary.bytes_of, tail)).startswith(data):
                    return self._covering(tail, len(data))
        spelled = self._vocabulary.spell(data)
        assert spelled is not None, "the model has just spelled it"
        return spelled

    def _covering(self, tokens: tuple[int, ...], length: int) -> tuple[int, ...]:
        """The first tokens that hold `length` bytes."""
        for count, token in enumerate(tokens, 1):
            length -= len(self._vocabulary.bytes_of(token))
            if length <= 0:
                return tokens[:count]
        return tokens
