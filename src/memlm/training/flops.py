"""What training costs, counted: floating-point operations of matrix products, forward and backward."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from memlm.objectives import Batch, Objective


def flops_per_token(model: nn.Module, objective: Objective, batch: Batch) -> float:
    """Operations of a training step for each real token of its batch; gradients are left as they were."""
    before = [parameter.grad for parameter in model.parameters()]
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        objective.nats(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        parameter.grad = gradient
    return counter.get_total_flops() / batch.num_tokens
