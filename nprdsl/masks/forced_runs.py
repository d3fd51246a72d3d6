"""Runs without a choice: the tokens that must come next, to be emitted without asking the model.

A run ends where there is a choice, where branches begin, and where a branch or the trace is
complete. It is spelled as the model's tokenizer would, as long as that takes no more tokens than
were reserved for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nprdsl.masks.automaton import Automaton, TokenState
from nprdsl.masks.fields import FieldState
from nprdsl.structure.tag_machine import END


def forced_run(automaton: Automaton, state: TokenState) -> tuple[int, ...]:
    """The forced tokens from `state`, possibly none. A field that captures values is never forced
    past its tag: the values are read when they are complete."""
    if state.forced is None:
        state.forced = _forced_run(automaton, state)
    return state.forced


def _forced_run(automaton: Automaton, state: TokenState) -> tuple[int, ...]:
    tokens: list[int] = []
    while state.structure.fork is None and not state.structure.finished:
        if state.field.text_state is not None:  # free text may always go on
            break
        run, behind = _forced_bytes(automaton, state)
        only_tag = _only_tag(behind)
        if only_tag is None:
            tokens += _affordable(automaton, state, run)
            break
        tag, missing = only_tag
        tokens += _with_tag(automaton, run, tag, missing)
        if state.structure.arcs[tag].captures:
            break
        state = automaton.enter(state.structure.after(tag))
    return tuple(tokens)


@dataclass(frozen=True, slots=True)
class _ForcedBytes:
    """Forced bytes: `tokens`, which stand for `head`, and `tail`, which may still be spelled."""

    head: bytes
    tokens: tuple[int, ...]
    tail: bytes


def _forced_bytes(automaton: Automaton, state: TokenState) -> tuple[_ForcedBytes, FieldState]:
    """What must come next before a tag or a choice, and the field state behind it."""
    head, tail, here = b"", b"", state.field
    tokens: tuple[int, ...] = ()
    while not _in_tag(here):
        dictated = _dictated(here)
        if dictated:
            data = b"".join(map(automaton.vocabulary.bytes_of, dictated))
            tokens += (*_spelled(automaton, tail, automaton.spelling.tokens(tail)), *dictated)
            head, tail = head + tail + data, b""
            behind = automaton.fields.walk(here, data)
            assert isinstance(behind, FieldState), "no tag is in what must stand here"
            here = behind
            continue
        byte = _only_byte(here)
        if byte is None or automaton.table.tag_tokens(here):
            break
        after = automaton.fields.step(here, byte)
        if not isinstance(after, FieldState) or _in_tag(after):
            break
        tail += bytes((byte,))
        here = after
    return _ForcedBytes(head, tokens, tail), here


def _only_byte(state: FieldState) -> int | None:
    """The byte that alone may come next."""
    following: set[int] = set()
    for rest, progress in state.cursors:
        following |= rest.next_bytes(progress)
        if len(following) > 1:
            return None
    return following.pop() if following else None


def _dictated(state: FieldState) -> tuple[int, ...]:
    """The tokens of a repeated text, where it alone may come next."""
    if len(state.cursors) != 1:
        return ()
    ((rest, progress),) = state.cursors
    return rest.part.dictated(progress)


def _in_tag(state: FieldState) -> bool:
    return any(rest.is_tag and progress for rest, progress in state.cursors)


def _only_tag(state: FieldState) -> tuple[str, bytes] | None:
    """The tag that alone may come next here, and what is missing of its spelling."""
    tags = set()
    for rest, progress in state.cursors:
        if rest.is_tag:
            tags.add((rest.tag, rest.tag.encode()[progress:]))
        elif rest.next_bytes(progress):  # else a whole value that cannot go on
            return None
    if len(tags) != 1:
        return None
    (only,) = tags
    return only if only[0] != END else None


def _with_tag(automaton: Automaton, run: _ForcedBytes, tag: str, missing: bytes) -> tuple[int, ...]:
    cost = automaton.spelling.tokens
    token = automaton.tag_tokens.get(tag)
    if token is not None:
        return (*run.tokens, *_spelled(automaton, run.tail, cost(run.tail)), token)
    reserved = cost(run.tail) + cost(missing)
    return (*run.tokens, *_spelled(automaton, run.tail + missing, reserved))


def _affordable(automaton: Automaton, state: TokenState, run: _ForcedBytes) -> tuple[int, ...]:
    """The longest part of a run before a choice that leaves enough tokens for every way to end: a
    value may be cheaper to spell whole than in two parts."""
    fields, before = automaton.fields, automaton.fields.costs(state.field)
    for length in range(len(run.tail), -1, -1):
        spelled = automaton.vocabulary.spell(run.tail[:length])
        behind = fields.walk(state.field, run.head + run.tail[:length])
        if spelled is None or not isinstance(behind, FieldState):
            continue
        after, count = fields.costs(behind), len(run.tokens) + len(spelled)
        if all(cost + count <= before[tag] for tag, cost in after.items()):
            return (*run.tokens, *_spelled(automaton, run.tail[:length], len(spelled)))
    return ()


def _spelled(automaton: Automaton, data: bytes, reserved: int) -> tuple[int, ...]:
    """The tokenizer's own spelling if it needs no more tokens than are reserved, else the
    shortest."""
    if not data:
        return ()
    try:
        own = automaton.vocabulary.encode(data.decode())
    except UnicodeDecodeError:  # a token has spelled the beginning of a character
        own = None
    if own is not None and len(own) <= reserved:
        return own
    spelled = automaton.vocabulary.spell(data)
    assert spelled is not None, "checked when the schema was bound"
    return spelled
