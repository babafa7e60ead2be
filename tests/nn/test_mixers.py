import cmath
import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memlm.config import Attention, Mamba, MaskedMixer, Mixer, RecurrentMixer, StackConfig
from memlm.nn import stack as module
from memlm.nn.linear import block_orthogonal
from memlm.nn.stack import Stack
from tiny import randomized

MIXERS: tuple[Mixer, ...] = (
    Attention(num_heads=2),
    MaskedMixer(num_heads=4),
    RecurrentMixer(num_heads=4, kernel=2),
    Mamba(state_size=3, kernel=3),
)
DIM = 8

few = settings(max_examples=40, deadline=None)
mixers = st.sampled_from(MIXERS)
kinds = st.sampled_from(
    [(mixer, causal) for mixer in MIXERS for causal in (True, False) if causal or not mixer.causal_only]
)
either_way = [mixer for mixer in MIXERS if not mixer.causal_only]
seeds = st.integers(0, 2**20)


@st.composite
def places(draw: Any) -> tuple[int, int]:
    """A length, and a position in it."""
    length = draw(st.integers(1, 9))
    return length, draw(st.integers(0, length - 1))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stack(mixer: Mixer, length: int, causal: bool, seed: int) -> Stack:
    cfg = StackConfig(dim=DIM, num_layers=2, mlp_ratio=1.5, mixer=mixer, causal=causal)
    return randomized(Stack(cfg, length), seed).double()


def prefix_mask(batch: int, length: int, num_real: int) -> Tensor:
    return (torch.arange(length) < num_real).expand(batch, length)


@few
@given(kinds, places(), seeds)
def test_a_token_changes_what_comes_after_it_and_what_comes_before_only_if_not_causal(
    kind: tuple[Mixer, bool], place: tuple[int, int], seed: int
) -> None:
    (mixer, causal), (length, changed_at) = kind, place
    model, hidden = stack(mixer, length, causal, seed), noise(seed + 1, 2, length, DIM)
    other = hidden.clone()
    other[:, changed_at] += noise(seed + 2, 2, DIM)
    moved = (model(hidden) - model(other)).abs().amax(dim=(0, 2))
    assert torch.all(moved[changed_at:] > 1e-9)
    assert torch.all(moved[:changed_at] == 0 if causal else moved[:changed_at] > 1e-9)


@few
@given(kinds, places(), seeds)
def test_what_stands_at_the_padding_changes_nothing(
    kind: tuple[Mixer, bool], place: tuple[int, int], seed: int
) -> None:
    (mixer, causal), length, num_real = kind, place[0], place[1] + 1
    model, hidden = stack(mixer, length, causal, seed), noise(seed + 1, 2, length, DIM)
    mask = prefix_mask(2, length, num_real)
    garbage = torch.where(mask[..., None], hidden, 1e3 * noise(seed + 2, 2, length, DIM))
    torch.testing.assert_close(model(hidden, mask)[:, :num_real], model(garbage, mask)[:, :num_real])


@few
@given(kinds, places(), seeds)
def test_padded_is_unpadded(kind: tuple[Mixer, bool], place: tuple[int, int], seed: int) -> None:
    (mixer, causal), length, num_real = kind, place[0], place[1] + 1
    model, hidden = stack(mixer, length, causal, seed), noise(seed + 1, 2, length, DIM)
    short = stack(mixer, num_real, causal, seed)
    fitting = {name: tuple(slice(size) for size in weight.shape) for name, weight in short.state_dict().items()}
    weights = {name: weight[fitting[name]] for name, weight in model.state_dict().items()}
    short.load_state_dict(weights)
    padded = model(hidden, prefix_mask(2, length, num_real))[:, :num_real]
    torch.testing.assert_close(padded, short(hidden[:, :num_real]))


@few
@given(mixers, places(), seeds)
def test_one_position_at_a_time_is_all_at_once(mixer: Mixer, place: tuple[int, int], seed: int) -> None:
    length, num_read = place[0], place[1] + 1
    model, hidden = stack(mixer, length, True, seed), noise(seed + 1, 3, num_read, DIM)
    state, outputs = model.initial_state(3), []
    for position in hidden.split(1, dim=1):
        output, state = model.step(position, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), model(hidden))


@pytest.mark.parametrize("mixer", either_way)
def test_what_is_not_causal_has_no_next_position(mixer: Mixer) -> None:
    model = stack(mixer, 5, False, 0)
    with pytest.raises(ValueError, match="only a causal stack can be stepped"):
        model.step(noise(0, 1, 1, DIM), model.initial_state(1))


# --- naive twins ---


def naive_attention(mixer: nn.Module, hidden: Tensor, mask: Tensor, causal: bool) -> Tensor:
    """Softmax attention one position at a time; rotary positions as turning complex numbers."""
    batch, length, dim = hidden.shape
    num_heads, head_dim = mixer.num_heads, dim // mixer.num_heads
    query, key, value = (hidden @ w.T for w in mixer.inward.weight.split(dim))

    def turned(vector: Tensor, position: int) -> Tensor:
        half = head_dim // 2
        turns = [cmath.exp(1j * position * 10_000 ** (-2 * k / head_dim)) for k in range(half)]
        numbers = torch.complex(vector[:half], vector[half:]) * torch.tensor(turns, dtype=torch.complex128)
        return torch.cat([numbers.real, numbers.imag])

    rows = []
    for b, i in product(range(batch), range(length)):
        parts = []
        for head in range(num_heads):
            dims = slice(head * head_dim, (head + 1) * head_dim)
            seen = [j for j in range(length) if (j <= i or not causal) and mask[b, j]]
            q = turned(query[b, i, dims], i)
            scores = torch.stack([q @ turned(key[b, j, dims], j) / math.sqrt(head_dim) for j in seen])
            weights = scores.exp() / scores.exp().sum()
            parts.append(sum(weight * value[b, j, dims] for weight, j in zip(weights, seen, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows).view(batch, length, dim) @ mixer.outward.weight.T


def naive_masked_mixer(mixer: nn.Module, hidden: Tensor, mask: Tensor, causal: bool) -> Tensor:
    values = torch.einsum("btd,ed->bte", hidden * mask[..., None], mixer.inward.weight)
    parts = []
    for weight, part in zip(mixer.weight, values.chunk(len(mixer.weight), dim=-1), strict=True):
        seen = torch.tril(weight) if causal else weight
        parts.append(torch.einsum("ts,bsd->btd", seen, part))
    return torch.einsum("btd,ed->bte", torch.cat(parts, dim=-1), mixer.outward.weight)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("mixer", "naive"), list(zip(either_way, (naive_attention, naive_masked_mixer), strict=True)))
def test_each_mixer_is_its_naive_twin_in_outputs_and_gradients(mixer: Mixer, naive: Any, causal: bool) -> None:
    length, num_real = 7, 5
    model = randomized(module.MIXERS[type(mixer)](mixer, DIM, length, causal)).double()
    mask = prefix_mask(3, length, num_real)
    seen = []
    for forward in (model, lambda hidden, mask: naive(model, hidden, mask, causal)):
        hidden = noise(1, 3, length, DIM).requires_grad_()
        output = forward(hidden, mask)[:, :num_real]
        gradients = torch.autograd.grad((output * noise(2, *output.shape)).sum(), [hidden, *model.parameters()])
        seen.append((output, *gradients))
    for ours, twins in zip(*seen, strict=True):
        torch.testing.assert_close(ours, twins, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_fresh_stack_is_the_normalized_identity_and_an_empty_batch_is_no_error(mixer: Mixer) -> None:
    model = Stack(StackConfig(dim=DIM, mixer=mixer, causal=mixer.causal_only), 5)
    hidden = noise(0, 2, 5, DIM).float()
    torch.testing.assert_close(model(hidden), torch.nn.functional.layer_norm(hidden, (DIM,)))
    assert model(hidden[:0]).shape == (0, 5, DIM)


@few
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_block_orthogonal_is_orthogonal_and_zero_off_its_blocks(blocks: int, rows: int, columns: int) -> None:
    matrix = block_orthogonal(blocks, rows, columns)
    product_ = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    torch.testing.assert_close(product_, torch.eye(len(product_)), atol=1e-5, rtol=0)
    on_block = torch.block_diag(*[torch.ones(rows, columns)] * blocks).bool()
    assert torch.all(matrix[~on_block] == 0)


def test_mamba_is_that_of_transformers() -> None:
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    own = randomized(module.Mamba(Mamba(state_size=3, kernel=3), DIM, 9, causal=True), 0)
    other = MambaMixer(MambaConfig(hidden_size=DIM, state_size=3, conv_kernel=3, expand=2), layer_idx=0)
    weights = {
        "A_log": own.log_decay.view(-1, 3),
        "D": own.skip,
        "conv1d.weight": own.convolution.weight,
        "conv1d.bias": own.convolution.bias,
        "in_proj.weight": own.inward.weight,
        "x_proj.weight": own.selection.weight,
        "dt_proj.weight": own.step_size.weight,
        "dt_proj.bias": own.step_size.bias,
        "out_proj.weight": own.outward.weight,
    }
    other.load_state_dict(weights)
    hidden = noise(1, 2, 9, DIM).float()
    torch.testing.assert_close(own(hidden), other(hidden))
