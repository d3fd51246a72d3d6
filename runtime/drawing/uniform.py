"""One uniform number a token, from (seed, branch path, position in the branch) alone.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) used as a counter-based generator: no state is
carried from draw to draw, so batch, order of branches and what else runs cannot change what a
branch draws.
"""

from __future__ import annotations

import hashlib

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def branch_key(seed: int, path: tuple[int, ...]) -> int:
    """64 bits that stand for one branch of one request."""
    text = f"{seed}:{','.join(map(str, path))}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniform(key: int, position: int) -> float:
    """In [0, 1), a multiple of 2**-48: times a total in float64 it stays below the total."""
    z = (key + (position + 1) * _GOLDEN) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return ((z ^ (z >> 31)) >> 16) * 2.0**-48
