"""Numbers rounded to a few levels, and trained through."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.config import AutoencoderConfig, MemoryShape, StackConfig
from memlm.models.autoencoder import Autoencoder
from memlm.nn.quantization import quantized

bits = st.integers(1, 16)
values = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=50)


@settings(deadline=None)
@given(values, bits)
def test_no_value_is_further_from_its_level_than_half_a_step(numbers: list[float], num_bits: int) -> None:
    standard = torch.tensor(numbers)
    error = (quantized(standard, num_bits) - standard).abs()
    assert float(error.max()) <= 3 / 2**num_bits + 1e-6


@pytest.mark.parametrize("num_bits", [1, 2, 3, 5, 8, 11])
def test_there_are_as_many_levels_as_the_bits_can_tell_apart(num_bits: int) -> None:
    levels = quantized(torch.linspace(-50, 50, 200_001), num_bits).unique()
    assert len(levels) == 2**num_bits
    assert torch.equal(levels, -levels.flip(0))
    torch.testing.assert_close(levels.diff(), torch.full((2**num_bits - 1,), 6 / 2**num_bits), rtol=0, atol=1e-5)
    assert levels[-1] < 3


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), bits)
def test_any_value_is_put_on_one_of_the_levels_in_order(numbers: list[float], num_bits: int) -> None:
    standard = torch.tensor(sorted(numbers))
    rounded = quantized(standard, num_bits)
    step = 6 / 2**num_bits
    index = (rounded + 3) / step - 0.5
    torch.testing.assert_close(index, index.round(), rtol=0, atol=0.02)
    assert 0 <= index.round().min() <= index.round().max() < 2**num_bits
    assert torch.all(rounded.diff() >= 0)
    assert torch.equal(quantized(rounded, num_bits), rounded)


@given(values)
def test_one_bit_is_the_sign(numbers: list[float]) -> None:
    standard = torch.tensor([number for number in numbers if abs(number) > 1e-6] or [1.0])
    assert torch.equal(quantized(standard, 1), 1.5 * standard.sign())


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    standard = torch.randn(20, requires_grad=True)
    weights = torch.randn(20)
    (quantized(standard, 2) * weights).sum().backward()
    assert standard.grad is not None
    assert torch.equal(standard.grad, weights)


@pytest.mark.parametrize("num_bits", [1, 3])
def test_memories_that_are_rounded_take_so_many_values_and_train(num_bits: int) -> None:
    shape = MemoryShape(vocab_size=20, chunk_len=4, memory_dim=8, num_bits=num_bits)
    stack = StackConfig(dim=16, num_layers=1)
    model = Autoencoder(AutoencoderConfig(shape=shape, encoder=stack, decoder=stack))
    tokens = torch.randint(20, (64, 4))
    logits, memory, _ = model(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert len(memory.unique()) <= 2**num_bits
    logits.sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in [model.encoder.embed.weight])


@pytest.mark.parametrize("num_bits", [0, 17])
def test_bits_that_cannot_be_are_refused(num_bits: int) -> None:
    with pytest.raises(ValueError, match=f"num_bits must be 1 to 16, not {num_bits}"):
        MemoryShape(vocab_size=20, chunk_len=4, memory_dim=8, num_bits=num_bits)
