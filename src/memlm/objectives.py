"""Objectives: a model and a batch → named tallies of losses, in nats."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from memlm.models.autoencoder import Regeneration
from memlm.models.encoder import Tokens
from memlm.nn.cross_entropy import cross_entropy
from memlm.nn.mixers import Mask
from memlm.results import Tally


class Batch(NamedTuple):
    """Chunks on a device; `mask` marks the real tokens."""

    tokens: Tokens
    mask: Mask


Objective = Callable[[nn.Module, Batch], dict[str, Tally]]


def token_nats(regeneration: Regeneration, batch: Batch) -> Float[Tensor, "batch token"]:
    """Cross-entropy of every token in nats; 0 at the padding."""
    nats = cross_entropy(regeneration.logits.flatten(0, 1), batch.tokens.flatten())
    return nats.view(batch.tokens.shape) * batch.mask


def retention(model: nn.Module, batch: Batch) -> dict[str, Tally]:
    """Regenerate each chunk from its memory alone (paper, §2; the copy task with blank inputs)."""
    nats = token_nats(model(*batch), batch)
    return {"retention": Tally(nats.sum(), batch.mask.sum())}
