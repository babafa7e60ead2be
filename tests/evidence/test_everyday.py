"""Everyday text: made up to train on, kept apart to evaluate on, and what comes back of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from memlm import MemoryFile, TextAutoencoder
from memlm.config import AutoencoderRecipe
from memlm.data.chunks import Chunks
from memlm.data.everyday import everyday_documents
from memlm.data.texts import EVERYDAY_KINDS, everyday_lines
from memlm.data.texts import everyday_documents as texts_to_evaluate_on
from memlm.data.token_store import prepare
from memlm.evaluation.checked import Checked, calibration, measures_by_length
from memlm.training.autoencoder import AutoencoderTraining
from memlm_evidence.benchmarks.everyday import Everyday

FIXTURES = Path(__file__).parents[1] / "fixtures"
WORDS = ["the", "memory", "holds"]


def test_made_up_text_is_always_the_same_and_of_the_size_asked_for() -> None:
    documents = list(everyday_documents(WORDS, 50_000))
    assert documents == list(everyday_documents(WORDS, 50_000))
    assert documents != list(everyday_documents(WORDS, 50_000, seed=1))
    sizes = [len(document.text.encode()) for document in documents]
    assert min(sizes) > 0
    assert 50_000 <= sum(sizes) < 50_000 + max(sizes)


def test_made_up_text_is_of_every_kind() -> None:
    text = "\n".join(document.text for document in everyday_documents(WORDS, 300_000))
    for part in ("memory", "https://", "@", "Monday", "€", "    if ", "ж", "\t", "     "):
        assert part in text
    assert any(0x4E00 <= ord(character) <= 0x9FFF for character in text)
    assert any(0x1F300 <= ord(character) <= 0x1FAFF for character in text)


def test_evaluation_texts_are_no_training_text() -> None:
    made_up = "\n".join(document.text for document in everyday_documents(WORDS, 300_000))
    for kind in ("names", "numbers", "addresses", "german", "french", "alphabets"):
        lines = [line for line in everyday_lines(kind) if len(line) > 12]
        assert not [line for line in lines if line in made_up]


@pytest.mark.parametrize("kind", EVERYDAY_KINDS)
def test_texts_to_evaluate_on_are_long_enough_and_always_the_same(kind: str) -> None:
    documents = texts_to_evaluate_on(kind, 5, 300)
    assert documents == texts_to_evaluate_on(kind, 5, 300)
    assert len({document.text for document in documents}) == 5
    assert min(len(document.text) for document in documents) >= 300


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="no everyday text of kind 'poems'; there is prose, words"):
        everyday_lines("poems")


def test_a_share_of_training_chunks_is_everyday_text(recipe: AutoencoderRecipe) -> None:
    data = replace(recipe.data, everyday_bytes=30_000)
    prepared = prepare(data, quiet=True)
    assert "everyday" in prepared.splits
    assert "everyday" not in prepare(recipe.data, quiet=True).splits
    recipe = replace(recipe, data=data).with_training(everyday_fraction=0.25, short_fraction=0.0)
    batch = AutoencoderTraining(recipe, prepared).sampler(recipe.stages[0])(3)
    split = prepared.splits["everyday"]
    starts = {tuple(split.tokens[start : start + 4].tolist()) for start in split.document_starts[:-1]}
    own = [tuple(row[:4].tolist()) in starts for row in batch.tokens if 300 not in row[:4]]
    assert len(batch.tokens) == 16
    assert 1 <= sum(own) <= 6


def checked(
    wrong: list[list[bool]], unsure: list[list[bool]], margin: list[list[float]], proven: list[bool]
) -> Checked:
    counted = np.ones_like(np.array(wrong))
    return Checked(counted, *map(np.array, (wrong, unsure, margin, proven)))


def test_calibration_counts_marks_among_wrong_and_right_tokens() -> None:
    found = calibration(
        checked(
            [[True, False], [True, False], [False, False]],
            [[True, True], [False, False], [False, False]],
            [[0.5, 3.0], [9.0, 9.0], [0.1, 9.0]],
            [False, False, True],
        )
    )
    assert found["marked_wrong_fraction"] == 0.5
    assert found["marked_right_fraction"] == 0.25
    assert found["num_wrong"] == 2
    rows = {row["confidence"]: (row["tokens"], row["wrong_fraction"]) for row in found["by_confidence"]}
    assert rows == {
        "proven": (2, 0.0),
        "0 to 1 nats": (1, 1.0),
        "1 to 2 nats": (0, None),
        "2 to 4 nats": (1, 0.0),
        "4 to 8 nats": (0, None),
        "8 to 12 nats": (2, 0.5),
        "12 nats or more": (0, None),
    }


def test_where_nothing_is_wrong_nothing_can_be_marked() -> None:
    found = calibration(checked([[False]], [[False]], [[9.0]], [True]))
    assert (found["num_wrong"], found["marked_wrong_fraction"], found["marked_right_fraction"]) == (0, 1, 0)


def test_exact_texts_are_counted_by_their_length() -> None:
    right = checked([[False, False]] * 3, [[False, False]] * 3, [[9.0, 9.0]] * 3, [True] * 3)
    half = checked([[True, False], [False, False]], [[True, True]] * 2, [[0.0, 1.0]] * 2, [False] * 2)
    found = measures_by_length({1: right, 2: half})
    assert found["exact_by_fill"] == {"1": 1.0, "2": 0.5}
    assert found["exact_by_fill_intervals"]["1"] == pytest.approx([0.4385, 1.0], abs=1e-4)
    assert found["exact_by_fill_intervals"]["2"] == pytest.approx([0.0945, 0.9055], abs=1e-4)  # known values, n = 2


def test_a_missing_token_and_one_too_many_are_wrong(trained: TextAutoencoder) -> None:
    tokens = np.zeros((1, 16), dtype=np.int64)
    chunks = Chunks(tokens, np.arange(16)[None] < 3, np.zeros(1, dtype=np.int64))
    decoded = trained.send(chunks)
    for length, wrong in ((3, 0), (2, 1), (5, 2)):
        told = decoded._replace(tokens=decoded.tokens * 0, num_tokens=decoded.num_tokens * 0 + length)
        found = Checked.of(chunks, told)
        assert int((found.wrong & found.counted).sum()) == wrong
        assert bool(found.exact.all()) == (wrong == 0)


def test_evaluation_reports_short_texts_and_calibration(trained: TextAutoencoder) -> None:
    result = trained.evaluate(["the memory holds one long text", "vector " * 50])
    assert set(result.exact_by_fill) == {"1", "2", "4", "8", "16"}
    assert 0 <= result.calibration["marked_right_fraction"] <= 1


def test_the_benchmark_covers_every_kind_and_length(trained: TextAutoencoder) -> None:
    found = Everyday(num_texts=3).measure(trained)
    assert set(found["exact_by_fill"]) == set(EVERYDAY_KINDS) == set(found["exact_lines"])
    assert all(set(row) == {"1", "2", "4", "8", "16"} for row in found["exact_by_fill"].values())
    assert found["worst"]["exact"] == min(share for row in found["exact_by_fill"].values() for share in row.values())
    assert {"marked_wrong_fraction", "marked_right_fraction", "novel_token_accuracy"} <= set(found)


@pytest.mark.parametrize("text", ["Monday", "a", " ", "\n\n\n", "2026-11-26", "https://example.org/", "Ünïcödé", "🎉"])
def test_a_word_comes_back_from_one_vector_of_english(text: str, english: TextAutoencoder) -> None:
    vectors = english.encode([text], convert_to_numpy=True)
    (again,) = english.regenerate(vectors)
    assert again == text
    assert again.unsure == ()


def test_files_of_memories_by_an_earlier_english_are_read_for_ever() -> None:
    with MemoryFile.open(FIXTURES / "english-0.1.memory") as notes:
        assert notes.text() == (FIXTURES / "letter.txt").read_text(encoding="utf-8")
        assert notes.model.encoder_fingerprint == notes.about.fingerprint == "db84e6c3413e47a9"
