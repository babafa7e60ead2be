"""Causal language models learn, and a run broken off and run again ends in the same bits as one left alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from memlm.config import (
    Attention,
    AutoencoderRecipe,
    LanguageModelConfig,
    LanguageModelRecipe,
    Recipe,
    StackConfig,
    Stage,
    Weights,
)
from memlm.data.chunks import split_into_chunks
from memlm.data.token_store import prepare
from memlm.recipes.causal import causal as causal_recipe
from memlm.recipes.causal import retrieval as retrieval_recipe
from memlm.runtime.results import read_json_lines
from memlm.text.language_model import TextLanguageModel, causal_nats
from memlm.training.train import train
from tiny import break_down_after

WEIGHTS = Path("model", "model.safetensors")
CHUNK_LEN = 8


@pytest.fixture(scope="module")
def causal(recipe: AutoencoderRecipe) -> LanguageModelRecipe:
    stack = StackConfig(dim=32, num_layers=2, mlp_ratio=2.0, mixer=Attention(num_heads=2), causal=True)
    training = replace(recipe.stages[-1].training, num_tokens=8000, checkpoint_tokens=2000, eval_tokens=2000)
    return Recipe(
        name="tiny causal",
        data=recipe.data,
        model=LanguageModelConfig(vocab_size=300, chunk_len=CHUNK_LEN, stack=stack),
        stages=(Stage(weights=Weights(causal=1.0), training=training),),
    )


@pytest.fixture(scope="module")
def retrieval(causal: LanguageModelRecipe) -> LanguageModelRecipe:
    """The same, saving after every step, then a few steps of retrieval."""
    (stage,) = causal.with_training(num_tokens=2000, checkpoint_tokens=256).stages
    second = replace(stage, weights=Weights(retrieval=1.0), retrieval_temperature=0.3)
    return replace(causal, stages=(stage, second))


@pytest.fixture(scope="module")
def causal_run(causal: LanguageModelRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("causal") / "run"
    train(causal, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def retrieval_run(retrieval: LanguageModelRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("retrieval") / "run"
    train(retrieval, folder, quiet=True)
    return folder


def rows(folder: Path) -> list[tuple[str, int, float]]:
    """Split, step and loss of everything logged."""
    names = ("causal_nats_per_token", "causal_nats", "retrieval_nats")
    return [
        (row["split"], row["step"], next(row[name] for name in names if name in row))
        for row in read_json_lines(folder / "metrics.jsonl")
    ]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def validation_nats(causal: LanguageModelRecipe, model: TextLanguageModel) -> float:
    chunks = split_into_chunks(prepare(causal.data, quiet=True).splits["validation"], CHUNK_LEN)
    return float(causal_nats(model.model, chunks)[chunks.mask[:, 1:]].mean())


def test_training_lowers_what_held_out_text_costs(causal: LanguageModelRecipe, causal_run: Path) -> None:
    held_out = [nats for split, _, nats in rows(causal_run) if split == "validation"]
    assert len(held_out) >= 4
    assert held_out[-1] < held_out[0] < math.log(300)
    model = TextLanguageModel.from_pretrained(causal_run / "model")
    assert validation_nats(causal, model) == pytest.approx(held_out[-1], rel=0.05)
    # Less than the tokens' frequencies alone would let it: it reads what stands before.
    splits = prepare(causal.data, quiet=True).splits
    counts = np.bincount(np.asarray(splits["train"].tokens), minlength=300) + 0.5
    frequencies = -np.log(counts / counts.sum())[np.asarray(splits["validation"].tokens)].mean()
    assert held_out[-1] < frequencies - 0.3


def test_held_out_documents_are_measured_with_an_interval(causal: LanguageModelRecipe, causal_run: Path) -> None:
    model = TextLanguageModel.from_pretrained(causal_run / "model")
    validation = prepare(causal.data, quiet=True).splits["validation"]
    result = model.evaluate_split(validation, name="validation")
    assert result.causal_nats_per_token == pytest.approx(validation_nats(causal, model), rel=1e-5)
    low, high = result.intervals["causal_nats_per_token"]
    assert low < result.causal_nats_per_token < high
    chunks = split_into_chunks(validation, CHUNK_LEN)
    assert result.num_scored_tokens == chunks.mask.sum() - len(chunks.mask)  # none is asked for a chunk's first


def test_a_run_says_what_made_it(causal: LanguageModelRecipe, causal_run: Path) -> None:
    model = TextLanguageModel.from_pretrained(causal_run / "model")
    assert model.provenance["recipe"]["name"] == "tiny causal"
    assert model.provenance["tokens"] >= 8000
    assert model.provenance["made_by"]["settings"]["seed"] == 0
    assert Recipe.read(causal_run / "recipe.json") == causal
    assert model.model.config == causal.model


# Of the eight checkpoints and more of each stage: in the first, at its very end, and in the second.
@pytest.mark.parametrize("moments", [(0, 1), (3, 2), (8,), (10, 1)])
def test_broken_off_and_run_again_it_ends_in_the_same_bits(
    moments: tuple[int, ...],
    retrieval: LanguageModelRecipe,
    retrieval_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    for number in moments:
        with monkeypatch.context() as patch:
            break_down_after(number, patch)
            with pytest.raises(KeyboardInterrupt):
                train(retrieval, folder, quiet=True)
        assert not (folder / "model").exists()
    torch.manual_seed(1234)  # of no consequence
    train(retrieval, folder, quiet=True)
    assert (folder / WEIGHTS).read_bytes() == (retrieval_run / WEIGHTS).read_bytes()
    assert rows(folder) == rows(retrieval_run)


def test_a_finished_run_is_loaded(
    causal: LanguageModelRecipe, causal_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memlm.training.train.fit", None)  # nothing is trained
    before, again = contents(causal_run), train(causal, causal_run, quiet=True)
    for name, weight in load_file(causal_run / WEIGHTS).items():
        assert torch.equal(again.model.state_dict()[name], weight)
    assert contents(causal_run) == before


def test_retrieval_trains_on_what_causal_training_left(
    causal: LanguageModelRecipe, retrieval: LanguageModelRecipe, retrieval_run: Path, tmp_path: Path
) -> None:
    alone = replace(retrieval, stages=retrieval.stages[:1])
    train(alone, tmp_path / "alone", quiet=True)
    before, after = load_file(tmp_path / "alone" / WEIGHTS), load_file(retrieval_run / WEIGHTS)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # All but the head, which tells tokens and not texts.
    assert changed == before.keys() - {"head.weight"}
    num_causal = len(rows(tmp_path / "alone"))
    assert rows(retrieval_run)[:num_causal] == rows(tmp_path / "alone")
    losses = [
        row["retrieval_nats"] for row in read_json_lines(retrieval_run / "metrics.jsonl") if "retrieval_nats" in row
    ]
    assert losses
    assert all(0 < loss < 2 * math.log(16) for loss in losses)


def test_a_recipe_whose_vocabulary_is_not_its_tokenizers_is_refused(
    causal: LanguageModelRecipe, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="301"):
        train(replace(causal, model=replace(causal.model, vocab_size=301)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "model").exists()


def test_a_batch_of_less_than_a_pair_is_refused(causal: LanguageModelRecipe) -> None:
    with pytest.raises(ValueError, match="less than two chunks"):
        causal.with_training(batch_tokens=CHUNK_LEN)


@pytest.mark.parametrize("mixer", ["attention", "masked_mixer", "recurrent_mixer"])
def test_the_recipes_share_their_tokens_fairly(mixer: str) -> None:
    first, second = causal_recipe(mixer=mixer), retrieval_recipe(mixer=mixer)
    assert second.num_tokens == first.num_tokens
    assert second.model == first.model
    assert second.data == first.data
    assert first.model.stack.causal
    assert first.model.stack.mixer.kind == mixer
    assert Recipe.from_json(second.to_json()) == second
