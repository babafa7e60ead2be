"""Optimizers and the learning-rate schedule."""

import torch
from torch import nn
from torch.optim import Optimizer

from memlm import config
from memlm.training.accelerator import precision_on
from memlm.training.muon import Fp32Muon

NOT_HIDDEN = {"embed", "head", "positions", "part_positions", "queries", "blanks"}
"""Parameters that do not map hidden states to hidden states."""
_NOT_HIDDEN_ELSEWHERE = {"embed_tokens", "lm_head", "wte", "wpe"}
"""The same, as Hugging Face's decoders call them."""


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trainable maps from hidden states to hidden states, over dimensions or tokens: what Muon is made for."""
    outside = NOT_HIDDEN | _NOT_HIDDEN_ELSEWHERE
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2
        and parameter.requires_grad
        and outside.isdisjoint(name.split("."))
        and "lora_" not in name  # adapters' factors are narrow, and learn at a rate of their own
    ]


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


def learning_rate_scale(cfg: config.TrainingConfig, tokens: int) -> float:
    """Warm-up, constant stretch, linear decay to nothing: a factor in [0, 1] after `tokens` tokens."""
    warm = min(1.0, (tokens + cfg.batch_tokens) / cfg.warmup_tokens) if cfg.warmup_tokens else 1.0
    left = max(0.0, 1 - tokens / cfg.num_tokens)
    return warm * (min(1.0, left / cfg.decay_fraction) if cfg.decay_fraction else 1.0)


def set_learning_rate(optimizers: list[Optimizer], scale: float) -> None:
    """Set every group's rate to `scale` times the rate it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * scale
