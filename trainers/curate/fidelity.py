"""How far a rewritten chain is from the original: normalised edit distance (arXiv 2506.09991)."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein


def distance(original: str, rewritten: str) -> float:
    """Edits for each character of the longer text, from 0 (equal) to 1; white space counts as one
    blank."""
    return Levenshtein.normalized_distance(" ".join(original.split()), " ".join(rewritten.split()))
