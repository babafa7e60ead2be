"""The recall benchmark: it writes what the model would, and tells right from wrong; and training on recall."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memlm.config import (
    AutoencoderRecipe,
    CrossAttention,
    DecoderConfig,
    MaskedMixer,
    MemoryModelConfig,
    MemoryModelRecipe,
    MemoryShape,
    Positional,
    Prefix,
    Recipe,
    StackConfig,
    Stage,
    Weights,
    WindowConfig,
)
from memlm.data.chunks import split_into_chunks
from memlm.data.facts import KINDS, FactTexts
from memlm.data.texts import evaluation_documents
from memlm.data.token_store import PreparedData, prepare
from memlm.data.tokenizer import Tokenizer
from memlm.models.generation import generate
from memlm.models.memory_model import MemoryModel
from memlm.nn.pointer import PastTokens
from memlm.recipes.memory_model import without_memory
from memlm.text.memory_model import TextMemoryModel
from memlm.training.memory_model import PrecomputedMemories, window_sampler
from memlm.training.objectives import combined
from memlm.training.train import train
from memlm_evidence.benchmarks.recall import Recall, WindowReader, greedy
from tiny import randomized

TEXTS = [document.text for document in evaluation_documents("novel")][:4]
TOKENIZER = Tokenizer.train(TEXTS, 512)
LENGTH, PAST = 40, 2
VOCAB = TOKENIZER.vocab_size


def configuration(**changes: Any) -> MemoryModelConfig:
    cfg = MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=LENGTH),
        encoder=StackConfig(dim=16, num_layers=1, mlp_ratio=2.0, mixer=MaskedMixer(num_heads=2)),
        pooling=Positional(token_dim=8),
        insertion=Prefix(num_positions=2),
        decoder=DecoderConfig(dim=16, num_layers=1, num_heads=2),
        max_memories=PAST,
    )
    return replace(cfg, **changes)


def full_context() -> MemoryModelConfig:
    cfg = configuration()
    return replace(cfg, shape=replace(cfg.shape, chunk_len=(PAST + 1) * LENGTH), encoder=None)


def with_tokenizer(model: MemoryModel) -> TextMemoryModel:
    return TextMemoryModel(model, TOKENIZER, torch.full((VOCAB,), -np.log(VOCAB)), {"run": "made up"})


def recall(model: TextMemoryModel, texts: Sequence[str] = (), **options: Any) -> dict[str, Any]:
    return dict(Recall(model="made up", **options).measure(model, texts))


QUESTION = re.compile(r" What is the (?:number|code) of (\w+)\?| Repeat the words after (\w+ \w+):")
FACT = r"(?: The (?:number|code) of {key} is| Remember {key}:)( [0-9a-f]+\.|(?: [a-z]+){{4}}\.)"


class Oracle(MemoryModel):
    """Its memories are the tokens themselves; it finds the question, looks the fact up, and writes its value."""

    def __init__(self, cfg: MemoryModelConfig, *, errs: bool = False) -> None:
        super().__init__(cfg)
        self.errs = errs

    def encode(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, tokens, 0)[:, :, None].float()

    def predict(self, tokens: Tensor, memory: Tensor, present: Tensor, past: PastTokens | None = None) -> Tensor:
        logits = torch.zeros(*tokens.shape, VOCAB)
        for row, own, past, there in zip(logits, tokens, memory, present, strict=True):
            begin, value = self._answer(own.tolist(), past[there].flatten().long().tolist())
            for place, token in enumerate(value[: len(row) - begin], begin):
                row[place, token] = 1
        return logits

    def _answer(self, own: list[int], past: list[int]) -> tuple[int, list[int]]:
        last = (len(own) - 1) // LENGTH * LENGTH
        asked = QUESTION.match(TOKENIZER.decode(own[last:]))
        assert asked
        fact = re.search(FACT.format(key=asked[1] or asked[2]), TOKENIZER.decode(past + own[:last]))
        value = TOKENIZER.encode(fact[1] if fact else " I do not know it.").tolist()
        if self.errs:
            value[-1] = value[-1] + 1
        return last + len(TOKENIZER.encode(asked[0])), value


every_reading = pytest.mark.parametrize("cfg", [configuration(), full_context()], ids=["memories", "full context"])


@every_reading
def test_who_knows_the_answers_recalls_everything_and_nothing_without_the_past(cfg: MemoryModelConfig) -> None:
    answer = recall(with_tokenizer(Oracle(cfg)), num_texts=3, chunk_len=LENGTH)
    assert answer["recall"] == {"1": 1.0, "2": 1.0}
    assert answer["recall_by_kind"] == dict.fromkeys(KINDS, 1.0)
    assert answer["chance"] == 0
    assert answer["chance_by_kind"] == dict.fromkeys(KINDS, 0.0)
    assert all(row["exact_match"] == row["token_accuracy"] == 1 for row in answer["rows"])


@every_reading
def test_an_answer_with_a_wrong_end_is_wrong(cfg: MemoryModelConfig) -> None:
    answer = recall(with_tokenizer(Oracle(cfg, errs=True)), num_texts=3, chunk_len=LENGTH)
    assert set(answer["recall"].values()) == set(answer["recall_by_kind"].values()) == {0.0}
    assert all(row["exact_match"] == 0 < 0.7 < row["token_accuracy"] < 1 for row in answer["rows"])


class Forgetful(Oracle):
    """It remembers one chunk."""

    def predict(self, tokens: Tensor, memory: Tensor, present: Tensor, past: PastTokens | None = None) -> Tensor:
        return super().predict(tokens, memory[:, -1:], present[:, -1:])


def test_what_is_recalled_is_told_by_distance() -> None:
    answer = recall(with_tokenizer(Forgetful(configuration())), num_texts=4, kinds=("words",))
    assert answer["recall"] == {"1": 1.0, "2": 0.0}
    found = {(row["num_chunks"], row["distance"]): row["exact_match"] for row in answer["rows"]}
    assert found == {(1, 1): 1, (2, 1): 1, (2, 2): 0}
    assert answer["recall_by_kind"] == {"words": 2 / 3}
    assert answer["recall_intervals"] == {"1": [1.0, 1.0], "2": [0.0, 0.0]}
    low, high = answer["recall_by_kind_intervals"]["words"]
    assert 0.2 < low < 2 / 3 < high < 1


@every_reading
def test_every_kind_number_and_distance_has_a_row(cfg: MemoryModelConfig) -> None:
    answer = recall(with_tokenizer(randomized(MemoryModel(cfg))), num_texts=2, chunk_len=LENGTH)
    assert json.loads(json.dumps(answer)) == answer
    expected = {(kind, past, distance) for kind in KINDS for past in (1, 2) for distance in range(1, past + 1)}
    assert {(row["kind"], row["num_chunks"], row["distance"]) for row in answer["rows"]} == expected
    assert len(answer["rows"]) == len(expected)
    for row in answer["rows"]:
        assert set(row) == {
            "kind",
            "num_chunks",
            "distance",
            "exact_match",
            "token_accuracy",
            "intervals",
            "num_texts",
        }
        for name in ("exact_match", "token_accuracy"):
            low, high = row["intervals"][name]
            assert 0 <= low <= row[name] <= high <= 1
        assert row["num_texts"] == 2
    assert answer["full_context"] == (cfg.encoder is None)
    assert answer["provenance"]["settings"]["model"] == {"run": "made up"}


def test_a_model_without_memories_is_asked_all_the_same() -> None:
    blind = Oracle(configuration(encoder=None))
    answer = recall(with_tokenizer(blind), num_texts=2)
    assert set(answer["recall"].values()) == {0.0}
    assert not answer["full_context"]


@pytest.mark.parametrize(
    "cfg",
    [configuration(), configuration(insertion=CrossAttention(num_parts=2)), full_context()],
    ids=["prefix", "cross-attention", "full context"],
)
@pytest.mark.parametrize("batch_logits", [2**25, 1], ids=["at once", "one by one"])
def test_what_is_written_is_what_the_model_would_generate(
    cfg: MemoryModelConfig, batch_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memlm.models.batch._BATCH_NUMBERS", batch_logits)
    model = randomized(MemoryModel(cfg)).eval()
    texts = FactTexts(TOKENIZER, TOKENIZER.encode(TEXTS[0]), chunk_len=LENGTH)
    windows = texts.sample(5, PAST + 1, seed=0, step=0)
    written = WindowReader(model, LENGTH).answers(windows, blind=False)
    assert (written[~windows.answer] == windows.tokens[~windows.answer]).all()
    assert len(np.unique(written[windows.answer])) > 5
    for tokens, new, answer in zip(windows.tokens, written, windows.answer, strict=True):
        before = torch.from_numpy(tokens.ravel()[: answer.ravel().argmax()])
        expected = generate(model, before, max_new_tokens=int(answer.sum()), do_sample=False)
        assert new[answer].tolist() == expected.tolist()


def test_answers_of_several_lengths_end_where_they_end() -> None:
    model = randomized(MemoryModel(configuration())).eval()
    tokens = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    asked = torch.zeros(3, 12, dtype=torch.bool)
    asked[0, 10:] = asked[1, 2:8] = asked[2, 11:] = True
    memory, present = torch.randn(3, 2, 1, LENGTH), torch.tensor([[True, True], [False, True], [False, False]])
    with torch.no_grad():
        written = greedy(model, tokens, asked, memory, present)
        likeliest = model.predict(written, memory, present).argmax(-1)
    assert (written[asked] == likeliest[asked]).all()
    assert (written[~asked] == tokens[~asked]).all()


@pytest.mark.parametrize(
    ("cfg", "options", "message"),
    [
        (configuration(), {"num_texts": 1}, "num_texts must be at least 2"),
        (configuration(), {"chunk_len": 20}, "this model's chunks are of 40 tokens, not of 20"),
        (configuration(encoder=None), {"chunk_len": 30}, "40 tokens have no room for two chunks of 30"),
        (full_context(), {"chunk_len": 10}, "chunks of 10 tokens are too short for facts of kind 'digits'"),
        (configuration(), {"kinds": ("poems",)}, "not poems"),
    ],
)
def test_what_cannot_be_measured_is_refused(cfg: MemoryModelConfig, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall(with_tokenizer(MemoryModel(cfg)), **{"num_texts": 2, **options})


def test_the_command_asks_a_saved_model(tmp_path: Path) -> None:
    with_tokenizer(randomized(MemoryModel(configuration()))).save_pretrained(tmp_path / "model")
    model = TextMemoryModel.from_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXTS[1], encoding="utf-8")
    command = Recall(
        model=str(tmp_path / "model"), num_texts=2, kinds=("digits",), text=(str(tmp_path / "text.txt"),), seed=3
    )
    asked = recall(model, num_texts=2, kinds=("digits",), texts=TEXTS[1:2], seed=3)
    assert command.run() == asked
    assert replace(command, text=()).run().keys() == asked.keys()


# --- training ---


@pytest.fixture(scope="module")
def recalling(recipe: AutoencoderRecipe) -> MemoryModelRecipe:
    """A tiny memory model of chunks that have room for facts; half its windows are for recall."""
    cfg = configuration(shape=MemoryShape(vocab_size=300, chunk_len=72, memory_dim=32))
    training = replace(recipe.stages[-1].training, batch_tokens=3 * 3 * 72, num_tokens=2 * 3 * 3 * 72)
    stage = Stage(weights=Weights(causal=1.0, retention=1.0), training=training)
    windows = WindowConfig(num_chunks=3, recall_fraction=0.5)
    return Recipe(name="tiny", data=recipe.data, model=cfg, stages=(stage,), windows=windows)


def with_windows(recipe: MemoryModelRecipe, **changes: Any) -> MemoryModelRecipe:
    return replace(recipe, windows=replace(recipe.windows, **changes))


@pytest.fixture(scope="module")
def prepared(recipe: AutoencoderRecipe) -> PreparedData:
    return prepare(recipe.data, quiet=True)


def sampler(recipe: MemoryModelRecipe, prepared: PreparedData, encoder: Any = None) -> Any:
    chunks = split_into_chunks(prepared.splits["train"], recipe.model.shape.chunk_len)
    frozen = None if encoder is None else PrecomputedMemories(encoder, chunks)
    return window_sampler(recipe, recipe.stages[0], chunks, prepared.tokenizer, frozen)


def asks(prepared: PreparedData, tokens: Tensor) -> bool:
    """Whether the last 72 tokens of a window are a question."""
    return QUESTION.match(prepared.tokenizer.decode(tokens.flatten()[-72:].tolist())) is not None


@pytest.mark.parametrize(("fraction", "numbers"), [(0.5, {1, 2}), (0.1, {0, 1}), (1.0, {3}), (0.0, {0})])
def test_windows_of_recall_have_their_share(
    fraction: float, numbers: set[int], recalling: MemoryModelRecipe, prepared: PreparedData
) -> None:
    sample = sampler(with_windows(recalling, recall_fraction=fraction), prepared)
    plain = sampler(with_windows(recalling, recall_fraction=0.0), prepared)
    found = []
    for step in range(20):
        batch, other = sample(step), plain(step)
        found.append(sum(asks(prepared, window) for window in batch.tokens))
        assert batch.tokens.shape == other.tokens.shape
        assert batch.memory is None
        for ours, theirs in zip(batch[:2], other[:2], strict=True):
            assert ours[found[-1] :].equal(theirs[found[-1] :])
        assert all(one.equal(two) for one, two in zip(batch[:2], sample(step)[:2], strict=True))
    assert set(found) == numbers
    assert sum(found) == round(fraction * 3 * 20)


def test_frozen_memories_of_recall_are_the_encoders(recalling: MemoryModelRecipe, prepared: PreparedData) -> None:
    model = randomized(MemoryModel(recalling.model)).eval()
    assert model.encoder is not None
    batch = sampler(recalling, prepared, model.encoder)(1)
    assert [asks(prepared, window) for window in batch.tokens] == [True, True, False]
    with torch.no_grad():
        made = model.encode(batch.tokens, batch.mask)
    present = batch.mask.any(-1)
    torch.testing.assert_close(batch.memory[present], made[present], rtol=1e-4, atol=1e-5)
    assert not batch.memory.requires_grad
    nats = combined(recalling.stages[0].weights).nats
    torch.testing.assert_close(nats(model, batch), nats(model, batch._replace(memory=None)), rtol=1e-4, atol=1e-2)


def test_full_context_is_trained_on_the_same_questions(recalling: MemoryModelRecipe, prepared: PreparedData) -> None:
    whole = without_memory(recalling, full_context=True)
    ours, theirs = (sampler(each, prepared)(1) for each in (recalling, whole))
    assert theirs.tokens.shape == (3, 1, 3 * 72)
    assert ours.tokens[:2].flatten().equal(theirs.tokens[:2].flatten())
    assert ours.mask[:2].flatten().equal(theirs.mask[:2].flatten())
    assert [asks(prepared, window) for window in theirs.tokens] == [True, True, False]


def test_a_model_is_trained_on_recall(recalling: MemoryModelRecipe, tmp_path: Path) -> None:
    trained = train(recalling, tmp_path / "run", quiet=True)
    assert trained.provenance["recipe"]["windows"]["recall_fraction"] == 0.5
    answer = recall(trained, num_texts=2, kinds=("digits",), texts=TEXTS[:1])
    assert set(answer["recall"]) == {"1", "2"}


def test_recipes_of_recall_that_cannot_work_are_refused(recalling: MemoryModelRecipe, prepared: PreparedData) -> None:
    with pytest.raises(ValueError, match=r"recall_fraction must lie in \[0, 1\], not 1.5"):
        with_windows(recalling, recall_fraction=1.5)
    with pytest.raises(ValueError, match="needs several chunks of 72 tokens in a window of 72 tokens"):
        with_windows(recalling, num_chunks=1)
    with pytest.raises(ValueError, match="needs several chunks of 50 tokens in a window of 216 tokens"):
        with_windows(recalling, recall_chunk_len=50)
    with pytest.raises(ValueError, match="chunks of 18 tokens are too short for facts of kind 'digits'"):
        sampler(with_windows(recalling, recall_chunk_len=18), prepared)
