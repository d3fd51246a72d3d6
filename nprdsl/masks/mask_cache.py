"""Masks kept on disk: a schema bound again to the same vocabulary starts with its masks ready.

One file for each vocabulary and set of tags; rows are found by what their field state is,
so that schemas which share tags share rows. Writing is atomic; a file that cannot be read is
ignored and written anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.field_rests import FieldRest
from nprdsl.masks.fields import FieldState
from nprdsl.masks.mask_rows import Crossing, FieldRow, MaskTable
from nprdsl.tokens.bitmask import Mask
from nprdsl.trace.journal import replacing

VERSION: Final = 4
_MAGIC: Final = b"NPRROWS1"
CrossingKey = tuple[
    FieldState, tuple[tuple[str, FieldState], ...]
]  # a state, and what follows each tag


class StoredCrossings(Mapping[str, tuple[Crossing, ...]]):
    """The crossings of a row by tag, read when asked for: seldom, as the rows behind them are on
    disk too."""

    def __init__(self, encoded: dict[str, str]) -> None:
        self._encoded = encoded

    def __getitem__(self, tag: str) -> tuple[Crossing, ...]:
        pairs = json.loads(self._encoded[tag])
        return tuple(Crossing(token, tag, bytes.fromhex(rest)) for token, rest in pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)


def _encoded(crossings: tuple[Crossing, ...]) -> str:
    return json.dumps([(c.token, c.rest.hex()) for c in crossings])


class MaskCache:
    """The rows of one `MaskTable` in a file of a folder."""

    def __init__(self, folder: Path, rows: MaskTable, tags: tuple[str, ...]) -> None:
        self._rows = rows
        tokens = rows.machine.tag_tokens
        name = hashlib.sha256(
            repr((VERSION, rows.vocabulary.digest, tags, sorted(tokens.items()))).encode()
        ).hexdigest()
        self._file = folder / f"rows-{name[:32]}.bin"
        self._names: dict[FieldRest, str] = {}
        self._known: dict[str, int] = {}
        self._bits = np.zeros((0, rows.width), np.int32)
        self._crossings: dict[str, dict[str, str]] = {}
        self._load()

    def find(self, state: FieldState) -> FieldRow | None:
        """The row of a field state, if it is on disk."""
        if not self._known:
            return None
        key = self._key(state)
        at = self._known.get(key)
        if at is None:
            return None
        bits = self._rows.intern(self._bits[at])
        return FieldRow(bits, StoredCrossings(self._crossings.get(key, {})))

    def find_crossed(self, key: CrossingKey) -> Mask | None:
        """The row of a state whose tokens may run past a tag, if it is on disk."""
        at = self._known.get(self._crossing_name(key)) if self._known else None
        return None if at is None else self._rows.intern(self._bits[at])

    def save(
        self, computed: Mapping[FieldState, FieldRow], crossed: Mapping[CrossingKey, Mask]
    ) -> int:
        """Add rows to the file; returns how many are new."""
        rows = {self._key(state): row.bits for state, row in computed.items()}
        rows |= {self._crossing_name(key): bits for key, bits in crossed.items()}
        new = {key: bits for key, bits in rows.items() if key not in self._known}
        if not new:
            return 0
        keys = [*self._known, *new]
        bits = np.concatenate([self._bits, np.stack(list(new.values()))])
        crossings = dict(self._crossings)
        for state, row in computed.items():
            key = self._key(state)
            if row.crossings and key in new:
                crossings[key] = {tag: _encoded(group) for tag, group in row.crossings.items()}
        self._write(keys, bits, crossings)
        self._known = {key: at for at, key in enumerate(keys)}
        self._bits, self._crossings = bits, crossings
        return len(new)

    # the file

    def _load(self) -> None:
        """One read: magic, length of the index, index (JSON), rows."""
        try:
            stored = self._file.read_bytes()
        except OSError:
            return
        head = len(_MAGIC) + 8
        length = int.from_bytes(stored[len(_MAGIC) : head], "little")
        try:
            index = json.loads(stored[head : head + length])
            bits = np.frombuffer(stored, np.int32, offset=head + length)
            keys, crossings = index["keys"], index["crossings"]
        except (ValueError, KeyError, TypeError):
            return
        if stored[: len(_MAGIC)] == _MAGIC and bits.size == len(keys) * self._rows.width:
            self._known = {key: at for at, key in enumerate(keys)}
            self._crossings = crossings
            self._bits = bits.reshape(len(keys), self._rows.width)

    def _write(
        self,
        keys: list[str],
        bits: NDArray[np.int32],
        crossings: dict[str, dict[str, str]],
    ) -> None:
        index = json.dumps({"keys": keys, "crossings": crossings}).encode()
        index += b" " * (-len(index) % 4)  # rows begin at a multiple of their words
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file) as stream:
            stream.write(_MAGIC + len(index).to_bytes(8, "little") + index)
            stream.write(np.ascontiguousarray(bits).tobytes())

    # names of field states

    def _key(self, state: FieldState) -> str:
        cursors = sorted(f"{self._name(rest)}@{at!r}" for rest, at in state.cursors)
        return f"{state.node};{';'.join(cursors)}"

    def _crossing_name(self, key: CrossingKey) -> str:
        state, ways = key
        behind = "|".join(f"{tag}:{self._key(after)}" for tag, after in ways)
        return f"{self._key(state)}|{behind}"

    def _name(self, rest: FieldRest) -> str:
        name = self._names.get(rest)
        if name is None:
            behind = self._name(rest.rest) if rest.rest is not None else ""
            name = self._names[rest] = f"{rest.part.name}>{behind}"
        return name
