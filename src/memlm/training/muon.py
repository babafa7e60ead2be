"""torch's Muon, for processors that do not multiply in bf16."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Fp32Muon(torch.optim.Muon):
    """Muon with its Newton-Schulz iterations in fp32; state and settings are torch's.

    torch has them in bf16, which is an emulation on many CPUs, and then takes nearly all of a step's time.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._step(matrix, matrix.grad, group)
        return loss

    def _step(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[matrix], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = gradient.lerp(state["momentum_buffer"], momentum)
        rows, columns = matrix.shape
        rate = group["lr"] * math.sqrt(max(1, rows / columns))
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"]), alpha=-rate)


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float) -> Tensor:
    """Roughly the nearest matrix whose singular values are all 1, by Newton and Schulz's iteration."""
    a, b, c = coefficients
    flat = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    flat = flat / flat.norm().clamp(min=eps)
    for _ in range(num_steps):
        gram = flat @ flat.mT
        flat = a * flat + (b * gram + c * gram @ gram) @ flat
    return flat.mT if matrix.shape[0] > matrix.shape[1] else flat
