"""Products with matrices that are laid out for the processor are those of the layers themselves."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import nprdsl
from nprdsl.runtime.local import LocalEngine, packed_matrices
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.packed_matrices import PackedMatrices
from nprdsl.runtime.sampling import Sampling
from tests.runtime.tiny_models import NAMES, byte_tokenizer, model

TOKENS = torch.arange(3, 90, 5)[None]


class _Quantized(torch.Tensor):
    """As torchao's."""


def fresh(name: str = "llama") -> PreTrainedModel:
    return copy.deepcopy(model(name)).eval()


@torch.no_grad()
def logits(of: PreTrainedModel) -> torch.Tensor:
    found: torch.Tensor = of(input_ids=TOKENS, use_cache=False).logits
    return found


def layers(of: PreTrainedModel) -> list[torch.nn.Linear]:
    return [module for module in of.modules() if type(module) is torch.nn.Linear]


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_model(name: str) -> None:
    own = fresh(name)
    expected = logits(own)
    matrices = PackedMatrices(own)
    assert len(matrices) == len(layers(own)) > 0
    with matrices:
        found = logits(own)
        used = ["forward" in vars(layer) for layer in layers(own)]
    assert all(used)
    assert far(found, expected) < 1e-4


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_any_number_of_rows(rows: int, dtype: torch.dtype, bias: bool) -> None:
    own = fresh()
    layer = torch.nn.Linear(40, 72, bias=bias).to(dtype)
    own.register_module("one_more", layer)
    given = torch.randn(2, rows, 40, generator=torch.Generator().manual_seed(rows)).to(dtype)
    with torch.no_grad(), PackedMatrices(own):
        found = layer(given)
        exact = given.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    assert found.dtype is dtype
    assert far(found.double(), exact) < (1e-4 if dtype is torch.float32 else 0.03)


def test_what_is_changed_in_place_is_seen() -> None:
    own = fresh()
    matrices = PackedMatrices(own)
    with matrices:
        before = logits(own)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.5)
    own(input_ids=TOKENS, labels=TOKENS).loss.backward()
    optimizer.step()
    with matrices:
        trained = logits(own)
    assert far(trained, before) > 0.01
    assert far(trained, logits(own)) < 1e-4
    own.load_state_dict(model("llama").state_dict())
    with matrices:
        assert far(logits(own), before) < 1e-4


def test_a_weight_that_is_replaced_is_seen() -> None:
    own = fresh()
    matrices = PackedMatrices(own)
    with matrices:
        before = logits(own)
    for layer in layers(own):
        layer.weight = torch.nn.Parameter(layer.weight * 0.5)
    with matrices:
        found = logits(own)
    assert far(found, before) > 0.01
    assert far(found, logits(own)) < 1e-4


def test_a_bias_that_is_replaced_is_seen() -> None:
    own = fresh()
    layer = torch.nn.Linear(8, 4)
    own.register_module("one_more", layer)
    matrices, rows = PackedMatrices(own), torch.ones(2, 8)
    with torch.no_grad():
        with matrices:
            before = layer(rows)
        layer.bias = torch.nn.Parameter(layer.bias + 1)
        with matrices:
            found = layer(rows)
    assert far(found, before + 1) < 1e-5


def test_a_model_of_another_dtype_since_is_multiplied_as_ever() -> None:
    own = fresh()
    matrices = PackedMatrices(own)
    with matrices:
        logits(own)
    own.half()
    with matrices:
        used = ["forward" in vars(layer) for layer in layers(own)]
    assert not any(used)
    own.float()
    with matrices:
        assert far(logits(own), logits(model("llama").eval())) < 0.05


def test_outside_of_the_block_the_model_is_as_before() -> None:
    own = fresh()
    matrices = PackedMatrices(own)
    with pytest.raises(RuntimeError, match="midway"), matrices:
        raise RuntimeError("midway")
    assert not any("forward" in vars(layer) for layer in layers(own))
    torch.save(own.state_dict(), io.BytesIO())
    assert far(logits(copy.deepcopy(own)), logits(own)) == 0


def test_gradients_and_other_dtypes_are_multiplied_as_ever() -> None:
    own = fresh()
    plain = own(input_ids=TOKENS, labels=TOKENS).loss
    with PackedMatrices(own):
        loss = own(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            autocast = logits(own)
    assert float(abs(loss.detach() - plain.detach())) < 1e-5
    assert all(layer.weight.grad is not None for layer in layers(own))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(autocast, logits(own))


def test_no_copies_beyond_the_bound() -> None:
    own = fresh()
    size = sum(layer.weight.nbytes for layer in layers(own))
    assert len(PackedMatrices(own, size)) > 0
    assert len(PackedMatrices(own, size - 1)) == 0


def test_layers_of_others_are_left_alone() -> None:
    """A subclass may do more than multiply, and accelerate puts its hooks in place of forward."""

    class Doubling(torch.nn.Linear):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(rows)

    own = fresh()
    count = len(PackedMatrices(own))
    own.register_module("doubling", Doubling(4, 4))
    quantized = torch.nn.Linear(4, 4)
    quantized.weight = torch.nn.Parameter(torch.Tensor._make_subclass(_Quantized, torch.ones(4, 4)))
    own.register_module("quantized", quantized)
    hooked = torch.nn.Linear(4, 4)
    vars(hooked)["forward"] = lambda rows: rows
    own.register_module("hooked", hooked)
    matrices = PackedMatrices(own)
    assert len(matrices) == count
    with matrices:
        pass
    assert "forward" in vars(hooked)


@pytest.mark.parametrize(
    "failure", [RuntimeError("no kernel"), AttributeError("no such operation")]
)
def test_without_the_operations_nothing_is_packed(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fails(weight: torch.Tensor) -> torch.Tensor:
        raise failure

    monkeypatch.setattr(packed_matrices, "_packed", fails)
    assert len(PackedMatrices(fresh())) == 0


def test_where_products_are_wrong_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = packed_matrices._product

    def wrong(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return right(rows, packed, bias) * 1.01

    monkeypatch.setattr(packed_matrices, "_product", wrong)
    assert len(PackedMatrices(fresh())) == 0


def test_the_engine_packs_what_it_has_loaded_itself(tmp_path: Path) -> None:
    schema = nprdsl.load("npr")
    tokenizer = byte_tokenizer(schema.tags)
    own = copy.deepcopy(model("llama", len(tokenizer))).eval()
    own.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = LocalEngine.from_pretrained(tmp_path)
    given = LocalEngine(own, tokenizer)
    forwards = [engine._scheduler.forward for engine in (loaded, given)]
    assert all(isinstance(forward, Forward) for forward in forwards)
    packed, plain = (forward.matrices for forward in forwards)
    assert isinstance(packed, PackedMatrices)
    assert len(packed) == len(layers(loaded.model))
    assert not isinstance(plain, PackedMatrices)
    one, other = (
        engine.generate(
            schema, "2+2?", sampling=Sampling(seed=3), limits=nprdsl.Limits(max_tokens=80)
        )
        for engine in (loaded, given)
    )
    assert one.token_ids == other.token_ids
    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
