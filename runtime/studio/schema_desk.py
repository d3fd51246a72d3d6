"""Asks processes about schemas, and replaces one where a question takes too long.

A question is answered by `schema_questions` in a process of its own, so that a text that is costly
to read keeps neither the page nor a run waiting. There are two, each with one question at a time:
what is drawn, which may take seconds, keeps nobody waiting who types, and yields the processors to
all else. An answer is passed on as it comes, as JSON. Of the questions of one kind
about the text that a page has waiting the last alone is asked: the text has changed since.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from nprdsl.grammar.terminal_types import TerminalType
from nprdsl.runtime.http.schema_compiler import DEADLINE_S, MEMORY
from nprdsl.runtime.studio.schema_questions import FILE, NO_TYPES, Ask, SchemaQuestion, packed
from nprdsl.tokens.vocabulary import Vocabulary

_LINE: Final = 1 << 26  # the longest answer, in bytes
_LATE: Final = (
    f'{{"late": "to read it takes more than {DEADLINE_S:g} s or {MEMORY >> 20:,} MB: make it '
    'smaller"}'
).encode()
_SKIPPED: Final = b'{"skipped": true}'
_YIELDING: Final = 10  # niceness


_FILES: Final = frozenset({Ask.ROWS, Ask.TRACE})  # each may be about another one
_DRAWN: Final = frozenset({Ask.VIEW, Ask.EXPORTS}) | _FILES


class SchemaDesk:
    """The two processes; made, used and closed in one event loop."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        name: str,
        *,
        file: str = FILE,
        types: Mapping[str, TerminalType] = NO_TYPES,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        first_line = packed(vocabulary, types)
        self._typed = _Clerk(first_line, (name, file), deadline_s, niceness=0)
        self._drawn = _Clerk(first_line, (name, file), deadline_s, niceness=_YIELDING)

    async def start(self) -> None:
        """Start both, so that nobody waits for it who asks."""
        await self._typed.alive()
        await self._drawn.alive()

    async def ask(self, question: SchemaQuestion) -> bytes:
        """The answer as JSON; `{"late": …}` where there is none within the bounds, and
        `{"skipped": true}`
        where another question of its kind came behind it."""
        return await (self._drawn if question.ask in _DRAWN else self._typed).ask(question)

    async def close(self) -> None:
        await self._typed.close()
        await self._drawn.close()


class _Clerk:
    """One process that answers."""

    def __init__(
        self, first_line: bytes, names: tuple[str, str], deadline_s: float, *, niceness: int
    ) -> None:
        self._niceness = niceness
        self._first_line = first_line
        self._names = names  # of the model and of the file
        self._deadline_s = deadline_s
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._newest: dict[tuple[str, Ask], object] = {}

    async def ask(self, question: SchemaQuestion) -> bytes:
        kind, mine = (question.page, question.ask), object()
        if question.ask not in _FILES:
            self._newest[kind] = mine
        async with self._turn:
            if self._newest.get(kind, mine) is not mine:
                return _SKIPPED
            self._newest.pop(kind, None)
            process = await self.alive()
            line: bytes | None = None
            try:
                line = await _asked(process, question)
            finally:
                if line is None:  # nobody waits for the answer, which would be taken for another's
                    await self.close()
            if line:
                return line
            await self.close()
            return _LATE

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def alive(self) -> Process:
        """The process, started where there is none."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "nprdsl.runtime.studio.schema_questions",
                str(self._deadline_s),
                str(MEMORY),
                *self._names,
                str(self._niceness),
                stdin=PIPE,
                stdout=PIPE,
                limit=_LINE,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            assert self._process.stdin is not None
            self._process.stdin.write(self._first_line)
        return self._process


async def _asked(process: Process, question: SchemaQuestion) -> bytes:
    """The line of the answer; empty where the process ends instead, or it is too long."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(question.model_dump_json().encode() + b"\n")
        await process.stdin.drain()
        return await process.stdout.readline()
    except (ConnectionError, ValueError):
        return b""
