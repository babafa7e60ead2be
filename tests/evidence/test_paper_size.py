"""The experiments of the paper's sizes, at sizes that a test can train."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from memlm.config import (
    LanguageModelConfig,
    LanguageModelRecipe,
    MemoryModelRecipe,
    ReadingConfig,
    RecipeConfig,
    Weights,
)
from memlm_evidence.claims import CLAIMS
from memlm_evidence.cli.claims import Claims
from memlm_evidence.experiments import paper_size
from memlm_evidence.experiments import reproduce as run
from memlm_evidence.experiments.experiments import PRESETS, Experiment
from memlm_evidence.experiments.paper_size import (
    PaperEmbeddings,
    PaperMemoryModels,
    reproduce_paper_embeddings,
    reproduce_paper_memory_models,
)
from memlm_evidence.experiments.reproduce import reproduce_claims
from tiny import tiny_memory_recipe

READING = ReadingConfig(num_steps=5, max_chunks=100, test_chunks=20)


@pytest.fixture
def embeddings(recipe: RecipeConfig) -> PaperEmbeddings:
    shape, stack = recipe.model.shape, replace(recipe.model.encoder, causal=True)
    causal = LanguageModelRecipe(
        name="tiny causal",
        data=recipe.data,
        model=LanguageModelConfig(vocab_size=shape.vocab_size, chunk_len=shape.chunk_len, stack=stack),
        training=recipe.training,
    )
    return PaperEmbeddings(autoencoder=recipe, causal=causal, reading=READING)


@pytest.fixture
def memory_models(recipe: RecipeConfig) -> PaperMemoryModels:
    def trained_for(weights: Weights) -> MemoryModelRecipe:
        return tiny_memory_recipe(recipe, weights, overlap=0)

    both = Weights(causal=1.0, retention=1.0)
    return PaperMemoryModels(causal=trained_for(Weights(causal=1.0)), combined=trained_for(both), reading=READING)


def test_embeddings_are_read_and_decide_claims(embeddings: PaperEmbeddings, tmp_path: Path) -> None:
    result = reproduce_paper_embeddings(tmp_path, embeddings)
    assert result is not None
    row = json.loads(json.dumps(result.to_dict()))
    decided = {claim.name for claim in CLAIMS if claim.experiment == "embeddings" and claim.is_measured(row)}
    assert decided == {"causal-embeddings-hold-little", "autoencoders-hold-nearly-all"}
    accuracy = {found["objective"]: found["token_accuracy"] for found in row["rows"]}
    assert 0 < accuracy["causal"] < accuracy["autoencoder"] <= 1


def test_memory_models_are_read_and_decide_claims(memory_models: PaperMemoryModels, tmp_path: Path) -> None:
    result = reproduce_paper_memory_models(tmp_path, memory_models)
    assert result is not None
    row = json.loads(json.dumps(result.to_dict()))
    decided = {claim.name for claim in CLAIMS if claim.experiment == "memory-model" and claim.is_measured(row)}
    assert decided == {"causal-memories-are-poor", "combined-memories-are-rich", "rich-memories-cost-no-prediction"}
    relative = row["causal_nats"]["combined"] / row["causal_nats"]["causal"] - 1
    assert row["gap"]["combined"]["value"] == pytest.approx(relative)


@pytest.mark.parametrize("name", ["causal-embeddings-hold-little", "combined-memories-are-rich"])
def test_without_a_gpu_it_says_what_it_would_take(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_size.torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(paper_size, "require_fits", lambda _: None)
    with pytest.raises(ValueError, match=r"takes .*e\+\d\d operations, some [\d,]+ hours of one H100.* no GPU"):
        reproduce_claims(tmp_path, "paper", [name], say=lambda _: None)


def test_what_a_preset_does_not_measure_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset paper measures nothing that decides memories-save-time"):
        reproduce_claims(tmp_path / "out", "paper", ["memories-save-time"], say=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_several_processes_answer_nothing(
    embeddings: PaperEmbeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_size, "world_size", lambda: 2)
    monkeypatch.setattr(run, "world_size", lambda: 2)
    trained = [Experiment("embeddings", "embeddings", embeddings, reproduce_paper_embeddings)]
    monkeypatch.setattr(run, "PRESETS", {"paper": lambda _: trained})
    out = tmp_path / "out"
    assert Claims(names=("causal-embeddings-hold-little",), preset="paper", out=out).run() == {}
    assert not (out / "results").exists()
    monkeypatch.undo()
    monkeypatch.setattr(run, "PRESETS", {"paper": lambda _: trained})
    answer = Claims(names=("causal-embeddings-hold-little",), preset="paper", out=out).run()
    assert [row["name"] for row in answer["claims"]] == ["causal-embeddings-hold-little"]


def test_other_presets_run_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="preset quick runs in one process, not in 2: leave out torchrun"):
        reproduce_claims(tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_the_papers_models_differ_by_seed() -> None:
    made: Callable[[int], list[str]] = lambda seed: [repr(each.plan) for each in PRESETS["paper"](seed)]  # noqa: E731
    assert set(made(0)).isdisjoint(made(1))
