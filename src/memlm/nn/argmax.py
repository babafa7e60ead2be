"""The most likely of many."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def argmax(scores: Float[Tensor, "*row choice"]) -> Int[Tensor, "*row"]:
    """`torch.argmax` over the last dimension; on a processor NumPy's, which is ten times as fast."""
    if scores.device.type != "cpu" or scores.dtype == torch.bfloat16:
        return scores.argmax(dim=-1)
    return torch.from_numpy(scores.numpy().argmax(axis=-1))
