"""Muon in fp32 is torch's Muon, up to torch's rounding."""

import pytest
import torch
from torch import nn

from memlm.training.optimizers import Fp32Muon, orthogonalized

COEFFICIENTS = 3.4445, -4.7750, 2.0315


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (1, 4)])
def test_singular_values_follow_the_polynomial_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    a, b, c = COEFFICIENTS
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(4):
        values = a * values + b * values**3 + c * values**5
    found = orthogonalized(matrix, COEFFICIENTS, 4, 1e-7)
    torch.testing.assert_close(found, left @ torch.diag(values) @ right)


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert not orthogonalized(torch.zeros(3, 4), COEFFICIENTS, 5, 1e-7).any()


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_steps_are_torchs(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    gradients = [torch.randn(shape, generator=generator) for _ in range(4)]
    moved, states = [], []
    for kind in (torch.optim.Muon, Fp32Muon):
        weight = nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.1, momentum=0.85, ns_steps=3, adjust_lr_fn="original")
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        moved.append((weight - start).detach())
        states.append(optimizer.state_dict())
    assert (moved[0] - moved[1]).norm() < 0.01 * moved[0].norm()  # torch rounds to bf16
    assert states[0]["state"].keys() == states[1]["state"].keys()
    torch.testing.assert_close(states[0]["state"][0], states[1]["state"][0])
