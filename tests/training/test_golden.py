"""Golden training curves: every named recipe, made small, trains as it did when its losses were recorded.

Losses after some 50 steps, growth and later stages included, from a fixed seed, in fp32, on one thread. The machine
that recorded them gives them back to the bit. Another rounds its matrix products otherwise, which 50 steps of Muon
blow up: initial weights that are off by one in their last bit move a loss by up to 0.8%. Hence the tolerance of 3%.

To record them again after a change that is meant (in an empty folder):

    MEMLM_HOME=FOLDER/data PYTHONPATH=tests python tests/training/test_golden.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from memlm.config import Recipe
from memlm.recipes import RECIPES
from memlm.recipes.reader import arms
from memlm.runtime.cpu import one_thread
from memlm.runtime.results import read_json_lines
from memlm.training.train import train
from tiny import tiny_reader_recipe, tiny_search_recipe, write_corpus, write_language_model, write_sentence_encoder

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden.json"
TOLERANCE = 0.03
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in RECIPES},
    "finetuned": ("finetuned", {"encoder_from": "autoencoder"}),
    "memory-model, frozen encoder": ("memory-model", {"encoder_from": "autoencoder", "reading_fraction": 0.5}),
    "reader, states": ("reader", {"source": "states"}),
    "memory-model, facts": ("memory-model", {"recall_fraction": 0.25, "pointer_span": 3}),
}
"""The named recipes; and a curriculum, another source of positions, and facts that are pointed at."""


def small(name: str, corpus: str, encoder: Path) -> Recipe:
    """A recipe of these names, so small that it trains in a second."""
    recipe_name, options = VARIANTS[name]
    if recipe_name.endswith("reader"):
        base = encoder.with_name("language-model")
        if not base.exists():
            write_language_model(base, "llama")
        ours = tiny_reader_recipe(base, encoder, corpus, **options)
        return ours if recipe_name == "reader" else arms(ours)["paper"]
    if recipe_name == "searchable":
        teacher = encoder.with_name("sentence-encoder")
        if not teacher.exists():
            write_sentence_encoder(teacher)
        return tiny_search_recipe(encoder, teacher, corpus)
    if "encoder_from" in options:
        options = {**options, "encoder_from": str(encoder)}
    recipe = RECIPES[recipe_name](**options)
    chunk_len = 64 if "recall_fraction" in options else 16  # facts need room
    sizes: dict[str, dict[str, object]] = {
        "language_model": {"vocab_size": 300, "chunk_len": 16, "stack.dim": 32, "stack.num_layers": 1},
        "autoencoder": {"encoder.dim": 32, "encoder.num_layers": 1, "decoder.dim": 32},
        "memory_model": {"encoder.dim": 32, "encoder.num_layers": 1, "decoder.dim": 32, "decoder.num_layers": 1},
    }
    model = sizes[recipe.model.kind]
    if recipe.model.kind != "language_model":
        model |= {"shape.vocab_size": 300, "shape.chunk_len": chunk_len, "shape.memory_dim": 32}
    if recipe_name.startswith("paper") and recipe.model.kind == "autoencoder":
        model |= {"decoder.num_layers": 1}
    batch, rarely = (24 if recipe.model.kind == "language_model" else 32) * chunk_len, 10**9
    grown = recipe.stages[0].chunk_len is not None
    values = {
        "data.corpus": json.dumps({"kind": "files", "paths": [corpus]}),
        **({"data.tokenizer.vocab_size": 300} if recipe.data.tokenizer.kind == "bpe" else {}),
        "data.validation_fraction": 0.2,
        "data.test_fraction": 0.2,
        **({"data.everyday_bytes": 20_000} if recipe.data.everyday_bytes else {}),
        **{f"model.{field}": value for field, value in model.items()},
        **({"stages.0.chunk_len": 8} if grown else {}),
        **_training("*", batch, 50 // len(recipe.stages)),
        **(_training("0", batch // 2, 25) if grown else {}),
        "stages.*.training.precision": "fp32",
        "stages.*.training.eval_tokens": rarely,
        "stages.*.training.checkpoint_tokens": rarely,
    }
    return recipe.with_values(f"{path}={value}" for path, value in values.items())


def _training(stage: str, batch_tokens: int, num_steps: int) -> dict[str, int]:
    sizes = {"batch_tokens": 1, "num_tokens": num_steps, "warmup_tokens": 5}
    return {f"stages.{stage}.training.{name}": number * batch_tokens for name, number in sizes.items()}


def curve(name: str, corpus: str, encoder: Path, folder: Path) -> list[dict[str, float]]:
    """Steps and losses as they are logged."""
    train(small(name, corpus, encoder), folder, quiet=True)
    rows = read_json_lines(folder / "metrics.jsonl")
    wanted = ("step", "causal_nats", "retention_nats", "retrieval_nats", "likeness_distance")
    return [{key: row[key] for key in wanted if key in row} for row in rows if row["split"] == "train"]


@pytest.fixture(scope="module")
def encoder(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_encoder(corpus, tmp_path_factory.mktemp("golden"))


def trained_encoder(corpus: str, folder: Path) -> Path:
    """An autoencoder whose encoder fits the memory model."""
    recipe = small("autoencoder", corpus, folder)
    train(recipe.with_values([f"stages={json.dumps([json.loads(recipe.to_json())['stages'][1]])}"]), folder, quiet=True)
    return folder / "model"


@pytest.mark.parametrize("name", VARIANTS)
def test_recipes_train_as_they_did(name: str, corpus: str, encoder: Path, tmp_path: Path) -> None:
    with one_thread():
        found = curve(name, corpus, encoder, tmp_path / "run")
    expected = json.loads(GOLDEN.read_text())[name]
    assert len(found) == len(expected)
    for row, golden in zip(found, expected, strict=True):
        assert row == pytest.approx(golden, rel=TOLERANCE)


def record(folder: Path) -> None:
    """Write the losses down, anew."""
    (folder / "corpus").mkdir(parents=True)
    corpus = write_corpus(folder / "corpus")
    with one_thread():
        encoder = trained_encoder(corpus, folder / "encoder")
        curves = {name: curve(name, corpus, encoder, folder / name) for name in VARIANTS}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
