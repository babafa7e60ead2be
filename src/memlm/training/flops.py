"""What computing costs, counted: floating-point operations of matrix products."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from memlm.models.batch import Batch
from memlm.training.objectives import Objective

_aten = torch.ops.aten
_KERNELS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, taught what causal attention costs."""
    formulas: dict[Any, Callable[..., int]] = {}
    for kernel in _KERNELS:
        formulas[getattr(_aten, f"_scaled_dot_product_{kernel}")] = _causal_flops
        formulas[getattr(_aten, f"_scaled_dot_product_{kernel}_backward")] = _causal_backward_flops
    return FlopCounterMode(display=False, custom_mapping=formulas)


def flops_per_token(model: nn.Module, objective: Objective, batch: Batch) -> float:
    """Operations of a training step, forward and backward, for each real token of its batch.

    Gradients are left as they were.
    """
    before = [parameter.grad for parameter in model.parameters()]
    with flop_counter() as counter, torch.enable_grad():
        objective.nats(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        parameter.grad = gradient
    return counter.get_total_flops() / batch.num_tokens


def _causal_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Operations of causal attention, given shapes [batch head token dim]; the queries are the last of the keys.

    PyTorch's counter knows no attention on the CPU, and elsewhere counts what is masked as well, nearly half.
    """
    batch, heads, queries, dim = query
    seen = queries * (key[2] - queries) + queries * (queries + 1) // 2
    return 2 * batch * heads * seen * (dim + value[3])


def _causal_backward_flops(gradient: torch.Size, *shapes: Any, **options: Any) -> int:
    """Five products of which the forward pass has two."""
    return 5 * _causal_flops(*shapes, **options) // 2
