"""Optimizers and the learning-rate schedule."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from memlm import config
from memlm.runtime.cpu import precision_on

_HEADS = {"head", "lm_head", "embed_out"}
_LEARNED_INPUTS = {"positions", "part_positions", "queries", "blanks"}
_ADAPTERS = ("lora_", "ia3_", "adapter_")
"""How peft's names of small matrices beside the weights begin."""


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trainable maps from hidden states to hidden states, over dimensions or tokens: what Muon is made for.

    Neither embeddings, heads and learned inputs, nor adapters: to orthogonalize the update of a factor of low rank is
    not to orthogonalize that of their product.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}

    def is_hidden(name: str, parameter: nn.Parameter) -> bool:
        parts = name.split(".")
        outside = (_HEADS | _LEARNED_INPUTS) & {*parts} or any(part.startswith(_ADAPTERS) for part in parts)
        return parameter.requires_grad and parameter.ndim == 2 and id(parameter) not in embeddings and not outside

    return [parameter for name, parameter in model.named_parameters() if is_hidden(name, parameter)]


def freeze(model: Any, parts: tuple[str, ...]) -> None:
    """Let all of a model learn but these parts."""
    encoder = getattr(model, "encoder", None)
    if encoder is not None:
        encoder.requires_grad_("encoder" not in parts)


def build_optimizers(model: nn.Module, cfg: config.Optimizer) -> list[Optimizer]:
    """The optimizers of a configuration, over the model's trainable parameters; together they cover each once."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match cfg:
        case config.AdamW():
            return [_adamw(parameters, cfg)]
        case config.Muon():
            matrices = hidden_matrices(model)
            chosen = {id(matrix) for matrix in matrices}
            rest = [parameter for parameter in parameters if id(parameter) not in chosen]
            native = all(precision_on(matrix.device) == "bf16" for matrix in matrices)
            muon = (torch.optim.Muon if native else Fp32Muon)(
                matrices,
                lr=cfg.learning_rate,
                weight_decay=cfg.weight_decay,
                momentum=cfg.momentum,
                ns_steps=cfg.num_newton_schulz,
                adjust_lr_fn="original",
            )
            return [muon, _adamw(rest, cfg.adamw)]


def _adamw(parameters: list[nn.Parameter], cfg: config.AdamW) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True
    )


def budget_spent(cfg: config.TrainingConfig, tokens: int, seconds: float = 0.0) -> float:
    """The share of the tokens, or of the time if more of that is spent; 1 or more at the end."""
    return max(tokens / cfg.num_tokens, seconds / cfg.max_seconds if cfg.max_seconds else 0.0)


def learning_rate_scale(cfg: config.TrainingConfig, tokens: int, seconds: float = 0.0) -> float:
    """Warm-up, constant stretch, linear decay to nothing: a factor in [0, 1] after so many tokens and seconds."""
    warm = min(1.0, (tokens + cfg.batch_tokens) / cfg.warmup_tokens) if cfg.warmup_tokens else 1.0
    left = max(0.0, 1 - budget_spent(cfg, tokens, seconds))
    return warm * (min(1.0, left / cfg.decay_fraction) if cfg.decay_fraction else 1.0)


def set_learning_rate(optimizers: list[Optimizer], scale: float) -> None:
    """Set every group's rate to `scale` times the rate it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * scale


class Fp32Muon(torch.optim.Muon):
    """torch's Muon with its Newton-Schulz iterations in fp32, for processors that do not multiply in bf16.

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
