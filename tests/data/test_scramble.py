"""Scrambling and the uniform source."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlm.data.chunks import Chunks, scramble
from memlm.data.documents import Document
from memlm.data.tokenizer import Tokenizer
from memlm.text.evaluation_sets import uniform_tokens

VOCAB = 1000


def chunks_of(num_chunks: int, chunk_len: int) -> Chunks:
    mask = np.arange(chunk_len) < np.arange(1, num_chunks + 1)[:, None]
    return Chunks(np.where(mask, VOCAB + 7, 0), mask, np.arange(num_chunks))


@given(fraction=st.floats(0, 1), seed=st.integers(0, 2**31), step=st.integers(0, 2**31))
def test_only_real_tokens_change_and_the_step_alone_decides(fraction: float, seed: int, step: int) -> None:
    chunks = chunks_of(20, 16)
    once, again = (scramble(chunks, VOCAB, fraction=fraction, seed=seed, step=step) for _ in range(2))
    np.testing.assert_array_equal(once.tokens, again.tokens)
    changed = once.tokens != chunks.tokens
    assert not changed[~chunks.mask].any()
    assert (once.tokens[changed] < VOCAB).all()
    np.testing.assert_array_equal(once.mask, chunks.mask)


def test_the_fraction_is_of_chunks_and_half_of_their_tokens_on_average() -> None:
    chunks = Chunks(np.full((4000, 64), VOCAB + 7), np.ones((4000, 64), bool), np.zeros(4000, int))
    changed = scramble(chunks, VOCAB, fraction=0.25, seed=0, step=0).tokens != chunks.tokens
    touched = changed.any(axis=1)
    assert touched.mean() == pytest.approx(0.25, abs=0.03)
    assert changed[touched].mean() == pytest.approx(0.5, abs=0.03)
    assert changed[touched].mean(axis=1).std() == pytest.approx(1 / np.sqrt(12), abs=0.03)  # uniform shares


def test_uniform_tokens_are_uniform() -> None:
    tokenizer = Tokenizer.train(["the memory of a text, and the text of a memory " * 40], 270)
    split = uniform_tokens(tokenizer, num_documents=8, document_tokens=4096)
    counts = np.bincount(split.tokens, minlength=270)
    expected = len(split.tokens) / 270
    # Chi-squared over its degrees of freedom is about 1 for a uniform source.
    assert ((counts - expected) ** 2 / expected).sum() / 269 == pytest.approx(1, abs=0.4)
    assert list(np.diff(split.document_starts)) == [4096] * 8
    first = Document("first", tokenizer.decode(split.tokens[:4096]))
    assert split.document_bytes[0] == len(first.text.encode())
