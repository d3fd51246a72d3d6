"""New weights for a running server: as a whole or not at all, and who asks gets one version.

What a client writes and says is in `tests/runtime/test_sglang_weights.py`; two ranks are in
`test_ranks`.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nprdsl
from nprdsl.runtime import GenerationError, LocalEngine, Result, SGLangEngine
from nprdsl.runtime.sglang.client.transport import ServerError
from nprdsl.runtime.sglang.client.weights import WeightsError
from tests.sglang.cases import GREEDY, TOLERANCE
from tests.sglang.served import ANSWER, PROMPT

ARITH = nprdsl.load("arith")
Named = dict[str, Tensor]


@pytest.fixture
def own(engine: SGLangEngine, bundled: LocalEngine) -> Iterator[Named]:
    """The weights that the server began with; it has them again in the end."""
    named = bundled.model.state_dict()
    del named["lm_head.weight"]  # the embedding's
    yield named
    engine.weights.put(named.items())
    assert answer(engine).answer == ANSWER


def answer(engine: SGLangEngine) -> Result:
    return engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)


def test_weights_are_swapped_between_requests(
    engine: SGLangEngine, own: Named, tmp_path: Path
) -> None:
    before = answer(engine)
    changed = LocalEngine.from_pretrained("arith", dtype="fp32")
    for parameter in changed.model.parameters():
        parameter.data.mul_(1.05)
    changed.model.save_pretrained(tmp_path)
    theirs = changed.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    scaled = {name: 1.05 * tensor for name, tensor in own.items()}
    for step, send in enumerate(
        (
            lambda version: engine.weights.load(tmp_path, version=version),
            lambda version: engine.weights.put(scaled.items(), version=version, bucket=10**5),
        )
    ):
        assert send(f"step-{step}") == engine.weights.version == f"step-{step}"
        ours = answer(engine)
        assert ours.token_ids == theirs.token_ids
        for a, b in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert a == (b if b is None else pytest.approx(b, abs=TOLERANCE))
        assert ours.logprobs != before.logprobs
        assert engine.weights.put(own.items()) == engine.weights.version
        assert answer(engine).logprobs == before.logprobs


def test_weights_that_do_not_fit_are_refused(
    engine: SGLangEngine, own: Named, tmp_path: Path
) -> None:
    """The last of many, of which none is taken."""
    before, version, name = answer(engine), engine.weights.version, next(iter(own))
    wrong = {
        "nope.weight": (torch.zeros(3), "has no weight `nope.weight`"),
        name: (torch.zeros(3, 3), r"has the shape \(3, 3\)"),
    }
    for given, (tensor, told) in wrong.items():
        zeros = {other: 0 * weight for other, weight in own.items() if other != given}
        with pytest.raises(WeightsError, match=f"{told}.*the weights are as they were"):
            engine.weights.put([*zeros.items(), (given, tensor)], version="wrong")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\x10" + bytes(40))
    (tmp_path / "empty").mkdir()
    folders = {"nothing": "sees no folder", "cut": "cannot be read", "empty": "has no weights"}
    for folder, told in folders.items():
        with pytest.raises(WeightsError, match=f"{told}.*the weights are as they were"):
            engine.weights.load(tmp_path / folder)
    assert engine.weights.version == version
    assert answer(engine).logprobs == before.logprobs


def test_tensors_that_fail_in_the_middle_answer_nobody(engine: SGLangEngine, own: Named) -> None:
    """By SGLang's own updates, until all have come, in however many; what was refused before
    anything changed leaves a server that answers."""
    transport = engine.weights._transport

    def update(tensors: Named, **more: object) -> dict[str, object]:
        data = base64.b64encode(pickle.dumps([*tensors.items()])).decode()
        body = {"serialized_named_tensors": [data], "flush_cache": True, **more}
        try:
            return transport.post("/update_weights_from_tensor", body)
        except ServerError as error:
            return {"success": False, "message": str(error)}

    names = list(own)
    before = answer(engine)
    transport.post("/begin_weight_update", {})
    try:
        refused = update({"nope": torch.zeros(3)})
        assert not refused["success"] and "the weights are as they were" in str(refused["message"])
        assert answer(engine).logprobs == before.logprobs
        broken = {names[0]: 0 * own[names[0]], names[-1]: own[names[-1]].to("meta")}
        failed = update(broken)
        assert not failed["success"] and "the weights are mixed now" in str(failed["message"])
        assert engine.weights.version == "mixed"
        with pytest.raises(GenerationError, match="none of one version"):
            answer(engine)
        some = {name: own[name] for name in names[:3]}
        assert "mixed until all have come" in str(update(some)["message"])
        with pytest.raises(GenerationError, match="none of one version"):
            answer(engine)
        others = {name: own[name] for name in names[3:]}
        assert update(others, weight_version="step-3")["success"]
    finally:
        transport.post("/end_weight_update", {})
    assert engine.weights.version == "step-3"
    assert answer(engine).logprobs == before.logprobs


def test_weights_that_fail_in_the_middle_answer_nobody(
    engine: SGLangEngine, own: Named, tmp_path: Path
) -> None:
    """A checkpoint of pickles, which are not looked into before, with one that is broken."""
    half = dict(list(own.items())[: len(own) // 2])
    torch.save(
        {name: 0 * weight for name, weight in half.items()}, tmp_path / "pytorch_model-1.bin"
    )
    (tmp_path / "pytorch_model-2.bin").write_bytes(b"broken")
    with pytest.raises(WeightsError, match="the weights are mixed now"):
        engine.weights.load(tmp_path, version="step-9")
    assert engine.weights.version == "mixed"
    with pytest.raises(GenerationError, match="none of one version"):
        answer(engine)
    with pytest.raises(ServerError, match="none of one version"):
        engine.complete(ARITH, [PROMPT], max_tokens=3)
    with pytest.raises(WeightsError, match=r"mixed, so all have to come, but .* does not"):
        engine.weights.put(half.items())
    engine.weights.put(own.items(), version="step-10")
    assert engine.weights.version == "step-10"
    assert answer(engine).answer == ANSWER
