import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlm.data.chunks import (
    Chunks,
    all_windows,
    excerpts,
    gather_windows,
    insert_repetitions,
    sample_chunks,
    sample_windows,
    scramble,
    split_into_chunks,
    with_end_tokens,
)
from memlm.data.documents import Document
from memlm.data.token_store import TokenSplit
from memlm.data.tokenizer import Tokenizer
from memlm.text.evaluation_sets import uniform_tokens


def split_with(lengths: list[int]) -> TokenSplit:
    """Documents of given lengths; tokens count up from 1, so that each says where it is."""
    total = sum(lengths)
    return TokenSplit(
        tokens=np.arange(1, total + 1, dtype=np.uint32),
        document_starts=np.cumsum([0, *lengths], dtype=np.int64),
        document_bytes=np.array(lengths, dtype=np.int64),
        document_names=[str(number) for number in range(len(lengths))],
    )


splits = st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any).map(split_with)
chunk_lens = st.integers(1, 9)


def assert_well_formed(chunks: Chunks, chunk_len: int) -> None:
    assert chunks.tokens.shape == chunks.mask.shape == (len(chunks.document), chunk_len)
    assert (chunks.tokens.dtype, chunks.mask.dtype, chunks.document.dtype) == (np.int64, np.bool_, np.int64)
    assert np.all(chunks.mask[:, 0])
    assert np.all(chunks.mask[:, :-1] >= chunks.mask[:, 1:])  # padding is at the end only
    assert np.all(chunks.tokens[~chunks.mask] == 0)


def cut_naively(split: TokenSplit, chunk_len: int) -> list[tuple[int, list[int]]]:
    rows = []
    for document, (start, end) in enumerate(zip(split.document_starts, split.document_starts[1:], strict=False)):
        tokens = split.tokens[start:end].tolist()
        rows += [(document, tokens[i : i + chunk_len]) for i in range(0, len(tokens), chunk_len)]
    return rows


def unpadded(chunks: Chunks) -> list[tuple[int, list[int]]]:
    rows = zip(chunks.document, chunks.tokens, chunks.mask, strict=True)
    return [(int(document), tokens[mask].tolist()) for document, tokens, mask in rows]


@given(splits, chunk_lens)
def test_cutting_is_its_naive_twin(split: TokenSplit, chunk_len: int) -> None:
    chunks = split_into_chunks(split, chunk_len)
    assert_well_formed(chunks, chunk_len)
    assert unpadded(chunks) == cut_naively(split, chunk_len)


@given(splits, chunk_lens, st.integers(0, 2**40), st.integers(0, 2**40), st.sampled_from([0.0, 0.3, 1.0]))
def test_samples_are_windows_of_one_document(
    split: TokenSplit, chunk_len: int, seed: int, step: int, short_fraction: float
) -> None:
    chunks = sample_chunks(split, chunk_len, 16, seed=seed, step=step, short_fraction=short_fraction)
    assert_well_formed(chunks, chunk_len)
    for document, tokens in unpadded(chunks):
        begin, length = tokens[0] - 1, len(tokens)
        end = split.document_starts[document + 1]
        assert split.document_starts[document] <= begin < end
        assert tokens == split.tokens[begin : begin + length].tolist()
        assert length <= min(chunk_len, end - begin)
        assert short_fraction or length == min(chunk_len, end - begin)


def test_a_sample_is_a_function_of_seed_and_step() -> None:
    split = split_with([1000, 3, 500])

    def draw(seed: int, step: int) -> list[tuple[int, list[int]]]:
        return unpadded(sample_chunks(split, 16, 32, seed=seed, step=step, short_fraction=0.5))

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3) != draw(2, 2) != draw(2, 1)


def test_begins_are_uniform_over_tokens_and_short_lengths_over_their_logarithms() -> None:
    split = split_with([9000, 1000])
    chunks = sample_chunks(split, 10, 20_000, seed=0, step=0, short_fraction=1.0)
    assert abs(np.mean(chunks.document == 0) - 0.9) < 0.01
    lengths = np.bincount(chunks.mask.sum(axis=1), minlength=11) / 20_000
    edges = np.log(np.arange(2, 13))
    np.testing.assert_allclose(lengths[1:], np.diff(edges) / (edges[-1] - edges[0]), atol=0.01)
    with_none = sample_chunks(split, 10, 20_000, seed=0, step=0, short_fraction=1.0, shortest=0)
    assert abs(np.mean(~with_none.mask.any(axis=1)) - np.log(2) / np.log(12)) < 0.01
    some = sample_chunks(split, 10, 20_000, seed=0, step=0, short_fraction=0.2)
    assert abs(np.mean(some.mask.sum(axis=1) < 10) - 0.2 * (1 - lengths[-1])) < 0.02


def test_samples_from_the_start_begin_with_a_document_each_as_often() -> None:
    split = split_with([9000, 0, 1000, 5])
    chunks = sample_chunks(split, 10, 8_000, seed=0, step=0, short_fraction=0.0, from_start=True)
    assert all(tokens[0] - 1 == split.document_starts[document] for document, tokens in unpadded(chunks))
    counts = np.bincount(chunks.document[chunks.mask.any(axis=1)], minlength=4) / 8_000
    np.testing.assert_allclose(counts[[0, 3]], 0.25, atol=0.02)
    assert sorted({len(tokens) for _, tokens in unpadded(chunks)}) == [5, 10]


@given(splits, chunk_lens, st.integers(1, 40), st.integers(1, 30))
def test_pieces_are_of_one_length_and_of_one_document(
    split: TokenSplit, chunk_len: int, length: int, most: int
) -> None:
    length = min(length, chunk_len)
    found = excerpts(split, chunk_len, length, most)
    lengths = np.diff(split.document_starts)
    assert len(found.tokens) == min(most, int(np.maximum(lengths - length + 1, 0).sum()))
    begins = []
    for document, tokens in unpadded(found):
        begin = tokens[0] - 1
        assert tokens == split.tokens[begin : begin + length].tolist()
        assert split.document_starts[document] <= begin <= split.document_starts[document + 1] - length
        begins.append(begin)
    assert sorted(set(begins)) == begins


@given(chunk_lens, st.integers(0, 2**40), st.floats(0, 1))
def test_repetitions_are_of_up_to_four_tokens_and_leave_the_padding(chunk_len: int, seed: int, fraction: float) -> None:
    chunks = split_into_chunks(split_with([chunk_len * 3 + 1, 5]), chunk_len)
    found = insert_repetitions(chunks, 10_000, fraction=fraction, seed=seed, step=3)
    assert np.array_equal(found.mask, chunks.mask)
    assert not found.tokens[~found.mask].any()
    for row, before, mask in zip(found.tokens, chunks.tokens, chunks.mask, strict=True):
        changed = np.flatnonzero((row != before) & mask)
        assert len(set(row[changed].tolist())) <= 4
    none = insert_repetitions(chunks, 10_000, fraction=0.0, seed=seed, step=3)
    assert np.array_equal(none.tokens, chunks.tokens)


def test_half_of_the_repetitions_fill_their_chunk() -> None:
    chunks = split_into_chunks(split_with([16 * 4000]), 16)
    found = insert_repetitions(chunks, 100_000, fraction=1.0, seed=0, step=0)
    whole = (found.tokens != chunks.tokens).all(axis=1).mean()
    assert 0.48 < whole < 0.56
    assert len({tuple(row) for row in found.tokens[:, :4]}) > 3000


def test_ended_chunks_are_full() -> None:
    chunks = split_into_chunks(split_with([3]), 5)
    full = with_end_tokens(chunks, 7)
    assert full.mask.all()
    assert full.tokens.tolist() == [[1, 2, 3, 7, 7]]


def test_a_split_shorter_than_a_chunk_works() -> None:
    split = split_with([3])
    assert unpadded(split_into_chunks(split, 64)) == [(0, [1, 2, 3])]
    assert sample_chunks(split, 64, 5, seed=0, step=0, short_fraction=0.0).tokens.shape == (5, 64)


def test_both_are_fast() -> None:
    split = split_with([10_000] * 1000)
    begin = time.process_time()
    chunks = split_into_chunks(split, 64)
    assert time.process_time() - begin < 5
    assert chunks.mask.sum() == 10_000_000
    seconds = []
    for step in range(20):
        begin = time.process_time()
        sample_chunks(split, 64, 64, seed=0, step=step, short_fraction=0.02)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 1e-3


# --- windows ---

documents = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(lengths=documents, num_chunks=st.integers(1, 5))
def test_windows_cover_every_token_once_and_in_order(lengths: list[int], num_chunks: int) -> None:
    windows = all_windows(split_into_chunks(split_with(lengths), 4), num_chunks)
    assert windows.tokens[windows.mask].tolist() == list(range(1, sum(lengths) + 1))
    assert not windows.tokens[~windows.mask].any()


@given(lengths=documents, num_chunks=st.integers(1, 5), seed=st.integers(0, 9), step=st.integers(0, 9))
def test_a_window_is_consecutive_and_of_one_document(lengths: list[int], num_chunks: int, seed: int, step: int) -> None:
    text = split_into_chunks(split_with(lengths), 4)
    windows = sample_windows(text, num_chunks, 8, seed=seed, step=step)
    for tokens, mask, chunk, document in zip(*windows, strict=True):
        seen = tokens[mask]
        assert seen.tolist() == list(range(seen[0], seen[0] + len(seen)))
        present = mask.any(axis=1)
        assert present[0]
        assert (text.document[chunk[present]] == document).all()
        assert (text.tokens[chunk] * mask == tokens).all()
    again = sample_windows(text, num_chunks, 8, seed=seed, step=step)
    assert all((one == other).all() for one, other in zip(windows, again, strict=True))


def test_a_text_that_ends_is_masked() -> None:
    windows = gather_windows(split_into_chunks(split_with([6, 9]), 4), np.array([1, 4]), 3)
    assert windows.mask.sum(axis=2).tolist() == [[2, 0, 0], [1, 0, 0]]


# --- scrambled ---

VOCAB = 1000


@given(fraction=st.floats(0, 1), seed=st.integers(0, 2**31), step=st.integers(0, 2**31))
def test_only_real_tokens_change_and_the_step_alone_decides(fraction: float, seed: int, step: int) -> None:
    mask = np.arange(16) < np.arange(1, 21)[:, None]
    chunks = Chunks(np.where(mask, VOCAB + 7, 0), mask, np.arange(20))
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
