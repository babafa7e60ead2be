"""Searching for the text whose memory is at hand."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm import TextAutoencoder
from memlm.models.autoencoder import Autoencoder
from memlm.models.correction import QUICK, THOROUGH, corrected, distances, smallest_move
from memlm.models.decoded import decode, token_mask
from tiny import randomized, tiny_model

TYPES, LENGTH = 50, 48


class Sum:
    """An encoder that adds up what each token at each place stands for; places may be given less weight."""

    def __init__(self, dim: int, *, end_token: bool = False) -> None:
        self.shape = SimpleNamespace(
            vocab_size=TYPES, chunk_len=LENGTH, num_slots=1, memory_dim=dim, end_token=end_token, num_bits=None
        )
        self.vectors = torch.randn(LENGTH, TYPES + 1, dim, generator=torch.Generator().manual_seed(1)) / dim**0.5
        self.embed = torch.nn.Embedding.from_pretrained(torch.eye(TYPES + 1))

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.of_embedded(self.embedded(torch.where(mask, tokens, TYPES)), mask)

    def embedded(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens)

    def of_embedded(self, embedded: Tensor, mask: Tensor) -> Tensor:
        return torch.einsum("bnt,ntd->bd", embedded, self.vectors)[:, None]


def coded(dim: int, wrong: int, *, seed: int = 0, bumpy: float = 0.0) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A model, a chunk, its memory, and logits of which so many put another token first and the right one fourth."""
    made = torch.Generator().manual_seed(seed)
    model = SimpleNamespace(encoder=Sum(dim))
    right = torch.randint(TYPES, (1, LENGTH), generator=made)
    logits = torch.randn(1, LENGTH, TYPES, generator=made).clamp_max(1.0)
    logits.scatter_(-1, right[..., None], 6.0)
    for place in torch.randperm(LENGTH, generator=made)[:wrong].tolist():
        others = [token for token in range(TYPES) if token != int(right[0, place])][:3]
        logits[0, place] = logits[0, place].clamp_max(1.0)
        logits[0, place, others] = torch.tensor([4.0, 3.5, 3.0])
        logits[0, place, right[0, place]] = 2.5
    memory = model.encoder(right, torch.ones_like(right, dtype=torch.bool))
    return model, right, memory + bumpy * torch.randn(memory.shape, generator=made), logits


@pytest.mark.parametrize("wrong", [1, 4, 8])
@pytest.mark.parametrize("bumpy", [0.0, 0.02])
def test_many_wrong_tokens_are_found_at_once(wrong: int, bumpy: float) -> None:
    model, right, memory, logits = coded(32, wrong, bumpy=bumpy)
    first = logits.argmax(-1)
    assert int((first != right).sum()) == wrong
    found, distance = corrected(model, memory, logits, first, told=True, effort=THOROUGH)
    assert torch.equal(found, right)
    assert distance == pytest.approx(float(distances(model, memory, right)), abs=1e-6)


def test_a_noisy_memory_of_an_unlikely_text_is_not_believed() -> None:
    model, right, memory, logits = coded(16, 0, bumpy=0.5)
    found, _ = corrected(model, memory, logits, right, told=True, effort=THOROUGH)
    assert torch.equal(found, right)


def test_what_a_token_moves_a_memory_by_at_least() -> None:
    model, right, _, logits = coded(32, 0)
    model.encoder.vectors[7] *= 1e-3
    others = logits.scatter(-1, right[..., None], -torch.inf).topk(15).indices
    memory, at = model.encoder(right, right >= 0), torch.arange(LENGTH)
    moved = torch.tensor(
        [
            [float(distances(model, memory, torch.where(at == one, token, right))) for token in others[0, one]]
            for one in range(LENGTH)
        ]
    )
    assert moved.min() == moved[7].min()
    assert float(smallest_move(model, logits, right, 9.0, told=True)) == pytest.approx(float(moved.min()), rel=1e-3)
    sure = logits.scatter(-1, right[..., None], 100.0)
    assert smallest_move(model, sure, right, 9.0, told=True).isinf().all()


texts = st.lists(st.lists(st.integers(0, 299), min_size=1, max_size=16), min_size=1, max_size=3)


@settings(max_examples=8, deadline=None)
@given(texts)
def test_a_thorough_search_is_never_further_away(trained: TextAutoencoder, texts: list[list[int]]) -> None:
    model = trained.model
    types = torch.full((len(texts), 16), 300)
    for row, text in zip(types, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    mask = types < 300
    with torch.no_grad():
        memory = model.encoder(types * mask, mask)
    usual, thorough = decode(model, memory), decode(model, memory, thorough=True)
    away = [distances(model, memory, torch.where(each.mask, each.tokens, 300)) for each in (usual, thorough)]
    assert (away[1] <= away[0] + 1e-6).all()
    assert (thorough.proven >= usual.proven).all()
    right = torch.where(thorough.mask, thorough.tokens, 300) == types
    assert torch.equal(thorough.proven, right.all(1))
    if usual.proven.all():
        assert torch.equal(usual.tokens, thorough.tokens)


def test_a_chunk_is_corrected_alike_whatever_is_beside_it() -> None:
    parts = [coded(32, wrong, seed=wrong) for wrong in (2, 5, 14)]
    model = parts[0][0]
    memory, logits = (torch.cat([part[index] for part in parts]) for index in (2, 3))
    together, _ = corrected(model, memory, logits, logits.argmax(-1), told=True, effort=THOROUGH)
    for number, (_, _, own, opinion) in enumerate(parts):
        alone, _ = corrected(model, own, opinion, opinion.argmax(-1), told=True, effort=THOROUGH)
        assert torch.equal(together[number], alone[0])


def test_a_quick_search_looks_at_the_least_certain_places() -> None:
    model, right, memory, logits = coded(32, 3)
    found, _ = corrected(model, memory, logits, logits.argmax(-1), told=True, effort=QUICK)
    assert torch.equal(found, right)


def test_a_token_that_hardly_moves_the_memory_is_not_proven() -> None:
    model, right, _, logits = coded(32, 0)
    model.encoder.vectors[7] *= 1e-3
    memory = model.encoder(right, right >= 0)
    logits = logits.scatter(-1, right[..., None], 20.0)
    logits[0, 7] = torch.linspace(1, 0, TYPES)  # the decoder cannot tell
    logits[0, 7, right[0, 7]] = 0.5
    model.decoder = lambda _: logits
    usual, thorough = (decode(model, memory, torch.tensor([LENGTH]), thorough=each) for each in (False, True))
    assert distances(model, memory, usual.tokens) < QUICK.enough
    assert not torch.equal(usual.tokens, right)
    assert not usual.proven
    assert usual.unsure[0].nonzero().flatten().tolist() == [7]
    assert torch.equal(thorough.tokens, right)
    assert thorough.proven


def test_a_token_is_doubted_beside_several_others() -> None:
    model, right, _, logits = coded(32, 0)
    logits[0, 7] = torch.linspace(3, 0, TYPES)
    wrong = right.clone()
    wrong[0, 7] = 3
    model.encoder.vectors[7, 9] = model.encoder.vectors[7, 3]  # the tenth most likely
    assert float(smallest_move(model, logits, wrong, 4.0, told=True)) < 1e-6


def test_a_rounded_memory_proves_only_what_the_decoder_is_sure_of() -> None:
    cfg = tiny_model()
    model = randomized(Autoencoder(replace(cfg, shape=replace(cfg.shape, memory_dim=2, num_bits=1)))).eval()
    tokens = torch.randint(300, (64, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        memory = model.encoder(tokens, tokens >= 0)
    found = decode(model, memory)
    same = distances(model, memory, torch.where(found.mask, found.tokens, 300)) == 0
    assert same.any(), "other texts have the same memory"
    assert not (found.tokens == tokens).all(1).any()
    assert not decode(model, memory, thorough=True).proven.any()
    assert not found.proven.any()


@pytest.mark.parametrize("end_token", [False, True])
def test_short_texts_are_searched_for_too(end_token: bool) -> None:
    cfg = tiny_model()
    model = randomized(Autoencoder(replace(cfg, shape=replace(cfg.shape, end_token=end_token)))).eval()
    lengths = torch.tensor([1, 3, 9, 16])
    mask = token_mask(lengths, 16)
    tokens = torch.randint(300, (4, 16), generator=torch.Generator().manual_seed(0)) * mask
    with torch.no_grad():
        memory = model.encoder(tokens, mask)
    for told in {True, not end_token}:
        usual, thorough = (decode(model, memory, lengths if told else None, thorough=each) for each in (False, True))
        types = [torch.where(each.mask, each.tokens, 300) for each in (usual, thorough)]
        away = [distances(model, memory, each) for each in types]
        assert (away[1] <= away[0] + 1e-6).all()
        if told:
            assert torch.equal(thorough.num_tokens, lengths)
            assert thorough.proven[0], "one token is soon found"
