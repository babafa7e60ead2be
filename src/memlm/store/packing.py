"""Packing: memory vectors as numbers of 32, 16, or 8 to 1 bits a dimension, and back."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.nn.quantization import level_indices, level_values

Bits = Literal[32, 16, 8, 6, 4, 3, 2, 1]
BITS: tuple[Bits, ...] = get_args(Bits)
_CLIP = 3.0  # where quantization clips
_SHRINKS = torch.linspace(0.4, 1, 13)
"""Scales to choose from, as shares of the one that clips nothing."""


class Packed(NamedTuple):
    """Vectors as they are stored: a row each, of floats, or of levels packed into bytes, and a scale each."""

    rows: NDArray[Any]
    """[chunk dim] as float32 or float16, or [chunk byte]."""
    scales: NDArray[np.float32]
    """[chunk], what the levels are multiplied by."""


def pack(vectors: Float[Tensor, "chunk dim"], bits: Bits, *, scaled: bool = True) -> Packed:
    """Round vectors. Below 16 bits each has the scale that loses least of it, or 1, if they are to have none."""
    if bits >= 16:
        rows = vectors.numpy().astype(row_dtype(bits))
        return Packed(rows, np.ones(len(rows), np.float32))
    scales = _scales(vectors, bits) if scaled else torch.ones(len(vectors), 1)
    index = level_indices(vectors / scales, bits).to(torch.uint8).numpy()
    each_bit = np.unpackbits(index[..., None], axis=-1)[..., 8 - bits :]
    rows = np.packbits(each_bit.reshape(len(index), vectors.shape[1] * bits), axis=-1)
    return Packed(rows, scales[:, 0].numpy())


def unpack(packed: Packed, bits: Bits, dim: int) -> Float[Tensor, "chunk dim"]:
    """The vectors that were stored, [chunk dim]."""
    if bits >= 16:
        return torch.from_numpy(packed.rows.astype(np.float32))
    index = np.array(packed.rows)
    if bits < 8:
        each_bit = np.unpackbits(index, axis=-1, count=dim * bits).reshape(len(index), dim, bits)
        index = np.packbits(np.pad(each_bit, ((0, 0), (0, 0), (8 - bits, 0))), axis=-1)[..., 0]
    levels = level_values(torch.from_numpy(index).float(), bits)
    return levels * torch.from_numpy(np.array(packed.scales))[:, None]


def row_dtype(bits: Bits) -> np.dtype[Any]:
    """Of `Packed.rows`."""
    return np.dtype({32: np.float32, 16: np.float16}.get(bits, np.uint8))


def row_bytes(bits: Bits, dim: int) -> int:
    """Bytes that a vector takes, without its scale."""
    return -(-dim * bits // 8)


def _scales(vectors: Tensor, bits: Bits) -> Float[Tensor, "chunk 1"]:
    """Of few bits, steps in the middle are worth more than the farthest dimensions: try how much to clip."""
    widest = vectors.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _CLIP
    if bits >= 8:  # so many that nothing is worth clipping
        return widest
    tried = widest * _SHRINKS[:, None, None]
    errors = (level_values(level_indices(vectors / tried, bits), bits) * tried - vectors).square().sum(dim=-1)
    best = errors.argmin(dim=0)
    return widest * _SHRINKS[best][:, None]
