"""Vectors as a store keeps them: as they are, rounded, or with noise."""

import torch
import torch.nn.functional as F

from memlm.config import Degradation
from memlm.probing.inversion.embedder import Unit
from memlm.probing.transform import degraded


class Storage:
    """What is done to vectors [text dim] of length 1. Steps and noise are in units of each dimension's own spread,
    which is known from a sample."""

    def __init__(self, sample: Unit) -> None:
        self.std, self.mean = torch.std_mean(sample, 0)
        self.std = self.std.clamp_min(1e-9)

    def __call__(self, vectors: Unit, degradation: Degradation | None, seed: int = 0) -> Unit:
        """The vectors as they are read back, of length 1 again."""
        if degradation is None:
            return vectors
        generator = torch.Generator().manual_seed(seed)
        standard = degraded((vectors - self.mean) / self.std, degradation, generator)
        return F.normalize(self.mean + self.std * standard, dim=-1)
