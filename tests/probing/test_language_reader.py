import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import assume, given
from hypothesis import strategies as st

from memlm.config import MemoryShape, PretrainedReader, ProbeConfig, ReadingConfig, SettleConfig
from memlm.data.chunks import Chunks
from memlm.data.tokenizer import Tokenizer
from memlm.models.language_reader import LanguageReader
from memlm.nn.mixers import Mask, Tokens
from memlm.nn.pooling import MemoryVectors
from memlm.probing import language_course
from memlm.probing.cells import probe
from memlm.probing.embed import NO_VECTORS
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.language_guess import Guesses
from memlm.probing.language_reader import Doublings, spread
from memlm.probing.language_texts import LanguageTexts
from memlm.probing.probe import EncoderProbe
from memlm.probing.results import ProbeResult, View
from memlm.probing.specs import drawn
from memlm.probing.texts import ProbeTexts, documents_of
from memlm.training.step import Stepper
from tiny import break_down_after, write_language_model

LETTERS, LENGTH = "".join(map(chr, range(64, 96))), 4
BITS = 5.0
"""Of each letter."""
READING = ReadingConfig(num_steps=120, max_chunks=2000, test_chunks=200)


class FirstToken(FrozenEncoder):
    """Its embedding holds a text's first token, and nothing else."""

    name, fingerprint, max_len = "first token", "first", 64
    default_view = View(0, "mean")

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.train([], 256)
        self.token_table = torch.eye(256)

    def resolve(self, view: View, chunk_len: int) -> View:
        return self.default_view

    def embed(self, tokens: Tokens, mask: Mask, views: Sequence[View]) -> list[MemoryVectors]:
        return [F.one_hot(tokens[:, :1], 256).float()] * len(views)

    def untrained(self, seed: int) -> "FirstToken":
        return self


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_language_model(tmp_path_factory.mktemp("language-model"), "llama")
    pretrain(folder)
    return folder


def pretrain(folder: Path) -> None:
    """Let a random model know the language: which letters there are."""
    hf, tokenizer = transformers.AutoModelForCausalLM.from_pretrained(folder), Tokenizer.load(folder)
    rows = torch.stack([torch.from_numpy(tokenizer.encode(text)).long() for text in texts()])
    optimizer = torch.optim.AdamW(hf.parameters(), lr=1e-2)
    for step in range(60):
        batch = rows[step % 10 :: 10, :32]
        hf(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    hf.save_pretrained(folder)


@pytest.fixture(scope="module", autouse=True)
def few_guesses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_course, "_GUESSING_STEPS", 100)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probes")


def texts(seed: int = 0) -> list[str]:
    """Letters drawn at random: nothing is known of one by those before it."""
    rng = random.Random(seed)
    return ["".join(rng.choices(LETTERS, k=100)) for _ in range(100)]


def config(model: Path, reading: ReadingConfig) -> ProbeConfig:
    reader = PretrainedReader(model=str(model), rank=2, learning_rate=1e-2)
    return ProbeConfig(
        chunk_lens=(LENGTH,), readers=("pretrained",), pretrained=reader, reading=reading, controls=False
    )


def probed(model: Path, cache: Path, reading: ReadingConfig = READING) -> ProbeResult:
    return probe(FirstToken(), texts(), train_texts=texts(), cfg=config(model, reading), cache=cache)


@pytest.fixture(scope="module")
def result(model: Path, cache: Path) -> ProbeResult:
    return probed(model, cache)


def test_an_embedding_of_the_first_token_retains_that_and_no_more(result: ProbeResult) -> None:
    (row,) = result.rows
    assert 0.6 * BITS < row.retained_bits_per_token * LENGTH < BITS
    first, *others = row.accuracy_by_position
    assert first is not None
    assert first > 0.95
    assert all(other is not None and other < 0.1 for other in others)
    assert row.unconditional_nats_per_token * LENGTH == pytest.approx(BITS * LENGTH * np.log(2), rel=0.02)
    assert row.f1 is not None
    assert row.lower_bound  # so few pairs are not enough


def test_embeddings_of_other_texts_and_no_embeddings_retain_nothing(model: Path, cache: Path) -> None:
    cfg = config(model, READING)
    texts_read = ProbeTexts(FirstToken().tokenizer, documents_of(texts()), cfg.reading.test_fraction)
    measured = EncoderProbe(FirstToken(), texts_read, cfg, LENGTH, cache=cache, quiet=True)
    for row in measured.controls(["shuffled", "constant"]):
        assert row.retained_bits_per_token < 0.01


def test_what_was_read_before_is_remembered_and_another_test_reads_with_the_same_reader(
    model: Path, cache: Path, result: ProbeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this has been done before")

    monkeypatch.setattr(language_course, "fit", refuse)
    assert probed(model, cache).rows == result.rows
    (row,) = probe(FirstToken(), texts(1), train_texts=texts(), cfg=config(model, READING), cache=cache).rows
    assert 0.6 * BITS < row.retained_bits_per_token * LENGTH < BITS


def test_an_interrupted_training_goes_on_where_it_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, steps, step = replace(READING, num_steps=20, max_chunks=300), list[int](), Stepper.step
    monkeypatch.setattr(language_course, "_CHECKPOINT_STEPS", 4)
    monkeypatch.setattr(Stepper, "step", lambda *given: steps.append(len(steps)) or step(*given))
    whole = probed(model, tmp_path / "whole", few)
    num_steps = len(steps)
    with monkeypatch.context() as patch:
        break_down_after(6, patch)
        with pytest.raises(KeyboardInterrupt):
            probed(model, tmp_path / "interrupted", few)
    steps.clear()
    assert probed(model, tmp_path / "interrupted", few).rows == whole.rows
    assert len(steps) < num_steps - 4


# --- when it has converged ---


@pytest.mark.parametrize(
    ("retained", "error", "doublings", "rounds", "converged"),
    [
        ([0.5, 1.0], 0.0, 0, 2, False),
        ([0.5, 1.0, 1.2, 1.22, 1.3], 0.0, 3, 4, True),
        ([0.5, 1.0, 1.2, 1.4], 0.0, 2, 4, False),
        ([1.0, 1.01], 0.0, 3, 2, True),
        ([1.0, 1.01, 1.02], 0.05, 1, 3, False),
        ([0.0, 0.0], 0.0, 3, 2, True),
        ([1.0, 0.5], 0.0, 3, 2, False),
    ],
)
def test_pairs_are_doubled_until_that_surely_gains_next_to_nothing(
    retained: list[float], error: float, doublings: int, rounds: int, converged: bool
) -> None:
    gains = [0.0, *((now - before) / max(now, before, 1e-9) for before, now in itertools.pairwise(retained))]
    points = [
        {"retained_bits_per_token": value, "trust": 1.0, "gain_at_most": gain + error}
        for value, gain in zip(retained, gains, strict=True)
    ]
    settled = Doublings(lambda number: points[number], doublings)
    assert (len(settled.points), settled.converged) == (rounds, converged)
    assert settled.points[settled.best]["retained_bits_per_token"] == max(retained[:rounds])


@pytest.mark.parametrize("config", [ProbeConfig, SettleConfig])
def test_settings_of_a_reader_that_is_not_asked_for_are_refused(config: type[ProbeConfig | SettleConfig]) -> None:
    settings = PretrainedReader(doublings=2, rank=3)
    with pytest.raises(ValueError, match=r"rank=3, doublings=2 is of .*--reader pretrained"):
        config(pretrained=settings)
    assert config(pretrained=settings, readers=("linear", "pretrained")).pretrained == settings


def test_a_learning_rate_is_finite() -> None:
    with pytest.raises(ValueError, match="learning_rate must be finite, not inf"):
        PretrainedReader(learning_rate=math.inf)


def test_as_many_pairs_are_embedded_as_there_may_be() -> None:
    cfg = ProbeConfig(readers=("parallel", "pretrained"), reading=ReadingConfig(num_steps=7, max_chunks=700))
    reading = drawn(cfg, 16)
    assert reading.num_steps * reading.chunks_per_step(16) >= reading.max_chunks == 700
    assert drawn(replace(cfg, readers=("parallel",)), 16) == cfg.reading


# --- the same text ---


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_the_text_is_the_same_in_both_models_tokens(written: list[str]) -> None:
    encoder, language = Tokenizer.train([], 256), Tokenizer.train(["the of and the of", "the of"] * 9, 264)
    rows = [encoder.encode(text)[:8] for text in written]
    rows = [row for row in rows if len(row) == 8]
    assume(rows)
    types, numbers = np.unique(np.stack(rows), return_inverse=True)
    chunks = Chunks(numbers.reshape(len(rows), 8), np.ones((len(rows), 8), dtype=bool), np.arange(len(rows)))
    both = LanguageTexts(types, encoder, language)
    read = both.read(chunks)
    whole = [language.decode(row[mask]) for row, mask in zip(read.tokens, read.mask, strict=True)]
    assert whole == both.of(chunks)
    assert (both.numbered(whole, chunks) == chunks.tokens).all()


def test_nats_are_shared_among_the_encoders_tokens() -> None:
    chunks = Chunks(np.zeros((2, 4), dtype=np.int64), np.ones((2, 4), dtype=bool), np.zeros(2, dtype=np.int64))
    assert spread(np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]), chunks).tolist() == [[1.5] * 4, [1.0] * 4]


# --- the module ---


@pytest.fixture
def reader(model: Path) -> LanguageReader:
    torch.manual_seed(0)
    shape = MemoryShape(vocab_size=1, chunk_len=3, num_slots=2, memory_dim=3)
    made = LanguageReader(PretrainedReader(model=str(model), rank=2), shape, [1], torch.device("cpu")).float()
    return randomized_hint(made)


def randomized_hint(made: LanguageReader) -> LanguageReader:
    """What begins at zero is not, so that it shows."""
    torch.nn.init.normal_(made.hint.whole.weight)
    torch.nn.init.normal_(made.hint.places.widen.weight)
    torch.nn.init.normal_(made.gate.weight)
    return made.eval()


def test_padding_changes_nothing(reader: LanguageReader) -> None:
    tokens, memory = torch.randint(256, (3, 5)), torch.randn(3, 2, 3)
    mask = torch.ones(3, 5, dtype=torch.bool)
    padded = torch.cat([tokens, torch.randint(256, (3, 2))], dim=1), F.pad(mask, (0, 2))
    nats = reader(tokens, mask, memory)
    torch.testing.assert_close(reader(*padded, memory), F.pad(nats, (0, 2)))


def test_what_is_written_is_the_likeliest_at_each_place(reader: LanguageReader) -> None:
    memory, mask = torch.randn(3, 2, 3), torch.ones(3, 4, dtype=torch.bool)
    written = reader.greedy(memory, torch.zeros(3, 0, dtype=torch.long), 4)
    nats = reader(written, mask, memory)
    for place, other in itertools.product(range(4), range(0, 264, 8)):
        changed = written.clone()
        changed[:, place] = other
        assert (reader(changed, mask, memory)[:, place] >= nats[:, place] - 1e-4).all()


def test_it_takes_as_many_steps_as_it_is_told_and_guesses_of_no_other_pairs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessed, tokens = list[int](), Guesses.tokens

    def counted(guesses: Guesses, vectors: np.ndarray, *rest: int) -> np.ndarray:
        guessed.append(len(vectors))
        return tokens(guesses, vectors, *rest)

    monkeypatch.setattr(Guesses, "tokens", counted)
    probed(model, tmp_path)
    pairs = PretrainedReader().batch_pairs
    assert guessed.count(pairs) == READING.num_steps
    held_out = [number for number in guessed if number != pairs]
    assert held_out
    assert max(held_out) <= READING.test_chunks


@pytest.mark.parametrize(("right_of_last", "worth"), [(0.6, True), (0.1, False)])
def test_a_guess_is_read_for_the_sake_of_one_place(
    right_of_last: float, worth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    texts, guessed = generator.integers(32, size=(2, 500, 32))
    guessed[:, -1] = np.where(generator.random(500) < right_of_last, texts[:, -1], guessed[:, -1])
    monkeypatch.setattr(Guesses, "_numbers", lambda self, vectors: guessed)
    chunks = Chunks(texts, np.ones(texts.shape, dtype=np.bool_), np.arange(500))
    assert Guesses.__new__(Guesses).are_worth_reading(chunks, NO_VECTORS) is worth
