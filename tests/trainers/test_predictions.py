"""Rows of one label for each entry: others see what they saw, and copies see what they copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nprdsl.trace.segment_keys import segment_keys
from nprdsl.trainers.attention.segments import plan
from nprdsl.trainers.batch.predictions import IGNORED, prediction_row
from nprdsl.trainers.batch.scoring import predictors, score
from nprdsl.trainers.batch.training_rows import TrainingRow, last_seen, pack
from tests.runtime.tiny_models import model as tiny
from tests.test_segment_keys import mask
from tests.trainers.traces import SCHEMAS, bound, trace

CASES = [(name, seed) for name in SCHEMAS for seed in range(2)]


def written(row: TrainingRow) -> TrainingRow:
    """The row in which all that has something before it is sampled: forks then predict twice."""
    sampled = last_seen(row) >= 0
    count = int(sampled.sum())
    return replace(row, sampled=sampled, weights=np.ones(count), logprobs=np.zeros(count))


def packed(name: str, seed: int) -> TrainingRow:
    return written(pack([trace(name, seed), trace(name, seed + 11)]))


def test_some_forks_predict_several_tokens() -> None:
    counts = [np.bincount(predictors(packed(*case))).max() for case in CASES]
    assert max(counts) > 2


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_mask_of_copies(name: str, seed: int) -> None:
    row = packed(name, seed)
    made = prediction_row(row)
    seen, before = made.row.visible(), row.visible()
    source = predictors(row)
    own = np.flatnonzero(np.isin(np.arange(len(made.row)), originals(row)))
    assert (seen[np.ix_(own, own)] == before).all()
    assert (made.row.ids[made.predicting] == row.ids[source]).all()
    assert (made.row.position[made.predicting] == row.position[source]).all()
    for entry, copied in zip(made.predicting.tolist(), source.tolist(), strict=True):
        wanted = before[copied].copy()
        wanted[copied] = False
        if entry not in own:
            assert np.flatnonzero(seen[:, entry]).tolist() == [entry]
            line = seen[entry].copy()
            line[entry] = False
            assert line[own].tolist() == wanted.tolist()
            assert line.sum() == wanted.sum()


def originals(row: TrainingRow) -> list[int]:
    """Where entries go, counted plainly."""
    sources = predictors(row).tolist()
    at, places = 0, []
    for entry in range(len(row)):
        places.append(at)
        at += max(1, sources.count(entry))
    return places


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_segments_of_copies_are_seen_alike(name: str, seed: int) -> None:
    row = prediction_row(packed(name, seed)).row
    keys = segment_keys(row.mirror, row.until, row.segment)
    assert (mask(keys) == row.visible()).all()
    assert torch.cat([group.keys() for group in plan(row)]).tolist() == keys.entries.tolist()


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_labels_are_the_sampled_tokens(name: str, seed: int) -> None:
    row = packed(name, seed)
    made = prediction_row(row)
    assert len(set(made.predicting.tolist())) == row.tokens
    assert made.labels[made.predicting].tolist() == row.ids[row.sampled].tolist()
    assert int((made.labels != IGNORED).sum()) == row.tokens
    assert (made.row.sampled.sum(), made.labels[-1]) == (row.tokens, IGNORED)


@pytest.mark.parametrize(("name", "seed"), [("npr", 1), ("multiverse", 1)])
def test_labels_are_scored_alike(name: str, seed: int) -> None:
    row = packed(name, seed)
    made = prediction_row(row)
    model = tiny("llama", bound(name).vocabulary.size)
    with torch.no_grad():
        wanted = score(model, [row])
        logits = model(
            input_ids=torch.from_numpy(made.row.ids)[None].long(),
            position_ids=torch.from_numpy(made.row.position)[None].long(),
            attention_mask=torch.from_numpy(made.row.visible())[None, None],
        ).logits[0, made.predicting]
    found = logits.log_softmax(-1)[torch.arange(row.tokens), made.labels[made.predicting]]
    assert torch.allclose(found, wanted, atol=1e-5)
