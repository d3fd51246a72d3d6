"""Masks: which tokens are allowed, one bit for each token of the vocabulary.

A mask is int32 [ceil(V/32)], as inference engines take it: bit i%32 of word i//32 is token i.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.int32]


def pack(allowed: NDArray[np.bool_], width: int) -> Mask:
    """The mask of `width` words that allows the tokens of `allowed`, bool [V]."""
    packed = np.packbits(allowed, bitorder="little")
    mask = np.zeros(width * 4, np.uint8)
    mask[: len(packed)] = packed
    return mask.view(np.int32)


def unpack(mask: Mask, size: int) -> NDArray[np.bool_]:
    """bool [size]: whether `mask` allows each of the first `size` tokens."""
    return np.unpackbits(mask.view(np.uint8), count=size, bitorder="little").view(np.bool_)


def allows(mask: Mask, token: int) -> bool:
    """Whether `mask` allows `token`; False for one beyond its last word."""
    word, bit = divmod(token, 32)
    return word < len(mask) and bool(int(mask[word]) >> bit & 1)


def set_bit(mask: Mask, token: int) -> None:
    """Allow `token`, in place."""
    mask.view(np.uint32)[token >> 5] |= np.uint32(1 << (token & 31))


def clear_bit(mask: Mask, token: int) -> None:
    """Forbid `token`, in place."""
    mask.view(np.uint32)[token >> 5] &= np.uint32(~(1 << (token & 31)) & 0xFFFFFFFF)


def set_bits(mask: Mask, tokens: NDArray[np.integer]) -> None:
    """Allow all of `tokens`, in place."""
    np.bitwise_or.at(
        mask.view(np.uint32), tokens >> 5, np.uint32(1) << (tokens & 31).astype(np.uint32)
    )
