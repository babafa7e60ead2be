"""Cross-entropy with a third of the memory traffic of PyTorch's on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_ROWS = 1024
"""Rows computed at a time: their fp32 probabilities fit a core's cache."""


def cross_entropy(logits: Float[Tensor, "token vocab"], tokens: Int[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Nats of each token, in fp32: PyTorch's own, its gradient rounded to the logits' type a little earlier."""
    if logits.device.type == "cpu" and logits.requires_grad:
        return _CrossEntropy.apply(logits, tokens)  # type: ignore[no-untyped-call]
    return F.cross_entropy(logits.float(), tokens, reduction="none")


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradient along with the loss, block by block, without an fp32 copy of all logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        gradient = torch.empty_like(logits)
        nats = torch.empty(len(logits))
        for start in range(0, len(logits), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            probabilities = torch.softmax(logits[block].float(), dim=-1)
            index = (torch.arange(len(probabilities)), tokens[block])
            likelihood = probabilities[index]
            nats[block] = -likelihood.clamp_min(1e-30).log()
            probabilities[index] = likelihood - 1
            gradient[block] = probabilities
        ctx.save_for_backward(gradient)
        return nats

    @staticmethod
    def backward(ctx: Any, nats_gradient: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * nats_gradient[:, None].to(gradient.dtype), None
