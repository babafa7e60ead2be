"""Embeddings as readers get them: degraded where that is asked for, then whitened."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from memlm.config import Degradation, Noise, Quantization
from memlm.nn.pooling import MemoryVectors
from memlm.nn.quantization import quantized
from memlm.probing.embed import Vectors

_SAMPLE = 20_000
_MIN_FLOOR = 1e-6
_MIN_RELATIVE_STD = 1e-5
_FITTED = ("mean", "std", "whitening")


class Transform:
    """A map of embeddings, fitted to those of the training chunks.

    Whitening is affine and can be undone, so that it changes what is easy to read and not what is there: states of
    language models vary a thousand times more along some directions than along others.
    """

    def __init__(self, train: Vectors, degradation: Degradation | None = None) -> None:
        self.shape: tuple[int, int] = train.shape[1:]
        self.degradation = degradation
        sample = torch.from_numpy(np.array(train[:_SAMPLE])).flatten(0, 1)
        std, self.mean = torch.std_mean(sample.double(), 0)
        # A dimension that varies by rounding alone is none.
        least = _MIN_RELATIVE_STD * torch.maximum(self.mean.abs(), std.median())
        self.mean, self.std = self.mean.float(), torch.where(std > least, std, torch.inf).float()
        covariance = torch.cov(self._degraded(sample, None).T.double()).reshape(sample.shape[1], -1)
        values, vectors = torch.linalg.eigh(covariance)
        # Few vectors say little of the directions along which they hardly vary; unseen ones do vary there.
        floor = min(1.0, max(_MIN_FLOOR, (sample.shape[1] / len(sample)) ** 4))
        scale = values.clamp_min(floor * float(values.mean()) + 1e-30).rsqrt()
        # Symmetric: each direction stays as near as it can to the dimension that it was.
        self.whitening = (vectors * scale @ vectors.T).float()

    @property
    def state(self) -> dict[str, Tensor]:
        """All that was fitted."""
        return {name: getattr(self, name) for name in _FITTED}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], shape: tuple[int, int], degradation: Degradation | None) -> Self:
        """One that was fitted before, of embeddings [slot dim] of this shape."""
        transform = cls.__new__(cls)
        transform.shape, transform.degradation = shape, degradation
        for name in _FITTED:
            setattr(transform, name, state[name])
        return transform

    def __call__(self, vectors: Vectors, generator: torch.Generator | None = None) -> MemoryVectors:
        """Embeddings [chunk slot dim] → what is read, of the same shape; noise comes from `generator`."""
        return self._degraded(torch.from_numpy(np.array(vectors)), generator) @ self.whitening

    def _degraded(self, vectors: Tensor, generator: torch.Generator | None) -> Tensor:
        return degraded((vectors - self.mean) / self.std, self.degradation, generator)


def degraded(standard: Tensor, degradation: Degradation | None, generator: torch.Generator | None) -> Tensor:
    """Numbers of mean 0 and standard deviation 1, rounded or with noise."""
    if isinstance(degradation, Quantization):
        return quantized(standard, degradation.num_bits)
    if isinstance(degradation, Noise):
        generator = generator or torch.Generator().manual_seed(0)
        return standard + degradation.std * torch.randn(standard.shape, generator=generator)
    return standard
