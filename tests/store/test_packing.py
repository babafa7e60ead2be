"""Vectors rounded and packed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.store.packing import Bits, Packed, pack, row_bytes, unpack

ALL_BITS: tuple[Bits, ...] = (32, 16, 8, 6, 4)


@pytest.mark.parametrize("bits", ALL_BITS)
@settings(deadline=None, max_examples=30)
@given(dim=st.integers(1, 33), seed=st.integers(0, 1000), size=st.floats(1e-3, 1e3))
def test_rows_take_what_is_said_and_come_back_rounded(bits: Bits, dim: int, seed: int, size: float) -> None:
    vectors = torch.randn(5, dim, generator=torch.Generator().manual_seed(seed)) * size
    packed = pack(vectors, bits)
    assert packed.rows[0].nbytes == row_bytes(bits, dim)
    again = unpack(packed, bits, dim)
    widest = vectors.abs().amax(dim=1, keepdim=True)
    significant = 11 if bits == 16 else bits  # half precision
    assert (again - vectors).norm() <= (widest * 2.0 ** (1 - significant) * dim**0.5).norm() + 1e-6
    if bits == 32:
        assert torch.equal(again, vectors)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_row_is_read_the_same_alone_and_among_others(bits: Bits) -> None:
    packed = pack(torch.randn(7, 12), bits)
    whole = unpack(packed, bits, 12)
    for row in range(7):
        alone = unpack(Packed(packed.rows[row : row + 1], packed.scales[row : row + 1]), bits, 12)
        assert torch.equal(alone[0], whole[row])


def test_fewer_bits_lose_more() -> None:
    vectors = torch.randn(50, 64)
    errors = [float((unpack(pack(vectors, bits), bits, 64) - vectors).norm()) for bits in ALL_BITS]
    assert errors == sorted(errors)
    assert errors[0] == 0 < errors[1]


def test_of_few_bits_the_farthest_dimensions_are_clipped() -> None:
    vector = torch.cat([torch.linspace(-1, 1, 200), torch.tensor([8.0])])[None]
    error = (unpack(pack(vector, 4), 4, 201) - vector).square().sum()
    whole_range = torch.linspace(-8, 8, 17)
    nearest = (vector[0, :, None] - (whole_range[:-1] + 0.5)).abs().amin(dim=1)
    assert error < nearest.square().sum()


def test_a_vector_of_zeros_stays_one_of_hardly_more() -> None:
    assert unpack(pack(torch.zeros(2, 8), 4), 4, 8).abs().max() < 1e-9
