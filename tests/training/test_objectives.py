import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memlm.config import Attention, LanguageModelConfig, StackConfig
from memlm.data.chunks import Chunks
from memlm.models.autoencoder import Regeneration
from memlm.models.batch import Batch
from memlm.models.language_model import LanguageModel
from memlm.training.objectives import CAUSAL, RETENTION, crop_len, retrieval
from tiny import randomized

VOCAB, LENGTH = 11, 6
ROW = 9
lengths = st.lists(st.integers(1, LENGTH), min_size=1, max_size=5)


def batch_of(*num_tokens: int, seed: int = 0, length: int = LENGTH) -> Batch:
    """Random texts of these lengths, with random tokens at the padding."""
    tokens = torch.randint(VOCAB, (len(num_tokens), length), generator=torch.Generator().manual_seed(seed))
    return Batch(tokens, torch.arange(length) < torch.tensor(num_tokens)[:, None])


class Fixed(nn.Module):
    """Gives the same logits whatever it is given."""

    def __init__(self, num_texts: int, *, regenerates: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(num_texts, LENGTH, VOCAB, generator=torch.Generator().manual_seed(1)))
        self.regenerates = regenerates

    def forward(self, tokens: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor | Regeneration:
        return Regeneration(self.logits, torch.zeros(len(tokens), 1, 1)) if self.regenerates else self.logits


@settings(max_examples=30, deadline=None)
@given(lengths)
def test_causal_nats_are_the_cross_entropy_of_the_tokens_shifted_by_one(num_tokens: list[int]) -> None:
    batch, model = batch_of(*num_tokens), Fixed(len(num_tokens), regenerates=False)
    expected = torch.zeros(())
    for row, length in enumerate(num_tokens):
        for place in range(1, length):
            expected = expected + F.cross_entropy(model.logits[row, place - 1], batch.tokens[row, place])
    nats = CAUSAL.nats(model, batch)
    torch.testing.assert_close(nats, expected)
    assert CAUSAL.count(batch) == sum(length - 1 for length in num_tokens)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad(expected, model.logits)
        (gradient,) = torch.autograd.grad(nats, model.logits)
        torch.testing.assert_close(gradient, wanted)


@settings(max_examples=30, deadline=None)
@given(lengths)
def test_retention_nats_are_the_cross_entropy_of_the_tokens_themselves(num_tokens: list[int]) -> None:
    batch, model = batch_of(*num_tokens), Fixed(len(num_tokens), regenerates=True)
    expected = F.cross_entropy(model.logits[batch.mask], batch.tokens[batch.mask], reduction="sum")
    torch.testing.assert_close(RETENTION.nats(model, batch), expected)
    assert RETENTION.count(batch) == batch.num_tokens == sum(num_tokens)


def test_nothing_but_certainty_costs_nothing() -> None:
    batch, model = batch_of(LENGTH, 3), Fixed(2, regenerates=False)
    right = F.one_hot(batch.tokens.roll(-1, dims=1), VOCAB) * 50.0
    model.logits.data = right.float()
    assert CAUSAL.nats(model, batch).item() < 1e-6
    model.logits.data.zero_()
    assert CAUSAL.nats(model, batch).item() == pytest.approx(CAUSAL.count(batch) * math.log(VOCAB))


@settings(max_examples=30, deadline=None)
@given(lengths, st.integers(1, 3))
def test_a_batchs_portions_add_up(num_tokens: list[int], size: int) -> None:
    batch = batch_of(*num_tokens)
    model = nn.Sequential(nn.Embedding(VOCAB, VOCAB))
    model.forward = lambda tokens, mask: model[0](tokens)  # type: ignore[method-assign]
    portions = [batch.rows(slice(start, start + size)) for start in range(0, len(num_tokens), size)]
    nats = [CAUSAL.nats(model, portion) for portion in portions]
    torch.testing.assert_close(torch.stack(nats).sum(), CAUSAL.nats(model, batch), rtol=1e-4, atol=1e-4)
    assert sum(CAUSAL.count(portion) for portion in portions) == CAUSAL.count(batch)


# --- retrieval ---


class Looked(nn.Module):
    """A `LayeredModel` whose states are rows of a table: a text's direction is its last token's row."""

    num_layers = 3

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]

    def states(self, embedded: Tensor, mask: Tensor, layers: Sequence[int]) -> list[Tensor]:
        assert list(layers) == [self.num_layers]
        return [embedded]


def table(seed: int = 0) -> Tensor:
    return torch.randn(VOCAB, 5, generator=torch.Generator().manual_seed(seed))


def pairs_of(*num_tokens: int, seed: int = 0) -> Batch:
    """Rows that give two texts of `LENGTH` each; the second begins at the row's `ROW - LENGTH`-th token."""
    return batch_of(*num_tokens, seed=seed, length=ROW)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 2.0])
def test_retrieval_nats_are_those_of_a_naive_info_nce(temperature: float) -> None:
    batch = pairs_of(ROW, ROW, LENGTH - 1, LENGTH + 2)
    vectors = table().double().numpy()
    last_of_first = [int(row[place]) for row, place in zip(batch.tokens, (5, 5, 4, 5), strict=True)]
    last_of_second = [int(row[place]) for row, place in zip(batch.tokens, (8, 8, 4, 7), strict=True)]
    expected = 0.0
    for own, query in enumerate(last_of_first):
        cosines = [
            vectors[query] @ vectors[key] / np.linalg.norm(vectors[query]) / np.linalg.norm(vectors[key])
            for key in last_of_second
        ]
        weights = np.exp(np.array(cosines) / temperature)
        expected -= np.log(weights[own] / weights.sum())
    objective = retrieval(temperature)
    assert objective.nats(Looked(table()), batch).item() == pytest.approx(expected, rel=1e-4)
    assert objective.count(batch) == 4
    assert objective.name == "retrieval"


def test_identical_directions_can_only_be_guessed() -> None:
    batch = pairs_of(*[ROW] * 7)
    same = torch.ones(VOCAB, 5) * torch.arange(1, VOCAB + 1)[:, None]  # of any length
    objective = retrieval(0.05)
    mean = objective.nats(Looked(same), batch).item() / objective.count(batch)
    assert mean == pytest.approx(math.log(7), rel=1e-4)


def matching(num_pairs: int) -> Batch:
    """Pairs whose texts end in the same token, another for each pair."""
    batch = pairs_of(*[ROW] * num_pairs)
    batch.tokens[:, LENGTH - 1] = batch.tokens[:, -1] = torch.arange(num_pairs)
    return batch


def test_pairs_that_match_cost_less_the_sharper_they_are_told_apart() -> None:
    batch, model = matching(5), Looked(torch.eye(VOCAB))
    temperatures = [2.0, 1.0, 0.3, 0.1, 0.03]
    nats = [retrieval(temperature).nats(model, batch).item() for temperature in temperatures]
    known = [5 * math.log1p(4 * math.exp(-1 / temperature)) for temperature in temperatures]
    np.testing.assert_allclose(nats, known, rtol=1e-3, atol=1e-5)
    assert nats == sorted(nats, reverse=True)
    assert nats[-1] < 1e-4


def test_another_pairs_text_in_its_place_costs_more() -> None:
    batch, model, objective = matching(5), Looked(torch.eye(VOCAB)), retrieval(0.3)
    tokens = batch.tokens.clone()
    tokens[:, -1] = tokens[:, -1].roll(1)
    assert objective.nats(model, batch._replace(tokens=tokens)) > objective.nats(model, batch) + 5.0


def test_retrieval_reads_each_text_on_its_own_and_not_the_padding() -> None:
    stack = StackConfig(dim=16, num_layers=2, mixer=Attention(num_heads=2), causal=True)
    model = randomized(LanguageModel(LanguageModelConfig(vocab_size=VOCAB, chunk_len=LENGTH, stack=stack)))
    batch = pairs_of(ROW, ROW - LENGTH + 1, ROW - 2)
    objective = retrieval(0.3)
    nats = objective.nats(model, batch)  # the model reads texts of LENGTH only
    other = torch.where(batch.mask, batch.tokens, pairs_of(1, 1, 1, seed=5).tokens)
    assert not torch.equal(other, batch.tokens)
    torch.testing.assert_close(objective.nats(model, batch._replace(tokens=other)), nats)
    nats.backward()
    assert model.embed.weight.grad is not None
    assert model.embed.weight.grad.abs().max() > 0


@given(st.integers(1, 10_000))
def test_crops_fit_the_model_and_overlap(chunk_len: int) -> None:
    row_len = chunk_len * 3 // 2
    assert 0 <= crop_len(row_len) <= chunk_len
    assert crop_len(row_len) >= chunk_len - 1
    overlap = 2 * crop_len(row_len) - row_len
    assert abs(overlap - chunk_len / 2) <= 2


# --- batches ---


def test_rows_are_taken_of_every_part() -> None:
    tokens, mask, _ = batch_of(6, 2, 3, 4)
    memory = torch.randn(4, 2, 3)
    batch = Batch(tokens, mask, memory)
    for index in (slice(1, 3), torch.tensor([3, 0])):
        for part, wanted in zip(batch.rows(index), (tokens, mask, memory), strict=True):
            assert part is not None
            assert torch.equal(part, wanted[index])
    bare = Batch(tokens, mask).rows(slice(0, 2))
    assert bare.memory is None
    assert bare.num_tokens == 8


def test_a_batch_of_chunks_copies_nothing() -> None:
    tokens, mask, _ = batch_of(6, 2)
    chunks = Chunks(tokens.numpy().copy(), mask.numpy().copy(), np.zeros(2, dtype=np.int64))
    memory = torch.zeros(2, 1, 3)
    batch = Batch.of(chunks, memory)
    assert np.shares_memory(batch.tokens.numpy(), chunks.tokens)
    assert batch.memory is memory
    assert batch.num_tokens == 8
