"""Quantization: numbers of root mean square 1 → one of 2^bits levels, and how to train through that."""

from torch import Tensor

_CLIP = 3.0


def quantized(standard: Tensor, num_bits: int) -> Tensor:
    """Standardized values → the middles of 2^`num_bits` equal steps between -3 and 3; what lies outside is clipped.

    Gradients pass as if nothing were rounded (the straight-through estimator, Bengio et al. 2013).
    """
    rounded = level_values(level_indices(standard.detach(), num_bits), num_bits)
    return rounded + (standard - standard.detach())


def level_indices(standard: Tensor, num_bits: int) -> Tensor:
    """Standardized values → the whole numbers, from 0 to 2^`num_bits` - 1, of the levels they are rounded to."""
    return ((standard + _CLIP) / quantization_step(num_bits)).floor().clamp(0, 2**num_bits - 1)


def level_values(index: Tensor, num_bits: int) -> Tensor:
    """The levels of these numbers."""
    return (index + 0.5) * quantization_step(num_bits) - _CLIP


def quantization_step(num_bits: int) -> float:
    """Between two levels."""
    return 2 * _CLIP / 2**num_bits
