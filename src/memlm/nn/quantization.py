"""Quantization of numbers of root mean square 1 to 2^bits levels, with a gradient."""

from torch import Tensor

_CLIP = 3.0


def quantized(standard: Tensor, num_bits: int) -> Tensor:
    """Values rounded to the middles of 2^`num_bits` equal steps between -3 and 3; others are clipped.

    The gradient is that of the identity (straight-through estimator, Bengio et al. 2013).
    """
    rounded = level_values(level_indices(standard.detach(), num_bits), num_bits)
    return rounded + (standard - standard.detach())


def level_indices(standard: Tensor, num_bits: int) -> Tensor:
    """The level of each value, from 0 to 2^`num_bits` - 1."""
    return ((standard + _CLIP) / quantization_step(num_bits)).floor().clamp(0, 2**num_bits - 1)


def level_values(index: Tensor, num_bits: int) -> Tensor:
    """The values of levels."""
    return (index + 0.5) * quantization_step(num_bits) - _CLIP


def quantization_step(num_bits: int) -> float:
    """The distance between two levels."""
    return 2 * _CLIP / 2**num_bits
