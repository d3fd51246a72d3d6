"""The keys of each segment are what its entries see; a layout exports them by TRL's names."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nprdsl.trace.segment_keys import SegmentKeys, segment_keys
from tests.trainers.traces import SCHEMAS, bound, trace


def mask(keys: SegmentKeys) -> np.ndarray:
    """What the keys say, as a mask: causal among a segment's own, which come last."""
    length = int(keys.query_ends[-1])
    seen = np.zeros((length, length), dtype=bool)
    spans = zip(pairwise(keys.query_ends), pairwise(keys.key_ends), strict=True)
    for (begin, end), (first, last) in spans:
        entries = keys.entries[first:last]
        for query in range(begin, end):
            seen[query, entries[: len(entries) - (end - 1 - query)]] = True
    return seen


@pytest.mark.parametrize(("name", "seed"), [(n, s) for n in SCHEMAS for s in range(3)])
def test_keys_are_what_entries_see(name: str, seed: int) -> None:
    row = trace(name, seed)
    keys = segment_keys(row.mirror, row.until, row.segment)
    assert (mask(keys) == row.visible()).all()
    assert keys.longest_query == max(np.bincount(row.segment))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_layout_by_the_names_of_trl(name: str) -> None:
    row = trace(name, 3)
    layout = (
        bound(name)
        .parse(row.ids[np.unique(row.token, return_index=True)[1]].tolist(), prompt=7)
        .layout
    )
    exported = layout.to_trl()
    assert list(exported) == [
        "position_ids", "tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k",
        "tree_max_seqlens",
    ]  # fmt: skip
    keys = SegmentKeys(
        exported["tree_kv_index"], exported["tree_cu_seqlens_q"], exported["tree_cu_seqlens_k"]
    )
    assert (mask(keys) == layout.visible()).all()
    assert exported["position_ids"].tolist() == layout.position.tolist()
    assert exported["tree_max_seqlens"].tolist() == [keys.longest_query, keys.longest_key]
