"""Tokens have intervals as wide as their frequencies, one behind the other, whichever way they are found."""

import numpy as np
import pytest
import torch
from torch import Tensor

from memlm import TextAutoencoder
from memlm.models.exact import NO_SHARE, ExactDecoder, Ranked
from memlm.store.intervals import Divided, Expected
from memlm.store.range_coder import Codes


@pytest.fixture(scope="module")
def decoder(english: TextAutoencoder) -> ExactDecoder:
    return ExactDecoder(english.model)


def scores_of(kind: str, vocab_size: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    scores = (torch.randn(64, vocab_size, generator=random) * 40).round()
    if kind == "one leads":
        scores[torch.arange(64), torch.randint(vocab_size, (64,), generator=random)] = scores.amax() + NO_SHARE
    elif kind == "some lead, by a little more or less":
        scores[torch.arange(64), torch.arange(64)] = scores.amax(dim=-1) + NO_SHARE - 2 + torch.arange(64) % 4
    return scores


@pytest.mark.parametrize("vocab_size", [7, 300])
@pytest.mark.parametrize("kind", ["one leads", "none leads", "some lead, by a little more or less"])
def test_intervals_are_sums_of_frequencies(decoder: ExactDecoder, kind: str, vocab_size: int) -> None:
    if kind.startswith("some") and vocab_size == 7:
        vocab_size = 64
    divided, scores = Divided(decoder, vocab_size), scores_of(kind, vocab_size)
    frequencies = decoder.frequencies(scores).long()
    ends = frequencies.cumsum(dim=-1)
    best, second = scores.topk(2, dim=-1).values.T
    expected = Ranked(scores.argmax(dim=-1), best - second, lambda rows: ends[rows].int())
    rows = divided.expected(expected)
    for token in (0, vocab_size // 2, vocab_size - 1):
        tokens = torch.full((64,), token)
        starts, sizes = divided.of_tokens(expected, tokens)
        assert torch.equal(sizes, frequencies[:, token])
        assert torch.equal(starts, ends[:, token] - sizes)
        for compiled in (False, True):
            for place in (starts, starts + sizes // 2, starts + sizes - 1):
                assert read(place, rows, compiled=compiled) == [token] * 64
    for compiled in (False, True):
        found = read(torch.full((64,), 2**24 - 1), rows, compiled=compiled)
        assert found == [vocab_size - 1] * 64, "what no interval holds is the last token's"


def read(places: Tensor, expected: Expected, *, compiled: bool) -> list[int]:
    """The tokens in whose intervals places lie, of codes that begin there."""
    if compiled:
        pytest.importorskip("numba")
    codes = Codes([((1 << 32) + place).to_bytes(5, "big") for place in places.tolist()], compiled=compiled)
    return [int(token) for token in codes.tokens(np.arange(len(places)), expected)]
