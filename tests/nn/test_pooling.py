import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm.config import (
    LastToken,
    LearnedQuery,
    Mean,
    MemoryShape,
    Pooling,
    Positional,
    Repeat,
    SlidingWindow,
    Unpooling,
)
from memlm.nn import pooling as module
from memlm.nn.pooling import block_shape
from tiny import randomized

DIM = 8
POOLINGS: tuple[Pooling, ...] = (LastToken(), Mean(), Positional(token_dim=3), LearnedQuery(num_heads=2, num_parts=2))
UNPOOLINGS: tuple[Unpooling, ...] = (Repeat(), SlidingWindow(), *POOLINGS[2:])  # type: ignore[arg-type]

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**20)
shapes = st.builds(
    MemoryShape,
    vocab_size=st.just(10),
    chunk_len=st.integers(1, 9),
    memory_dim=st.integers(1, 6).map(lambda n: 2 * n),
    num_slots=st.integers(1, 3),
)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@few
@given(st.sampled_from(POOLINGS), shapes, seeds, st.data())
def test_a_memory_has_its_shape_and_depends_on_every_real_token_it_may_read_and_on_no_padding(
    cfg: Pooling, shape: MemoryShape, seed: int, data: st.DataObject
) -> None:
    pooling = randomized(module.POOLINGS[type(cfg)](cfg, shape, DIM), seed)
    num_real = torch.tensor([data.draw(st.integers(1, shape.chunk_len)) for _ in range(3)])
    mask = torch.arange(shape.chunk_len) < num_real[:, None]
    hidden = noise(seed + 1, 3, shape.chunk_len, DIM).requires_grad_()
    memory = pooling(hidden, mask)
    assert memory.shape == (3, shape.num_slots, shape.memory_dim)
    garbage = torch.where(mask[..., None], hidden, 1e3 * noise(seed + 2, *hidden.shape))
    torch.testing.assert_close(pooling(garbage, mask), memory, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad((memory * noise(seed + 3, *memory.shape)).sum(), hidden)
    last = torch.arange(shape.chunk_len) == num_real[:, None] - 1
    read = last if isinstance(cfg, LastToken) else mask
    assert torch.equal(gradient.abs().amax(dim=-1) > 0, read)


@few
@given(st.sampled_from(UNPOOLINGS), shapes, seeds)
def test_hidden_has_its_shape_and_comes_from_each_memory_alone(cfg: Unpooling, shape: MemoryShape, seed: int) -> None:
    unpooling = randomized(module.UNPOOLINGS[type(cfg)](cfg, shape, DIM), seed)
    memory = noise(seed + 1, 3, shape.num_slots, shape.memory_dim)
    hidden = unpooling(memory)
    assert hidden.shape == (3, shape.chunk_len, DIM)
    torch.testing.assert_close(torch.cat([unpooling(row[None]) for row in memory]), hidden, atol=1e-4, rtol=1e-4)


def test_mean_and_last_token_are_what_they_are_called() -> None:
    shape = MemoryShape(vocab_size=10, chunk_len=5, memory_dim=6, num_slots=2)
    hidden, lengths = noise(0, 3, 5, DIM), (1, 5, 3)
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    for cfg, pick in ((Mean(), lambda rows: rows.mean(dim=0)), (LastToken(), lambda rows: rows[-1])):
        pooling = randomized(module.POOLINGS[type(cfg)](cfg, shape, DIM))
        for memory, row, length in zip(pooling(hidden, mask), hidden, lengths, strict=True):
            torch.testing.assert_close(memory.flatten(), pooling.project.weight @ pick(row[:length]))


@pytest.mark.parametrize(("chunk_len", "memory_dim", "num_slots"), [(5, 4, 1), (9, 4, 1), (3, 6, 2)])
def test_the_sliding_window_is_its_naive_twin(chunk_len: int, memory_dim: int, num_slots: int) -> None:
    shape = MemoryShape(vocab_size=10, chunk_len=chunk_len, memory_dim=memory_dim, num_slots=num_slots)
    unpooling = randomized(module.SlidingWindowUnpooling(SlidingWindow(), shape, DIM))
    memory = noise(1, 2, num_slots, memory_dim)
    width = num_slots * memory_dim
    for row, hidden in zip(memory.reshape(2, width), unpooling(memory), strict=True):
        for position in range(chunk_len):
            window = torch.stack([row[(position + k) % width] for k in range(width // 2)])
            torch.testing.assert_close(hidden[position], unpooling.project.weight @ window)


@few
@given(shapes, st.integers(1, 4))
def test_positional_maps_begin_block_diagonal_and_keep_the_scale(shape: MemoryShape, token_dim: int) -> None:
    cfg = Positional(token_dim=token_dim)
    gather = module.POOLINGS[type(cfg)](cfg, shape, DIM).gather.weight
    scatter = module.UNPOOLINGS[type(cfg)](cfg, shape, DIM).scatter.weight
    blocks, memory_dims, tokens = block_shape(shape)
    assert blocks * memory_dims == shape.num_slots * shape.memory_dim
    assert blocks * tokens == shape.chunk_len
    on_block = torch.block_diag(*[torch.ones(memory_dims, tokens * token_dim)] * blocks).bool()
    assert torch.all(gather[~on_block] == 0)
    assert torch.all(scatter[~on_block.T] == 0)
    # The smaller side's vectors are orthonormal; unpooling's are scaled so that rms 1 comes in and goes out.
    small = min(gather.shape)
    torch.testing.assert_close(torch.linalg.svdvals(gather), torch.ones(small), atol=1e-4, rtol=0)
    if memory_dims <= tokens * token_dim:
        memory = noise(0, 5, shape.num_slots * shape.memory_dim)
        torch.testing.assert_close((memory @ scatter.T).square().mean(1), memory.square().mean(1), rtol=1e-4, atol=1e-4)
