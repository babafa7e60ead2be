"""What the experiments on sources of known entropy have in common: short trainings, and means with their intervals."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import AdamW, AutoregressiveReader, MemoryShape, Muon, TrainingConfig
from memlm.models.batch import Batch
from memlm.models.readers import build_reader
from memlm.training.loop import fit
from memlm.training.objectives import RETENTION, Objective

BITS = math.log(2)
"""Nats of one."""


def whole(tokens: Tensor, memory: Tensor | None = None) -> Batch:
    """A batch without padding."""
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), memory)


def fit_steps(
    model: nn.Module,
    sample: Callable[[int], Batch],
    objective: Objective,
    steps: int,
    optimizer: AdamW | Muon,
    seed: int,
) -> None:
    """Train for so many steps."""
    size = objective.count(sample(0))
    cfg = TrainingConfig(
        num_tokens=steps * size,
        batch_tokens=size,
        optimizer=optimizer,
        warmup_tokens=min(10, steps // 10) * size,
        eval_tokens=steps * size,
        checkpoint_tokens=steps * size,
        short_fraction=0.0,
        seed=seed,
    )
    fit(model, sample, objective, cfg, quiet=True)


def trained_reader(shape: MemoryShape, sample: Callable[[int], Batch], steps: int, seed: int) -> nn.Module:
    """A reader that writes a text token after token, which is all that a text's probability has to be made of."""
    torch.manual_seed(seed)
    vocab_size = shape.vocab_size
    codes, log_probs = torch.eye(vocab_size), torch.full((vocab_size,), -math.log(vocab_size))
    reader = build_reader(AutoregressiveReader(dim=64, num_layers=2), shape, codes, log_probs)
    fit_steps(reader, sample, RETENTION, steps, Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2)), seed)
    return reader.eval()


def text_nats(logits: Tensor, tokens: Tensor) -> Float[np.ndarray, " text"]:
    """Cross-entropies of texts, each summed over its tokens."""
    nats = F.cross_entropy(logits.flatten(0, 1).double(), tokens.flatten(), reduction="none")
    return nats.view(tokens.shape).sum(1).numpy()
