"""Turns prompts into token ids, such that nothing a user writes can become structure.

Where a prompt spells a tag, the text is cut inside the spelling before it is tokenized: the model
reads the tag as text, never as the special token. In a chat the same holds for every special token
that a message spells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from nprdsl.prompting.examples import (
    Example,
    ExampleChoice,
    Examples,
    of_other_topics,
    rule,
    with_examples,
)
from nprdsl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from nprdsl.schema import Schema

ChatMessage = Mapping[str, str]
Ids = tuple[int, ...]
Prompt = str | Sequence[int] | Sequence[ChatMessage]

_PRIVATE_USE = range(0xE000, 0xF900)
_NO_PROMPTS: Final[Sequence[tuple[type | tuple[type, ...], str]]] = (
    (Mapping, "one message stands in a list too: [{…}]"),
    ((bytes, bytearray), "`.decode()` makes a text of bytes"),
    ((Iterator, Set), "`list(…)` makes a list of what can be gone through"),
    (object, "`.tolist()` makes a list of an array"),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A message, and the special tokens that it may spell."""

    message: ChatMessage
    tags: frozenset[str] = frozenset()


class PromptError(ValueError):
    """A prompt that cannot become tokens of this model."""


class PromptEncoder:
    """Text, chats and ids to ids, by the model's tokenizer, or by its vocabulary where it has
    none."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    @property
    def chats(self) -> bool:
        """The tokenizer has a chat template."""
        return self._tokenizer is not None and self._tokenizer.chat_template is not None

    def read(
        self,
        schema: Schema,
        prompt: Prompt,
        *,
        chat: bool = False,
        instructions: bool = False,
        examples: Examples = ExampleChoice.OWN,
    ) -> Ids:
        """Any prompt: text, messages, or token ids. `chat` puts a text into the chat template,
        `instructions` shows the format before it: a short rule and `examples` as earlier turns, or
        the format in words where there are none.

        Raises PromptError for what is no prompt, and where ids are to be changed.
        """
        _check_kind(prompt)
        shown = _shown(schema, prompt, examples) if instructions else []
        if shown and not isinstance(prompt, str) and prompt and isinstance(prompt[0], Mapping):
            return self.chat(cast(Sequence[ChatMessage], prompt), earlier=_turns(schema, shown))
        if shown and isinstance(prompt, str):
            if not chat:
                lead = with_examples(schema.grammar, shown)
                return self.text(f"{prompt}\n\n", schema.tags, lead)
            return self.chat([_asked(prompt)], earlier=_turns(schema, shown))
        lead = f"{schema.prompt()}\n" if instructions else ""
        if isinstance(prompt, str):
            if not chat:
                return self.text(lead + prompt, schema.tags)
            prompt = [_asked(prompt)]
        if not prompt or not isinstance(prompt[0], Mapping):
            if chat or instructions:
                raise PromptError(
                    "a prompt of token ids is taken as it is: no chat, no instructions"
                )
            return self.ids(cast(Sequence[int], prompt))
        return self.chat(cast(Sequence[ChatMessage], prompt), lead)

    def plain(self, prompt: Prompt) -> Ids:
        """A prompt of a request without a schema: text as it is, messages, or token ids. Raises
        PromptError."""
        _check_kind(prompt)
        if isinstance(prompt, str):
            return self.text(prompt, ())
        if prompt and isinstance(prompt[0], Mapping):
            return self.chat(cast(Sequence[ChatMessage], prompt))
        return self.ids(cast(Sequence[int], prompt))

    def ids(self, ids: Sequence[int]) -> Ids:
        """A prompt that is tokens already."""
        size = self._vocabulary.size
        if ids and isinstance(ids[0], Sequence):
            raise PromptError(
                "this is a list of prompts, and one prompt is taken here; `generate` takes a list"
            )
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, Integral):
                raise PromptError(f"the prompt has the token {token!r}; token ids are integers")
            if not 0 <= token < size:
                raise PromptError(
                    f"the prompt has token {token}; the model's ids are 0 to {size - 1}"
                )
        return _not_empty(tuple(map(int, ids)))

    def text(self, text: str, tags: Iterable[str], lead: str = "") -> Ids:
        """Text as it is. What spells one of the tags stays text; other special tokens may be
        spelled on purpose. In the `lead` before it tags are tags."""
        if self._tokenizer is None:
            return _not_empty(self._vocabulary.encode(lead + text))
        tokens = self._vocabulary.tag_tokens(tags)
        separator = _unused_character(lead + text)
        before = _apart(lead, tags, separator) if lead else ""
        ids = self._encode(before + _separate(text, tokens, separator), separator, text)
        prefix = self._prefix()
        return _not_empty(ids if ids[: len(prefix)] == prefix else prefix + ids)

    def chat(
        self, messages: Sequence[ChatMessage], lead: str = "", earlier: Sequence[Turn] = ()
    ) -> Ids:
        """Messages by the tokenizer's chat template, up to where the assistant begins.

        `lead` is put before the first message of the user; `earlier` turns stand before all but the
        system's messages, and their tags are tags.
        """
        tokenizer = self._tokenizer
        if tokenizer is None or tokenizer.chat_template is None:
            raise PromptError(
                "the tokenizer has no chat template; give the prompt as text, or set "
                "tokenizer.chat_template"
            )
        for message in messages:
            _check_message(message)
        if lead:
            messages = _with_lead(messages, lead)
        first = next((i for i, m in enumerate(messages) if m["role"] != "system"), 0)
        turns = [Turn(message) for message in messages]
        turns[first:first] = earlier
        separator = _unused_character("".join(turn.message["content"] for turn in turns))
        special = {*tokenizer.added_tokens_encoder, *self._vocabulary.special}
        safe = []
        for turn in turns:
            content = _separate(turn.message["content"], special - turn.tags, separator)
            safe.append({**turn.message, "content": _apart(content, turn.tags, separator)})
        rendered = _rendered(tokenizer, safe)
        written = "\n".join(message["content"] for message in messages)
        return _not_empty(self._encode(rendered, separator, written))

    def _encode(self, text: str, separator: str, written: str) -> Ids:
        """Ids of a text whose pieces between separators are tokenized one by one; `written` is the
        part of it that is the user's."""
        ids: list[int] = []
        for piece in filter(None, text.split(separator)):
            ids += self._encode_piece(piece, written)
        return tuple(ids)

    def _encode_piece(self, piece: str, written: str) -> list[int]:
        """A tokenizer without an unknown token drops what it cannot spell: refused, but for white
        space."""
        assert self._tokenizer is not None
        encoded = self._tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        covered = [False] * len(piece)
        for first, last in encoded["offset_mapping"]:
            covered[first:last] = [True] * (last - first)
        if all(covered):
            return ids
        # Offsets behind a dropped character are wrong, so it is looked for by itself.
        for c in dict.fromkeys(self._without_special(piece)):
            if not c.isspace() and not self._tokenizer(c, add_special_tokens=False).input_ids:
                lacks = f"the vocabulary has no token for {c!r} (U+{ord(c):04X}) of the"
                if c not in written:
                    raise PromptError(f"{lacks} chat template; set tokenizer.chat_template")
                shown = written if len(written) <= 60 else f"{written[:57]}..."
                raise PromptError(f"{lacks} prompt {shown!r}; write the prompt without it")
        return ids

    def _without_special(self, piece: str) -> str:
        """A piece without its special tokens, whose characters need no tokens of their own."""
        assert self._tokenizer is not None
        pattern = _any_of(self._tokenizer.added_tokens_encoder)
        return re.sub(pattern, "", piece) if pattern else piece

    def _prefix(self) -> Ids:
        """What the tokenizer puts before every text: most often nothing, or its BOS token."""
        assert self._tokenizer is not None
        ids: list[int] = self._tokenizer("").input_ids
        ends = [i for i, token in enumerate(ids) if token == self._tokenizer.eos_token_id]
        same = self._tokenizer.bos_token_id == self._tokenizer.eos_token_id
        return tuple(ids[: ends[-1]] if ends and not same else ids)


def is_single(prompt: object) -> TypeGuard[Prompt]:
    """One prompt: a text, ids, or messages; not a list of those. Raises PromptError for what is
    neither."""
    _check_kind(prompt)
    if isinstance(prompt, str):
        return True
    first = next(iter(cast(Sequence[object], prompt)), "")
    return not isinstance(first, (str, Sequence)) or isinstance(first, (bytes, bytearray))


def _check_kind(prompt: object) -> None:
    """Raises PromptError for what is no text and no list, and for a text that is no Unicode."""
    if isinstance(prompt, str):
        _check_unicode(prompt)
    elif not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
        hints = [hint for kinds, hint in _NO_PROMPTS if isinstance(prompt, kinds)]
        raise PromptError(
            "a prompt is a text, a list of token ids, or a list of messages, not "
            f"{type(prompt).__name__}; {hints[0]}"
        )


def _check_message(message: object) -> None:
    """Raises PromptError for what is no message of texts."""
    shape = 'a message is {"role": "user", "content": "…"}'
    if not isinstance(message, Mapping):
        raise PromptError(f"{shape}, not {message!r}")
    for name in ("role", "content"):
        if name not in message:
            raise PromptError(f"{shape}, not {dict(message)!r}")
        if not isinstance(message[name], str):
            kind = type(message[name]).__name__
            raise PromptError(f"{shape}; the `{name}` of this one is no text but {kind}")
        _check_unicode(message[name])


def _check_unicode(text: str) -> None:
    """Raises PromptError for half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"character {error.start} of the prompt is {text[error.start]!r}, half of a surrogate "
            "pair: the text was decoded wrongly, or cut inside an escape"
        ) from None


def _rendered(tokenizer: PreTrainedTokenizerFast, messages: Sequence[ChatMessage]) -> str:
    """The messages in the tokenizer's chat template. Raises PromptError where it refuses them, or
    has no place for them.

    Templates of models that see images want the parts of a content; where one drops the text of the
    last message, it is given so.
    """
    last = messages[-1]["content"].strip()
    plain = _in_template(tokenizer, messages)
    if isinstance(plain, str) and last in plain:
        return plain
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    in_parts = _in_template(tokenizer, parts)
    if isinstance(in_parts, str) and last in in_parts:
        return in_parts
    if isinstance(plain, PromptError):
        raise plain
    if not plain:
        raise PromptError("the chat template leaves the messages out; give the prompt as text")
    return plain


def _in_template(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, Any]]
) -> str | PromptError:
    """A template is a program, which may fail in many ways."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        return PromptError(f"the chat template does not take these messages: {reason}")
    assert isinstance(text, str)
    return text


def _asked(prompt: str) -> ChatMessage:
    return {"role": "user", "content": prompt}


def _shown(schema: Schema, prompt: Prompt, examples: Examples) -> Sequence[Example]:
    """The examples that a prompt is to have before it."""
    if not isinstance(examples, ExampleChoice):
        return examples
    return of_other_topics(schema.examples, _words(prompt))


def _words(prompt: Prompt) -> str:
    """What a prompt asks, as far as it is text."""
    if isinstance(prompt, str):
        return prompt
    return " ".join(str(m.get("content", "")) for m in prompt if isinstance(m, Mapping))


def _turns(schema: Schema, examples: Sequence[Example]) -> list[Turn]:
    """The rule and the examples as turns of a chat."""
    turns: list[Turn] = []
    lead = f"{rule(schema.grammar)}\n\n"
    for example in examples:
        turns.append(Turn(_asked(lead + example.question)))
        answer = {"role": "assistant", "content": example.trace}
        turns.append(Turn(answer, frozenset(schema.tags)))
        lead = ""
    return turns


def _with_lead(messages: Sequence[ChatMessage], lead: str) -> list[ChatMessage]:
    first = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
    if first is None:
        raise PromptError('instructions need a message with "role": "user" to stand in')
    message = {**messages[first], "content": lead + messages[first]["content"]}
    return [*messages[:first], message, *messages[first + 1 :]]


def _separate(text: str, spellings: Iterable[str], separator: str) -> str:
    """Puts the separator behind the first character of every spelling, overlapping ones too."""
    pattern = _any_of(spelling for spelling in spellings if len(spelling) > 1)
    if not pattern:
        return text
    inside = [match.start() + 1 for match in re.finditer(f"(?=({pattern}))", text)]
    return separator.join(text[a:b] for a, b in pairwise([0, *inside, len(text)]))


def _apart(text: str, tags: Iterable[str], separator: str) -> str:
    """Puts the separator on both sides of every tag: in a trace, tokens end where tags do."""
    pattern = _any_of(tags)
    return re.sub(pattern, rf"{separator}\g<0>{separator}", text) if pattern else text


def _any_of(spellings: Iterable[str]) -> str:
    """A regular expression for the longest of the spellings; "" without any."""
    return "|".join(map(re.escape, sorted(set(spellings), key=len, reverse=True)))


def _unused_character(text: str) -> str:
    """A private-use character that the text does not have."""
    return next(chr(point) for point in _PRIVATE_USE if chr(point) not in text)


def _not_empty(ids: Ids) -> Ids:
    if not ids:
        raise PromptError("the prompt is empty; the model needs one token at least to go on from")
    return ids
