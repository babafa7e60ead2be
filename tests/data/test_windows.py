import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memlm.data.chunks import Chunks, all_windows, gather_windows, sample_windows

LENGTH = 4


def chunks(lengths: list[int]) -> Chunks:
    """Documents of so many tokens, cut; every token is another."""
    tokens, mask, document = [], [], []
    token = 1
    for number, length in enumerate(lengths):
        for begin in range(0, length, LENGTH):
            real = min(LENGTH, length - begin)
            tokens.append([*range(token, token + real), *[0] * (LENGTH - real)])
            mask.append([True] * real + [False] * (LENGTH - real))
            document.append(number)
            token += real
    return Chunks(np.array(tokens), np.array(mask), np.array(document))


documents = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(lengths=documents, num_chunks=st.integers(1, 5))
def test_windows_cover_every_token_once_and_in_order(lengths: list[int], num_chunks: int) -> None:
    windows = all_windows(chunks(lengths), num_chunks)
    assert windows.tokens[windows.mask].tolist() == list(range(1, sum(lengths) + 1))
    assert not windows.tokens[~windows.mask].any()


@given(lengths=documents, num_chunks=st.integers(1, 5), seed=st.integers(0, 9), step=st.integers(0, 9))
def test_a_window_is_consecutive_and_of_one_document(lengths: list[int], num_chunks: int, seed: int, step: int) -> None:
    text = chunks(lengths)
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
    windows = gather_windows(chunks([6, 9]), np.array([1, 4]), 3)
    assert windows.mask.sum(axis=2).tolist() == [[2, 0, 0], [1, 0, 0]]
