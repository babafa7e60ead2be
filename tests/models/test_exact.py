"""The exact decoder: the same bits, however sums are ordered, batches are cut and numbers are held."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm import TextAutoencoder
from memlm.config import Attention, ContextConfig
from memlm.data.texts import evaluation_documents
from memlm.models import exact
from memlm.models.autoencoder import Autoencoder
from memlm.models.exact import ExactDecoder, WholeProduct, exact_norm, has_exact_form, shares
from tiny import randomized, tiny_model


@pytest.fixture(params=["english", "in context"])
def decoder(request: pytest.FixtureRequest, english: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> ExactDecoder:
    """In float32; in int8 it is what `test_int8_makes_no_difference` compares."""
    monkeypatch.setattr(exact, "has_int8", lambda device: False)
    return made(request.param, english)


def made(name: str, english: TextAutoencoder) -> ExactDecoder:
    if name == "english":
        return ExactDecoder(english.model)
    torch.manual_seed(0)
    cfg = tiny_model(context=ContextConfig(num_tokens=3, dim=16, inner=24))
    return ExactDecoder(randomized(Autoencoder(cfg)), in_context=True)


def frequencies(decoder: ExactDecoder, num_chunks: int = 3) -> Tensor:
    """Of all places, after made-up tokens."""
    random = torch.Generator().manual_seed(1)
    dim = decoder._scatter.weight.shape[-1]
    states = decoder.states(torch.randn(num_chunks, 1, dim, generator=random)).flatten(0, 1)
    before = None
    if decoder.context is not None:
        before = torch.randint(decoder.context.none + 1, (len(states), decoder.context.num_tokens), generator=random)
    return widths(decoder.ranked(states, before).ends(torch.arange(len(states))))


def widths(ends: Tensor) -> Tensor:
    """Of intervals that end there, one behind the other."""
    return ends.diff(dim=-1, prepend=torch.zeros_like(ends[:, :1]))


def test_no_order_of_sums_makes_a_difference(decoder: ExactDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, product = frequencies(decoder), torch.matmul
    order = torch.Generator().manual_seed(2)

    def permuted(left: Tensor, right: Tensor) -> Tensor:
        places = torch.randperm(left.shape[-1], generator=order)
        return product(left[..., places], right[..., places, :])

    def in_pieces(left: Tensor, right: Tensor) -> Tensor:
        parts = torch.arange(left.shape[-1]).split(7)
        return sum((product(left[..., part], right[..., part, :]) for part in reversed(parts)), torch.zeros(()))

    def in_whole_numbers(left: Tensor, right: Tensor) -> Tensor:
        assert torch.equal(left, left.round())
        assert torch.equal(right, right.round())
        return product(left.long(), right.long()).float()

    def in_float64(left: Tensor, right: Tensor) -> Tensor:
        return product(left.double(), right.double()).float()

    for other in (permuted, in_pieces, in_whole_numbers, in_float64):
        monkeypatch.setattr(torch, "matmul", other)
        assert torch.equal(frequencies(decoder), expected), other.__name__


@pytest.mark.parametrize("name", ["english", "in context"])
def test_int8_makes_no_difference(name: str, english: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right wherever torch has it, if not fast."""
    found = []
    for with_int8 in (False, True):
        monkeypatch.setattr(exact, "has_int8", lambda device, answer=with_int8: answer)
        decoder = made(name, english)
        assert decoder._head.weight.dtype == (torch.int8 if with_int8 else torch.float32)
        found.append(frequencies(decoder, 5))
    assert torch.equal(*found)


def test_neither_batches_nor_threads_nor_settings_make_a_difference(decoder: ExactDecoder) -> None:
    expected, threads = frequencies(decoder, 5), torch.get_num_threads()
    states = expected.view(5, -1, expected.shape[-1])
    random = torch.randn(5, 1, decoder._scatter.weight.shape[-1], generator=torch.Generator().manual_seed(3))
    whole = decoder.states(random)
    assert all(torch.equal(decoder.states(random[row : row + 1])[0], whole[row]) for row in range(5))
    assert states.shape[1] == whole.shape[1]
    try:
        torch.set_num_threads(threads + 1)
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(frequencies(decoder, 5), expected)
        assert torch.get_float32_matmul_precision() == "medium", "it was put back"
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")


def test_frequencies_are_whole_numbers_that_leave_none_out(decoder: ExactDecoder) -> None:
    found = frequencies(decoder)
    assert found.dtype == torch.int32
    assert found.min() >= 1
    totals = found.double().sum(dim=-1)
    assert totals.max() <= 2**24
    assert totals.min() > 2**24 - 3 * found.shape[-1], "next to nothing is lost"


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_no_sum_leaves_what_float32_holds(data: st.DataObject) -> None:
    dims = data.draw(st.tuples(st.integers(1, 600), st.integers(1, 5)))
    seed, size = data.draw(st.integers(0, 99)), 10.0 ** data.draw(st.integers(-20, 20))
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(dims[1], dims[0], generator=random) * size
    product, inputs = WholeProduct(weight), torch.randn(4, dims[0], generator=random) / size
    assert product.weight.abs().amax() <= 127
    assert product.weight.double().abs().sum(dim=-1).max() * product.largest_input < 2**24
    whole, _ = exact.rounded(inputs, product.largest_input)
    assert whole.abs().max() <= product.largest_input
    scale = (inputs.abs().amax() * weight.abs().amax()).item() * dims[0]
    assert (product(inputs) - inputs @ weight.T).abs().max() <= 0.01 * scale


def test_rows_of_zeros_and_equal_numbers_are_no_trouble() -> None:
    product = WholeProduct(torch.zeros(2, 3))
    assert torch.equal(product(torch.ones(1, 3)), torch.zeros(1, 2))
    assert torch.equal(WholeProduct(torch.ones(2, 3))(torch.zeros(1, 3)), torch.zeros(1, 2))
    assert torch.equal(exact_norm(torch.full((1, 1, 8), 7.0)), torch.zeros(1, 1, 8))
    hidden = torch.randn(2, 5, 64) * 3 + 1
    assert (exact_norm(hidden) - torch.nn.functional.layer_norm(hidden, (64,))).abs().max() < 1e-3


def test_shares_are_powers_of_two_rounded_down() -> None:
    table = shares()
    assert [int(table[16 * number]) for number in range(25)] == [2 ** (24 - number) for number in range(25)]
    assert int(table[-1]) == 0
    exponents = 24 - torch.arange(len(table) - 1, dtype=torch.float64) / 16
    assert (torch.exp2(exponents) - table[:-1]).min() > -1e-6
    assert (torch.exp2(exponents) - table[:-1]).max() < 1 + 1e-6


def test_it_is_what_it_was(english: TextAutoencoder) -> None:
    """Files are read for ever: nothing that decides a frequency may change."""
    found = frequencies_of(ExactDecoder(english.model), numbers(512, 32)[None, None])
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == "3454c6c8d965975d"
    model = Autoencoder(tiny_model(context=ContextConfig(num_tokens=3, dim=16, inner=24)))
    for parameter in model.parameters():
        parameter.data = numbers(parameter.numel(), 4 * parameter.shape[-1] ** 0.5).view(parameter.shape)
    before = torch.arange(16 * 3).view(16, 3) * 97 % 302
    found = frequencies_of(ExactDecoder(model, in_context=True), numbers(32, 32)[None, None], before)
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == "4d3af3316be11b50"


def numbers(count: int, divisor: float) -> Tensor:
    """Some that no generator has to make again."""
    return (torch.arange(count) * 37 % 101 - 50) / divisor


def frequencies_of(decoder: ExactDecoder, memory: Tensor, before: Tensor | None = None) -> Tensor:
    states = decoder.states(memory)[0]
    return widths(decoder.ranked(states, before).ends(torch.arange(len(states))))


def test_it_expects_what_the_decoder_does(english: TextAutoencoder) -> None:
    """Rounding costs next to nothing."""
    text = evaluation_documents("novel")[1].text[:4000]
    tokens = english.tokenizer.encode(text)[: 8 * 128].reshape(8, 128)
    memory = english.model.encoder(torch.from_numpy(tokens).long(), torch.ones(8, 128, dtype=torch.bool))
    noisy = memory + 0.15 * torch.randn(memory.shape, generator=torch.Generator().manual_seed(0))
    decoder, right = ExactDecoder(english.model), torch.from_numpy(tokens).long()
    best = decoder.ranked(decoder.states(noisy).flatten(0, 1)).best.view(8, 128)
    likeliest = english.token_logits(noisy).argmax(dim=-1)
    accuracies = [(found == right).float().mean() for found in (best, likeliest)]
    assert 0.5 < accuracies[1] < 1
    assert abs(accuracies[0] - accuracies[1]) < 0.01


def test_models_with_other_parts_have_no_exact_form() -> None:
    cfg = tiny_model()
    assert has_exact_form(cfg)
    other = type(cfg.decoder)(dim=cfg.decoder.dim, mixer=Attention(num_heads=4))
    assert not has_exact_form(tiny_model(decoder=other))
