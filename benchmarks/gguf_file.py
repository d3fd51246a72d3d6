"""Reads a GGUF file, version 3 (the format of ggml, specified in its docs/gguf.md): its fields, and
its tensors as float32 arrays.

Only what the models of our tests need: tensors in F32, F16, Q8_0 and Q4_1. Non-goals: writing,
other quantizations, big-endian files.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"GGUF"
BLOCK = 32  # weights in a quantized block
STRING, ARRAY = 8, 9
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


class GgufError(ValueError):
    """Not a GGUF file, or one with something that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies: `shape` with the slowest axis first, `start` in bytes of the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


class GgufFile:
    """The content of a GGUF file. `fields` holds its metadata by key: numbers, strings, lists."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        if content[:4] != MAGIC:
            raise GgufError("the content is not a GGUF file: it does not begin with `GGUF`")
        self._at = 4
        version, tensors, fields = self._unpack("IQQ")
        if version != 3:
            raise GgufError(f"the file is GGUF version {version}, only 3 can be read")
        self.fields: dict[str, object] = {self._string(): self._value() for _ in range(fields)}
        self.stored = self._directory(tensors)

    def number(self, key: str) -> float:
        value = self.fields[key]
        assert isinstance(value, int | float)
        return value

    def text(self, key: str) -> str:
        value = self.fields[key]
        assert isinstance(value, str)
        return value

    def entries(self, key: str) -> list[object]:
        value = self.fields[key]
        assert isinstance(value, list)
        return value

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The weights of a tensor, dequantized, in its shape."""
        where = self.stored[name]
        if where.kind not in _DECODERS:
            raise GgufError(f"the tensor {name} has type {where.kind}, which cannot be read")
        record, decode = _DECODERS[where.kind]
        count = math.prod(where.shape) // (1 if record.names is None else BLOCK)
        records = np.frombuffer(self._content, record, count, where.start)
        return decode(records).reshape(where.shape)

    def _directory(self, count: int) -> dict[str, Stored]:
        infos: list[tuple[str, tuple[int, ...], int, int]] = []
        for _ in range(count):
            name = self._string()
            (axes,) = self._unpack("I")
            shape = self._unpack(f"{axes}Q")[::-1]
            kind, offset = self._unpack("IQ")
            infos.append((name, shape, kind, offset))
        alignment = int(self.fields.get("general.alignment", 32))  # type: ignore[call-overload]
        base = -(-self._at // alignment) * alignment
        return {name: Stored(shape, kind, base + at) for name, shape, kind, at in infos}

    def _value(self) -> object:
        (kind,) = self._unpack("I")
        if kind != ARRAY:
            return self._scalar(kind)
        kind, count = self._unpack("IQ")
        return [self._scalar(kind) for _ in range(count)]

    def _scalar(self, kind: int) -> object:
        if kind == STRING:
            return self._string()
        if kind not in SCALARS:
            raise GgufError(f"a field has type {kind}, which cannot be read")
        return self._unpack(SCALARS[kind])[0]

    def _string(self) -> str:
        (length,) = self._unpack("Q")
        self._at += length
        return self._content[self._at - length : self._at].decode()

    def _unpack(self, kinds: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{kinds}", self._content, self._at)
        self._at += struct.calcsize(f"<{kinds}")
        return values


def _plain(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _q8_0(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    scale: NDArray[np.float32] = blocks["scale"].astype(np.float32)[:, None]
    return scale * blocks["values"].astype(np.float32)


def _q4_1(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """The low halves of a block's bytes are its first 16 weights, the high ones the others."""
    halves = [blocks["values"] & 15, blocks["values"] >> 4]
    values: NDArray[np.float32] = np.concatenate(halves, axis=1).astype(np.float32)
    scale: NDArray[np.float32] = blocks["scale"].astype(np.float32)[:, None]
    least: NDArray[np.float32] = blocks["least"].astype(np.float32)[:, None]
    return scale * values + least


_DECODERS: dict[int, tuple[np.dtype[Any], Callable[..., NDArray[np.float32]]]] = {
    0: (np.dtype("<f4"), _plain),
    1: (np.dtype("<f2"), _plain),
    3: (np.dtype([("scale", "<f2"), ("least", "<f2"), ("values", "u1", (16,))]), _q4_1),
    8: (np.dtype([("scale", "<f2"), ("values", "i1", (32,))]), _q8_0),
}
