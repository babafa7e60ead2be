"""Quantization: numbers of root mean square 1 → one of 2^bits levels, and how to train through that."""

from torch import Tensor

_CLIP = 3.0


def quantized(standard: Tensor, num_bits: int) -> Tensor:
    """Standardized values → the middles of 2^`num_bits` equal steps between -3 and 3; what lies outside is clipped.

    Gradients pass as if nothing were rounded (the straight-through estimator, Bengio et al. 2013).
    """
    step = quantization_step(num_bits)
    index = ((standard.detach() + _CLIP) / step).floor().clamp(0, 2**num_bits - 1)
    rounded = (index + 0.5) * step - _CLIP
    return rounded + (standard - standard.detach())


def quantization_step(num_bits: int) -> float:
    """Between two levels."""
    return 2 * _CLIP / 2**num_bits
