"""Muon in fp32 goes where torch's goes, whose products are rounded to bf16."""

from __future__ import annotations

import pytest
import torch

from nprdsl.trainers.run.muon import WideMuon

SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}


def trained(
    kind: type[torch.optim.Muon], shape: tuple[int, int], steps: int, **more: object
) -> tuple[torch.Tensor, torch.optim.Muon]:
    """A matrix that follows gradients of its own making, and its optimizer."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.nn.Parameter(torch.randn(shape, generator=generator))
    optimizer = kind([matrix], **SETTINGS, **more)  # type: ignore[arg-type]
    for _ in range(steps):
        matrix.grad = torch.randn(shape, generator=generator)
        optimizer.step()
    return matrix.detach(), optimizer


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_of_torch(shape: tuple[int, int], nesterov: bool) -> None:
    before, _ = trained(WideMuon, shape, 0)
    ours, _ = trained(WideMuon, shape, 5, nesterov=nesterov)
    wanted, _ = trained(torch.optim.Muon, shape, 5, nesterov=nesterov)
    assert (ours - wanted).norm() < 0.02 * (wanted - before).norm()


def test_states_are_those_of_torch() -> None:
    """A run that was begun with one goes on with the other."""
    _, ours = trained(WideMuon, (8, 24), 2)
    _, wanted = trained(torch.optim.Muon, (8, 24), 2)
    wanted.load_state_dict(ours.state_dict())
    ours.load_state_dict(wanted.state_dict())
    one, other = (state.state_dict()["state"][0] for state in (ours, wanted))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_turns_a_matrix_towards_its_orthogonal_factor() -> None:
    """Of a first gradient U S V the change is near U V, times what the rate says."""
    matrix = torch.nn.Parameter(torch.zeros(6, 10))
    optimizer = WideMuon([matrix], **(SETTINGS | {"weight_decay": 0.0}))  # type: ignore[arg-type]
    gradient = torch.randn(6, 10, generator=torch.Generator().manual_seed(4))
    matrix.grad = gradient.clone()
    optimizer.step()
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    change = -matrix.detach() / (0.2 * 0.02 * 10**0.5)
    values = torch.diagonal(u.T @ change @ v.T)
    assert values.min() > 0.6 and values.max() < 1.3  # five steps come no nearer
    assert (u.T @ change @ v.T - torch.diag(values)).abs().max() < 1e-4


def test_products_are_fp32_where_weights_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []
    inner = torch.addmm

    def seen(*given: torch.Tensor, **more: object) -> torch.Tensor:
        dtypes.extend(one.dtype for one in given)
        return inner(*given, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "addmm", seen)
    matrix = torch.nn.Parameter(torch.ones(4, 6, dtype=torch.bfloat16))
    matrix.grad = torch.randn(4, 6).bfloat16()
    WideMuon([matrix], **SETTINGS).step()  # type: ignore[arg-type]
    assert set(dtypes) == {torch.float32} and matrix.dtype is torch.bfloat16
    assert not torch.equal(matrix, torch.ones_like(matrix))


def test_a_closure_and_a_matrix_without_a_gradient() -> None:
    matrix = torch.nn.Parameter(torch.ones(2, 3))
    assert WideMuon([matrix], **SETTINGS).step(lambda: 7.0) == 7.0  # type: ignore[arg-type]
    assert torch.equal(matrix.detach(), torch.ones(2, 3))
