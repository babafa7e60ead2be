"""Recall windows: what is asked stands in the past, whole and once, and the answer is what stood there."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.data.facts import KINDS, FactTexts, FactWindows, Kind, tokens_needed
from memlm.data.texts import evaluation_documents
from memlm.data.tokenizer import Tokenizer
from memlm.recipes.memory_model import memory_model

TEXTS = [document.text for document in evaluation_documents("novel")]
TOKENIZER = Tokenizer.train(TEXTS, 1024)
FILLER = np.concatenate(TOKENIZER.encode_batch(TEXTS[:4]))
VALUES = {
    "digits": re.compile(r" The number of (\w+) is( [0-9]{5}\.)"),
    "identifier": re.compile(r" The code of (\w+) is( [0-9a-f]{8}\.)"),
    "words": re.compile(r" Remember (\w+ \w+):((?: [a-z]+){4}\.)"),
}
"""Facts of each kind as they stand in the text: key and value."""
kinds = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True)
seeds = st.integers(0, 2**31)


def sampled(num_windows: int = 3, num_chunks: int = 4, *, seed: int = 0, step: int = 0, **options) -> FactWindows:
    distance = options.pop("distance", None)
    texts = FactTexts(TOKENIZER, FILLER, **{"chunk_len": 32, **options})
    return texts.sample(num_windows, num_chunks, seed=seed, step=step, distance=distance)


def facts(windows: FactWindows, window: int) -> list[tuple[int, str, str]]:
    """Chunk, key and value of every fact in a window's past that stands wholly inside one chunk."""
    pattern = VALUES[str(windows.kind[window])]
    past = [TOKENIZER.decode(chunk) for chunk in windows.tokens[window, :-1]]
    return [(place, *found) for place, text in enumerate(past) for found in pattern.findall(text)]


@settings(max_examples=40, deadline=None)
@given(kinds=kinds, seed=seeds, step=seeds, num_chunks=st.integers(2, 6), chunk_len=st.integers(30, 50))
def test_the_answer_is_the_value_of_the_key_that_is_asked_for(
    kinds: list[str], seed: int, step: int, num_chunks: int, chunk_len: int
) -> None:
    windows = sampled(3, num_chunks, seed=seed, step=step, kinds=kinds, chunk_len=chunk_len)
    for window, kind in enumerate(windows.kind):
        assert kind in kinds
        answer = TOKENIZER.decode(windows.tokens[window][windows.answer[window]])
        found = facts(windows, window)
        ((chunk, key, _),) = [fact for fact in found if fact[2] == answer]
        assert num_chunks - 1 - chunk == windows.distance[window]
        # The last chunk is the question, the answer right after it, and nothing else.
        asked = TOKENIZER.decode(windows.tokens[window, -1][windows.mask[window, -1]])
        assert asked == KINDS[str(kind)].question.format(key=key) + answer
        # Others have other keys, and chunks of their own.
        assert len(found) == min(2, num_chunks - 1)
        assert len({fact[0] for fact in found}) == len({fact[1] for fact in found}) == len(found)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, num_chunks=st.integers(2, 5), num_facts=st.integers(1, 4))
def test_masks_mark_what_they_say(seed: int, num_chunks: int, num_facts: int) -> None:
    windows = sampled(2, num_chunks, seed=seed, num_facts=num_facts)
    assert windows.mask[:, :-1].all()
    assert not windows.answer[:, :-1].any()
    for mask, answer, tokens in zip(windows.mask[:, -1], windows.answer[:, -1], windows.tokens[:, -1], strict=True):
        end, begin = mask.sum(), answer.argmax()
        assert mask[:end].all()
        assert answer.nonzero()[0].tolist() == list(range(begin, end))  # to the end of the text, after the question
        assert begin > 0
        assert not tokens[end:].any()
    assert [len(facts(windows, window)) for window in range(2)] == [min(num_facts, num_chunks - 1)] * 2


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_between_the_facts_stands_the_text(seed: int) -> None:
    filler = 100_000 + np.arange(70)  # no tokens of the tokenizer; shorter than the past, so that it is read again
    texts = FactTexts(TOKENIZER, filler, chunk_len=32)
    past = texts.sample(1, 4, seed=seed, step=0).tokens[0, :-1].ravel()
    places = np.flatnonzero(past >= 100_000)
    assert len(np.unique((past[places] - places) % len(filler))) == 1
    assert 0 < np.diff(places, prepend=-1, append=past.size).max() - 1 <= 2 * tokens_needed(TOKENIZER, "words")


@settings(max_examples=20, deadline=None)
@given(seed=seeds, step=seeds)
def test_windows_are_a_function_of_seed_and_step(seed: int, step: int) -> None:
    first, again = sampled(seed=seed, step=step), sampled(seed=seed, step=step)
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    for other in (sampled(seed=seed + 1, step=step), sampled(seed=seed, step=step + 1)):
        assert (first.tokens != other.tokens).any(axis=(1, 2)).all()


def test_training_and_benchmark_never_draw_the_same() -> None:
    texts, draws = FactTexts(TOKENIZER, FILLER, chunk_len=32), [(seed, step) for seed in range(3) for step in range(3)]
    practice = np.concatenate([texts.practice(3, 4, seed=seed, step=step) for seed, step in draws])
    measured = np.concatenate([texts.sample(3, 4, seed=seed, step=step).tokens for seed, step in draws])
    assert (practice[:, None] != measured[None]).any(axis=(2, 3)).all()


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_a_distance_can_be_had(distance: int) -> None:
    windows = sampled(8, 4, distance=distance)
    assert (windows.distance == distance).all()
    for window in range(8):
        answer = TOKENIZER.decode(windows.tokens[window][windows.answer[window]])
        assert [3 - chunk for chunk, _, value in facts(windows, window) if value == answer] == [distance]


def test_kinds_distances_and_places_are_all_drawn() -> None:
    windows = sampled(200)
    assert set(windows.kind) == set(KINDS)
    assert np.bincount(windows.distance, minlength=4)[1:].min() > 40
    # The fact that is not asked for stands before and after the other one.
    order = [
        next(chunk for chunk, _, value in facts(windows, window) if value != answer) + distance > 3
        for window, distance in enumerate(windows.distance)
        for answer in [TOKENIZER.decode(windows.tokens[window][windows.answer[window]])]
    ]
    assert 50 < sum(order) < 150


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_too_short_are_refused_with_what_is_needed(kind: str) -> None:
    needed = tokens_needed(TOKENIZER, kind)
    message = f"chunks of {needed - 1} tokens are too short for facts of kind '{kind}'.* takes as many as {needed}"
    with pytest.raises(ValueError, match=message):
        sampled(kinds=(kind,), chunk_len=needed - 1)
    longest = sampled(400, kinds=(kind,), chunk_len=needed).mask[:, -1].sum(axis=1).max()
    assert needed - 4 <= longest <= needed


def test_the_recipes_chunks_are_long_enough() -> None:
    shape = memory_model().model.shape
    assert shape.vocab_size == TOKENIZER.vocab_size
    assert all(tokens_needed(TOKENIZER, kind) <= shape.chunk_len for kind in KINDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("digits", "poems")}, "kinds of facts are digits, identifier, words, not poems"),
        ({"kinds": ()}, "not none"),
        ({"num_facts": 0}, "num_facts must be positive, not 0"),
        ({"num_chunks": 1}, "3 windows of 1 chunks"),
        ({"num_windows": 0}, "0 windows of 4 chunks"),
        ({"distance": 0}, "a window of 4 chunks has no fact at a distance of 0"),
        ({"distance": 4}, "no fact at a distance of 4"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(**options)


def test_facts_need_a_text_to_stand_in() -> None:
    with pytest.raises(ValueError, match="no text to put facts in"):
        FactTexts(TOKENIZER, FILLER[:0], chunk_len=32)


@given(seed=st.integers(0, 50), num_chunks=st.integers(2, 6))
def test_practice_asks_for_what_stands_before(seed: int, num_chunks: int) -> None:
    texts = FactTexts(TOKENIZER, FILLER, chunk_len=32)
    windows = texts.practice(3, num_chunks, seed=seed, step=1)
    assert windows.shape == (3, num_chunks, 32)
    np.testing.assert_array_equal(windows, texts.practice(3, num_chunks, seed=seed, step=1))
    for window in windows:
        chunks = [TOKENIZER.decode(chunk) for chunk in window]
        (kind,) = [each for each in KINDS.values() if _told(each, chunks[-1])]
        assert any(kind.fact.split("{key}")[0] in chunk for chunk in chunks[:1])
        facts: dict[str, str] = {}
        for number, chunk in enumerate(chunks):
            asked = _told(kind, chunk)
            if asked:
                key, answer = asked
                assert facts[key] == answer
            else:
                assert number < num_chunks - 1  # the last one asks
                before, after = kind.fact.split("{key}")
                key = next(key for key in kind.keys if before + key + after in chunk)
                rest = chunk.split(before + key + after)[1]
                facts[key] = rest[: rest.index(".") + 1]


def _told(kind: Kind, chunk: str) -> tuple[str, str] | None:
    """The key that a chunk asks for and the answer that it gives, if it asks."""
    for key in kind.keys:
        question = kind.question.format(key=key)
        if chunk.startswith(question):
            rest = chunk[len(question) :]
            return key, rest[: rest.index(".") + 1]
    return None


@given(seed=st.integers(0, 50), num_chunks=st.integers(1, 4))
def test_what_is_asked_is_answered_as_the_past_says_it(seed: int, num_chunks: int) -> None:
    asked = FactTexts(TOKENIZER, FILLER, chunk_len=32).ask(4, num_chunks, seed=seed, step=1)
    assert asked.tokens.shape == (4, num_chunks, 32)
    for window, question, answer in zip(asked.tokens, asked.questions, asked.answers, strict=True):
        assert sum(answer in TOKENIZER.decode(chunk) for chunk in window) == 1
        kind = next(each for each in KINDS.values() if question.startswith(each.question.strip().split("{key}")[0]))
        key = question.removeprefix(kind.question.strip().split("{key}")[0])[:-1]
        assert answer.startswith(kind.fact.format(key=key).strip())
