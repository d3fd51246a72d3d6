"""Muon (arXiv:2502.16982) with products in fp32, for processors without units for bf16.

torch's Muon brings the momentum of each matrix near an orthogonal one by products in bf16. A CPU
that has to emulate them takes ten times as long as in fp32, which for small models is more than
half of a step. Parameters, settings and states are torch's, so checkpoints are the same.
"""

from __future__ import annotations

from typing import Any

import torch


class WideMuon(torch.optim.Muon):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, its products in fp32."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            assert group["adjust_lr_fn"] == "match_rms_adamw", group["adjust_lr_fn"]
            rate, momentum = float(group["lr"]), group["momentum"]
            for matrix in group["params"]:
                if (gradient := matrix.grad) is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                kept = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
                towards = gradient.lerp(kept, momentum) if group["nesterov"] else kept
                turned = _orthogonal(
                    towards, group["ns_coefficients"], group["ns_steps"], group["eps"]
                )
                matrix.mul_(1 - rate * group["weight_decay"])
                # As large as AdamW's changes are: arXiv:2502.16982, eq. 4.
                matrix.add_(turned, alpha=-0.2 * rate * max(matrix.shape) ** 0.5)
        return loss


def _orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, least: float
) -> torch.Tensor:
    """fp32, near a matrix's orthogonal factor, by Newton-Schulz steps (arXiv:2502.16982, eq. 2)."""
    first, cubic, fifth = coefficients
    wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).float()
    wide = wide / wide.norm().clamp(min=least)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(
            wide, torch.addmm(gram, gram, gram, beta=cubic, alpha=fifth), wide, beta=first
        )
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
