"""Structured recurrent mixers: one matrix over tokens, and a recurrence that is exactly the same."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm.config import RecurrentMixer, StackConfig
from memlm.nn import recurrent as nn
from memlm.nn.recurrent import State
from memlm.nn.stack import Stack
from tiny import randomized

DIM, BATCH = 8, 3
EXACT = {"rtol": 0.0, "atol": 1e-10}

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**20)
configs = st.builds(
    RecurrentMixer,
    num_heads=st.sampled_from([2, 4]),
    structure=st.sampled_from(["row", "column", "mixed"]),
    kernel=st.integers(1, 2),
    decay=st.booleans(),
    diagonal=st.booleans(),
)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixer(cfg: RecurrentMixer, window: int, seed: int = 0) -> nn.RecurrentMixer:
    """With weights of any size, zero too, and rates in and out of their range."""
    made = randomized(nn.RecurrentMixer(cfg, DIM, window, causal=True), seed).double()
    with torch.no_grad():
        made.places *= torch.tensor([0.0, 1e-200, 1.0, 3.0])[torch.arange(window) * 7 % 4, None, None]
        if made.rate is not None:
            made.rate.copy_(torch.tensor([0.95, 0.999, 0.5, 1.5])[: cfg.num_heads])
    return made


def by_stretches(model: nn.RecurrentMixer, hidden: Tensor, ends: list[int], state: State | None = None) -> Tensor:
    """Outputs of stretches of positions, which end where `ends` says, one after the other."""
    state, outputs = state or model.initial_state(len(hidden)), []
    for start, end in pairwise([0, *sorted({*ends, hidden.shape[1]} - {0})]):
        output, state = model.step(hidden[:, start:end], state)
        assert state.sums.shape == model.initial_state(len(hidden)).sums.shape
        outputs.append(output)
    return torch.cat(outputs, dim=1)


def naive(model: nn.RecurrentMixer, cfg: RecurrentMixer, hidden: Tensor) -> Tensor:
    """The definition: for each head and weight of the kernel, a product with an upper triangular matrix."""
    length, part = hidden.shape[1], DIM // cfg.num_heads
    values, mixed = hidden @ model.inward.weight.T, []
    for head in range(cfg.num_heads):
        own, x = model.places[:length, head], values[..., head * part : (head + 1) * part]
        decay = model.decay()[head] if cfg.decay else torch.tensor(1.0).double()
        is_row = cfg.structure == "row" or (cfg.structure == "mixed" and head < cfg.num_heads // 2)
        y = own[:, cfg.kernel, None].expand(BATCH, length, part)
        for k in range(cfg.kernel):
            shift = k - cfg.kernel // 2
            shifted = torch.zeros_like(x)
            for p in range(part):
                if 0 <= p + shift < part:
                    shifted[..., p] = x[..., p + shift]
            rows = [
                torch.stack(
                    [
                        own[i if is_row else j, k] * decay ** (j - i) if i <= j else own.new_zeros(())
                        for j in range(length)
                    ]
                )
                for i in range(length)
            ]
            y = y + torch.einsum("bip,ij->bjp", shifted, torch.stack(rows))
        mixed.append(y + own[:, cfg.kernel + 1, None] * x if cfg.diagonal else y)
    return torch.cat(mixed, dim=-1) @ model.outward.weight.T


@few
@given(configs, st.integers(1, 9), st.integers(0, 4), seeds)
def test_it_is_the_matrix_of_its_definition_in_outputs_and_gradients(
    cfg: RecurrentMixer, length: int, beyond: int, seed: int
) -> None:
    model, seen = mixer(cfg, length + beyond, seed), []
    forms: list[Any] = [
        lambda hidden: naive(model, cfg, hidden),
        model,
        lambda hidden: by_stretches(model, hidden, list(range(length))),
        lambda hidden: by_stretches(model, hidden, [seed % length]),
    ]
    for form in forms:
        hidden = noise(seed + 1, BATCH, length, DIM).requires_grad_()
        output = form(hidden)
        gradients = torch.autograd.grad((output * noise(seed + 2, *output.shape)).sum(), [hidden, *model.parameters()])
        seen.append((output, *gradients))
    for form in seen[1:]:
        for ours, twins in zip(form, seen[0], strict=True):
            torch.testing.assert_close(ours, twins, **EXACT)


@few
@given(
    configs, st.sampled_from([40, 511, 512, 1023, 1024, 2100]), st.integers(1, 20), st.lists(st.integers(0, 20)), seeds
)
def test_all_forms_agree_whatever_the_window_up_to_its_last_position(
    cfg: RecurrentMixer, window: int, stretch: int, ends: list[int], seed: int
) -> None:
    model, hidden = mixer(cfg, window, seed), noise(seed + 1, BATCH, 20, DIM)
    before = State(noise(seed + 2, BATCH, cfg.num_heads, DIM // cfg.num_heads), window - 20)
    outputs = [by_stretches(model, hidden, found, before) for found in ([], list(range(20)), ends)]
    model.stretch = stretch
    outputs += [by_stretches(model, hidden, found, before) for found in ([], ends)]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], **EXACT)


@few
@given(configs, st.lists(st.integers(0, 9), min_size=BATCH, max_size=BATCH), st.lists(st.integers(0, 10)), seeds)
def test_a_row_that_begins_later_is_what_it_is_alone(
    cfg: RecurrentMixer, late: list[int], ends: list[int], seed: int
) -> None:
    model, hidden = mixer(cfg, 10, seed), noise(seed + 1, BATCH, 10, DIM)
    garbage = torch.where(torch.arange(10)[:, None] < torch.tensor(late)[:, None, None], torch.nan, hidden)
    together = by_stretches(model, garbage, ends, model.initial_state(BATCH)._replace(late=torch.tensor(late)))
    for row, begins in enumerate(late):
        alone = model(hidden[row : row + 1, begins:])[0]
        torch.testing.assert_close(together[row, begins:], alone, **EXACT)


@pytest.mark.parametrize("window", [1, 7, 511, 512, 1023, 1024, 4096])
def test_rates_are_clipped_to_the_range_and_spread_over_the_window(window: int) -> None:
    model = nn.RecurrentMixer(RecurrentMixer(num_heads=4), DIM, window, causal=True).double()
    torch.testing.assert_close(model.decay(), torch.ones(4).double())
    with torch.no_grad():
        model.rate.copy_(torch.tensor([-3.0, 0.9, 0.99, 2.0]))
    times = {1: 1, 7: 1, 511: 1, 512: 1, 1023: 1, 1024: 2, 4096: 8}[window]
    expected = torch.tensor([0.9, 0.9, 0.99, 1.0]).double()
    torch.testing.assert_close(model.decay() ** times, expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(model.decay().sum(), model.rate)
    assert torch.all(gradient > 0), "a rate that has left the range can come back"


@pytest.mark.parametrize("structure", ["row", "column", "mixed"])
def test_a_position_whose_weights_are_zero_loses_nothing_of_the_past(structure: str) -> None:
    model = mixer(RecurrentMixer(num_heads=4, structure=structure, diagonal=False), 6)
    with torch.no_grad():
        model.places.fill_(1.0)
        model.places[2:5] = 0.0
    state, hidden = model.initial_state(1), noise(0, 1, 6, DIM)
    outputs = []
    for position in hidden.split(1, dim=1):
        output, state = model.step(position, state)
        outputs.append(output)
    assert torch.isfinite(torch.cat(outputs, dim=1)).all()
    other = hidden.clone()
    other[:, 1] += 1.0
    assert (model(other) - model(hidden))[:, 5].abs().min() > 1e-6


def test_what_lies_past_the_window_is_refused() -> None:
    model = mixer(RecurrentMixer(num_heads=4), 5)
    _, state = model.step(noise(0, 1, 5, DIM), model.initial_state(1))
    for hidden, before in ((noise(0, 1, 6, DIM), model.initial_state(1)), (noise(0, 1, 1, DIM), state)):
        with pytest.raises(
            ValueError, match=r"weights for the 5 positions .* none for position 6: train with a longer"
        ):
            model.step(hidden, before)
    with pytest.raises(ValueError, match="none for position 6"):
        model(noise(0, 1, 6, DIM))


@pytest.mark.parametrize("decay", [False, True])
def test_sums_are_precise_where_weights_and_activations_are_not(decay: bool) -> None:
    model = nn.RecurrentMixer(RecurrentMixer(structure="column", decay=decay), DIM, 4000, causal=True)
    torch.nn.init.eye_(model.inward.weight)
    exact = torch.full((1, 8, 1), 4000.0)
    ones = torch.ones(1, 4000, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = model.step(ones, model.initial_state(1))
    torch.testing.assert_close(state.sums, exact)
    model = model.bfloat16()
    output, state = model.step(ones.bfloat16(), model.initial_state(1))
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(state.sums, exact)


def test_a_mixer_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="num_heads 3 must be even"):
        RecurrentMixer(num_heads=3)
    RecurrentMixer(num_heads=3, structure="row")
    with pytest.raises(ValueError, match="kernel must be positive, not 0"):
        RecurrentMixer(kernel=0)
    stack = StackConfig(dim=DIM, mixer=RecurrentMixer(num_heads=4, kernel=2), causal=True)
    with pytest.raises(ValueError, match=r"kernel 3 is wider than a head, dim / num_heads = 2"):
        replace(stack, mixer=RecurrentMixer(num_heads=4, kernel=3))
    with pytest.raises(ValueError, match=r"reads from left to right only: set causal=true, in an encoder too"):
        replace(stack, causal=False)


def test_a_stack_takes_many_positions_at_once_too() -> None:
    cfg = StackConfig(dim=DIM, mixer=RecurrentMixer(num_heads=2), causal=True)
    model, hidden = randomized(Stack(cfg, 12)).double(), noise(0, BATCH, 12, DIM)
    first, state = model.step(hidden[:, :5], model.initial_state(BATCH))
    second, _ = model.step(hidden[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), model(hidden), **EXACT)
