import random
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.config import ReadingConfig
from memlm.data.chunks import Chunks
from memlm.data.documents import Document
from memlm.data.tokenizer import Tokenizer
from memlm.probing import texts as texts_module
from memlm.probing.texts import MIN_TEST_CHUNKS, MIN_TRAIN_CHUNKS, ProbeData, ProbeTexts, Splits

EVERYTHING = ReadingConfig(num_steps=10**6, max_chunks=10**6, test_chunks=10**6)
WORDS = [
    "".join(letters)
    for seed in range(300)
    for letters in [random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=2 + seed % 7)]
]


def text(seed: int, num_words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def texts(num_texts: int = 120, num_words: int = 150) -> list[str]:
    """Texts of fewer than 1024 bytes, which are not cut."""
    made = [text(seed, num_words) for seed in range(num_texts)]
    assert max(map(len, made)) < 1024
    return made


def documents(of: Sequence[str]) -> list[Document]:
    return [Document(f"text {number}", text) for number, text in enumerate(of)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(texts(), 300)


def gather(tokenizer: Tokenizer, documents: Sequence[Document], chunk_len: int, cfg: ReadingConfig) -> ProbeData:
    return ProbeTexts(tokenizer, documents, cfg.test_fraction).split_into_chunks(chunk_len, cfg)


def decoded(tokenizer: Tokenizer, chunks: Chunks) -> list[str]:
    return [tokenizer.decode(row) for row in chunks.tokens]


def sources(tokenizer: Tokenizer, chunks: Chunks, of: Sequence[str]) -> list[int]:
    """The one text that each chunk is from."""
    found = [[i for i, text in enumerate(of) if chunk in text] for chunk in decoded(tokenizer, chunks)]
    assert all(len(where) == 1 for where in found)
    return [where[0] for where in found]


# --- splits ---


def test_no_text_is_in_two_splits_and_each_is_in_one(tokenizer: Tokenizer) -> None:
    data = gather(tokenizer, documents(texts()), 40, EVERYTHING)
    train, validation, test = (set(sources(tokenizer, part, texts())) for part in data.chunks)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert train | validation | test == set(range(120))
    assert (len(test), len(validation)) == (18, 6)  # 15%, and a third as many


def test_copies_of_a_text_are_in_one_split(tokenizer: Tokenizer) -> None:
    data = gather(tokenizer, documents(texts(10) * 12), 40, EVERYTHING)
    train, validation, test = (set(sources(tokenizer, part, texts(10))) for part in data.chunks)
    assert len(train) + len(validation) + len(test) == 10


@pytest.mark.parametrize("seed", range(3))
def test_the_splits_do_not_depend_on_the_order_of_the_texts(seed: int, tokenizer: Tokenizer) -> None:
    shuffled = texts()
    random.Random(seed).shuffle(shuffled)
    assert shuffled != texts()
    one, other = (gather(tokenizer, documents(of), 16, ReadingConfig(max_chunks=500)) for of in (texts(), shuffled))
    for mine, yours in zip(one.chunks, other.chunks, strict=True):
        for column, again in zip(mine, yours, strict=True):
            np.testing.assert_array_equal(column, again)
    np.testing.assert_array_equal(one.test_bytes, other.test_bytes)


def test_a_larger_budget_keeps_the_splits_and_the_chunks_there_were(tokenizer: Tokenizer) -> None:
    few = gather(tokenizer, documents(texts()), 16, ReadingConfig(max_chunks=150, test_chunks=60))
    many = gather(tokenizer, documents(texts()), 16, EVERYTHING)
    assert len(few.chunks.train.tokens) == 150
    assert len(few.chunks.test.tokens) == 60
    assert len(few.chunks.validation.tokens) == 20
    for mine, yours in zip(few.chunks, many.chunks, strict=True):
        np.testing.assert_array_equal(mine.tokens, yours.tokens[: len(mine.tokens)])


# --- chunks ---


@pytest.mark.parametrize("chunk_len", [1, 5, 16])
def test_chunks_are_whole_and_lie_side_by_side_in_their_text(chunk_len: int, tokenizer: Tokenizer) -> None:
    data = gather(tokenizer, documents(texts(60)), chunk_len, EVERYTHING)
    encoded = [tokenizer.encode(text) for text in texts(60)]
    expected = [tuple(ids[i : i + chunk_len]) for ids in encoded for i in range(0, len(ids) - chunk_len + 1, chunk_len)]
    found = [tuple(row) for part in data.chunks for row in part.tokens.tolist()]
    assert sorted(found) == sorted(expected)
    for part in data.chunks:
        assert part.mask.all()
        assert part.tokens.shape[1] == chunk_len
    assert data.round_trips


def test_chunks_of_one_document_are_one_texts(tokenizer: Tokenizer) -> None:
    data = gather(tokenizer, documents(texts()), 40, EVERYTHING)
    for part in data.chunks:
        pairs = set(zip(part.document.tolist(), sources(tokenizer, part, texts()), strict=True))
        assert len(pairs) == len({document for document, _ in pairs}) == len({source for _, source in pairs})
        assert not np.all(np.diff(part.document) >= 0)  # in random order


def test_bytes_add_up(tokenizer: Tokenizer) -> None:
    single = gather(tokenizer, documents(texts()), 1, EVERYTHING)  # chunks of one token: all of the text
    encoded = {tuple(sorted(tokenizer.encode(text).tolist())): len(text.encode()) for text in texts()}
    for number, size in enumerate(single.test_bytes):
        ids = single.chunks.test.tokens[single.chunks.test.document == number].ravel()
        assert size == encoded[tuple(sorted(ids.tolist()))]
    data = gather(tokenizer, documents(texts()), 16, ReadingConfig(test_chunks=100))
    size = sum(len(chunk.encode()) for chunk in decoded(tokenizer, data.chunks.test))
    assert data.test_bytes.sum() == pytest.approx(size, rel=0.02)


def test_one_long_text_is_cut_into_pieces_that_are_kept_apart(tokenizer: Tokenizer) -> None:
    long = text(0, 20_000)
    data = gather(tokenizer, documents([long]), 16, EVERYTHING)
    places = [{long.find(chunk) for chunk in decoded(tokenizer, part)} for part in data.chunks]
    assert all(-1 not in found for found in places)
    assert len(set.union(*places)) == sum(map(len, places))
    assert 0.12 < len(places[2]) / sum(map(len, places)) < 0.18
    # Pieces, not chunks, are kept apart: what follows a test chunk is mostly test too.
    assert len(data.test_bytes) < len(places[2]) / 10


def test_characters_of_several_bytes_survive_the_cutting() -> None:
    long = "".join(random.Random(0).choices("漢字ünd→ ", k=60_000))
    tokenizer = Tokenizer.train([], 256)
    data = gather(tokenizer, documents([long]), 64, EVERYTHING)
    assert data.round_trips
    # Bytes are tokens here; no piece ends within a character.
    assert "\ufffd" not in tokenizer.decode(tokenizer.encode(long))
    pieces = [part.tokens[part.document == number] for part in data.chunks for number in np.unique(part.document)]
    assert len(pieces) > 50


# --- other text to learn from ---


def after(tokenizer: Tokenizer, own: Sequence[str], learned: Sequence[str]) -> ProbeData:
    """Chunks of a text that is read after another."""
    read = texts_after(tokenizer, own, learned)
    assert read.before is not None
    data, before = (of.split_into_chunks(40, EVERYTHING) for of in (read, read.before))
    return replace(data, before=before)


def texts_after(tokenizer: Tokenizer, own: Sequence[str], learned: Sequence[str]) -> ProbeTexts:
    return ProbeTexts(tokenizer, documents(own), 0.15, before=ProbeTexts(tokenizer, documents(learned), 0.15))


def own_texts(number: int = 40) -> list[str]:
    return [text(1000 + seed, 150) for seed in range(number)]


@pytest.mark.parametrize(("small", "sizes"), [(2_000_000, (13, 7, 20)), (20_000, (32, 2, 6))])
def test_of_a_short_text_half_is_measured_on(
    small: int, sizes: tuple[int, int, int], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts_module, "_SMALL_BYTES", small)
    data = after(tokenizer, own_texts(), texts())
    train, validation, test = (set(sources(tokenizer, part, own_texts())) for part in data.chunks)
    assert (len(train), len(validation), len(test)) == sizes
    assert not train & validation | train & test | validation & test
    assert data.before is not None
    assert len(data.learned_tokens) == len(data.before.learned_tokens) + len(data.chunks.train.tokens)


def test_what_is_learned_does_not_depend_on_what_is_measured(tokenizer: Tokenizer) -> None:
    for chars in ("ßx y", "Qz 漢"):
        data = after(tokenizer, [chars * 4000], texts())
        assert data.before is not None
        known = data.before.learned_types
        assert data.before.learned_digest == gather(tokenizer, documents(texts()), 40, EVERYTHING).learned_digest
        np.testing.assert_array_equal(data.types[: len(known)], known)
        assert len(data.types) > len(known)
        np.testing.assert_array_equal(data.types[data.numbered.test.tokens], data.chunks.test.tokens)


def test_copies_of_what_is_learned_are_not_measured_on(tokenizer: Tokenizer) -> None:
    with pytest.warns(UserWarning, match="20 of 60 pieces of the text are in the text that readers learn from"):
        data = after(tokenizer, own_texts() + [one.replace(" ", "\n") for one in texts(20)], texts())
    assert {source for part in data.chunks for source in sources(tokenizer, part, own_texts())} == set(range(40))
    with pytest.raises(ValueError, match="all of this text is in the text that readers learn from"):
        after(tokenizer, texts(30), texts())


def test_too_few_chunks_to_decide_anything_are_named_with_how_much_is_enough(tokenizer: Tokenizer) -> None:
    def doubts(own: Sequence[str]) -> list[str]:
        read, cfg = texts_after(tokenizer, own, texts()), replace(EVERYTHING, num_steps=10)
        return list(read.doubts(after(tokenizer, own, texts()), cfg))

    (few,) = doubts(own_texts(5))
    assert "controls may stay undecided: chunks of 40 tokens" in few
    (needed,) = re.findall(r"give about ([\d,]+) bytes", few)
    assert doubts(own_texts(1 + int(needed.replace(",", "")) // min(map(len, own_texts())))) == []


def test_too_few_chunks_to_learn_from_are_named_with_how_much_is_enough(tokenizer: Tokenizer) -> None:
    cfg = ReadingConfig(num_steps=1000)

    def doubts(of: list[str]) -> list[str]:
        read = ProbeTexts(tokenizer, documents(of), 0.15)
        return list(read.doubts(read.split_into_chunks(40, cfg), cfg))

    (few,) = doubts(texts())
    assert "positive control may fail: chunks of 40 tokens" in few
    assert few.endswith("bytes to learn from")
    (needed,) = re.findall(r"give about ([\d,]+) bytes", few)
    assert doubts(texts(1 + int(needed.replace(",", "")) // min(map(len, texts())))) == []


# --- too little ---


@pytest.mark.parametrize("chunk_len", [16, 64])
@pytest.mark.parametrize("num_texts", [3, 5])
def test_too_little_text_says_how_much_is_enough(num_texts: int, chunk_len: int, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=f"too little text for chunks of {chunk_len} tokens") as caught:
        gather(tokenizer, documents(texts(num_texts, 40)), chunk_len, ReadingConfig())
    message = str(caught.value)
    assert f"({sum(map(len, texts(num_texts, 40))):,} bytes)" in message
    (needed,) = re.findall(r"give about ([\d,]+) bytes", message)
    num_bytes = int(needed.replace(",", ""))
    given = texts(num_texts, 40)
    while sum(map(len, given)) < num_bytes:
        given.append(text(len(given), 150))
    data = gather(tokenizer, documents(given), chunk_len, ReadingConfig())
    assert len(data.chunks.train.tokens) >= MIN_TRAIN_CHUNKS
    assert len(data.chunks.test.tokens) >= MIN_TEST_CHUNKS


@pytest.mark.parametrize("given", [[], [""], ["one"], ["one", "two"]])
def test_next_to_no_text_is_refused(given: list[str], tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"too little text"):
        gather(tokenizer, documents(given), 4, ReadingConfig())


def test_a_document_without_a_chunk_is_not_counted(tokenizer: Tokenizer) -> None:
    given = texts(60) + [WORDS[seed % 300] + str(seed) for seed in range(2000)]
    data = gather(tokenizer, documents(given), 64, EVERYTHING)
    assert len(np.unique(data.chunks.test.document)) < 30
    assert len(data.test_bytes) == len(np.unique(data.chunks.test.document))


# --- types ---


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60_000), min_size=4, max_size=4), min_size=3, max_size=8))
def test_numbering_the_types_loses_nothing(rows: list[list[int]]) -> None:
    parts = [np.array(rows[:1]), np.array(rows[1:2]), np.array(rows[2:])]
    made = Splits(*(Chunks(part, np.ones(part.shape, bool), np.zeros(len(part), int)) for part in parts))
    data = ProbeData(chunks=made, test_bytes=np.ones(1))
    assert len(data.types) == len({token for row in rows for token in row})
    for chunks, numbered in zip(made, data.numbered, strict=True):
        assert numbered.tokens.min() >= 0
        assert numbered.tokens.max() < len(data.types)
        np.testing.assert_array_equal(data.types[numbered.tokens], chunks.tokens)
        np.testing.assert_array_equal(numbered.mask, chunks.mask)


def test_the_types_are_those_that_occur(tokenizer: Tokenizer) -> None:
    data = gather(tokenizer, documents(texts()), 16, EVERYTHING)
    occurring = {token for part in data.chunks for token in part.tokens.ravel().tolist()}
    assert set(data.types.tolist()) == occurring
    assert len(occurring) < tokenizer.vocab_size


def test_random_tokens_are_of_the_texts_types_and_know_nothing_of_the_text(tokenizer: Tokenizer) -> None:
    data = gather(tokenizer, documents(texts()), 16, EVERYTHING)
    drawn = data.random_tokens()
    assert drawn.tokens.shape == data.chunks.test.tokens.shape
    assert drawn.tokens.dtype == data.chunks.test.tokens.dtype
    assert set(drawn.tokens.ravel().tolist()) <= set(data.types.tolist())
    np.testing.assert_array_equal(data.random_tokens().tokens, drawn.tokens)
    assert (data.random_tokens(seed=1).tokens == drawn.tokens).mean() < 0.05
    assert (drawn.tokens == data.chunks.test.tokens).mean() < 0.05
    counts = np.bincount(np.searchsorted(data.types, drawn.tokens.ravel()))
    expected = drawn.tokens.size / len(data.types)
    assert counts.max() < expected + 6 * expected**0.5  # uniform, not as often as in the text
