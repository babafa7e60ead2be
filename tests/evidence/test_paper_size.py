"""The experiments of the paper's sizes, at sizes that a test can train."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memlm.config import AutoencoderRecipe, LanguageModelConfig, MemoryModelRecipe, ReadingConfig, Recipe, Weights
from memlm_evidence.benchmarks import paper
from memlm_evidence.cli.claims import Claims
from memlm_evidence.experiments import embeddings, memory_model, reproduce
from memlm_evidence.experiments.embeddings import EMBEDDINGS
from memlm_evidence.experiments.embeddings import run as embeddings_run
from memlm_evidence.experiments.experiment import Experiment
from memlm_evidence.experiments.memory_model import MEMORY_MODEL
from memlm_evidence.experiments.reproduce import reproduce_claims
from tiny import tiny_memory_recipe

READING = ReadingConfig(num_steps=5, max_chunks=100, test_chunks=20)


@pytest.fixture
def two_encoders(recipe: AutoencoderRecipe) -> embeddings.PaperPlan:
    shape, stack = recipe.model.shape, replace(recipe.model.encoder, causal=True)
    causal = Recipe(
        name="tiny causal",
        data=recipe.data,
        model=LanguageModelConfig(vocab_size=shape.vocab_size, chunk_len=shape.chunk_len, stack=stack),
        stages=(replace(recipe.stages[0], weights=Weights(causal=1.0)),),
    )
    return embeddings.PaperPlan(autoencoder=recipe, causal=causal, reading=READING)


@pytest.fixture
def two_memory_models(recipe: AutoencoderRecipe) -> memory_model.PaperPlan:
    def trained_for(weights: Weights) -> MemoryModelRecipe:
        return tiny_memory_recipe(recipe, weights, overlap=0)

    both = Weights(causal=1.0, retention=1.0)
    return memory_model.PaperPlan(causal=trained_for(Weights(causal=1.0)), combined=trained_for(both), reading=READING)


def test_embeddings_are_read_and_decide_claims(two_encoders: embeddings.PaperPlan, tmp_path: Path) -> None:
    result = EMBEDDINGS.run(tmp_path, two_encoders)
    assert result is not None
    result = EMBEDDINGS.result.from_dict(json.loads(json.dumps(result.to_dict())))
    decided = {claim.name for claim in EMBEDDINGS.claims if claim.measure(result)}
    assert decided == {"causal-embeddings-hold-little", "autoencoders-hold-nearly-all"}
    accuracy = {row.objective: row.token_accuracy for row in result.rows}
    assert 0 < accuracy["causal"] < accuracy["autoencoder"] <= 1


def test_memory_models_are_read_and_decide_claims(two_memory_models: memory_model.PaperPlan, tmp_path: Path) -> None:
    result = MEMORY_MODEL.run(tmp_path, two_memory_models)
    assert result is not None
    result = MEMORY_MODEL.result.from_dict(json.loads(json.dumps(result.to_dict())))
    decided = {claim.name for claim in MEMORY_MODEL.claims if claim.measure(result)}
    assert decided == {"causal-memories-are-poor", "combined-memories-are-rich", "rich-memories-cost-no-prediction"}
    relative = result.causal_nats["combined"] / result.causal_nats["causal"] - 1
    assert result.gap["combined"].value == pytest.approx(relative)


@pytest.mark.parametrize("name", ["causal-embeddings-hold-little", "combined-memories-are-rich"])
def test_without_a_gpu_it_says_what_it_would_take(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper.torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(paper, "require_fits", lambda _: None)
    with pytest.raises(ValueError, match=r"takes .*e\+\d\d operations, some [\d,]+ hours of one H100.* no GPU"):
        reproduce_claims(tmp_path, "paper", [name], say=lambda _: None)


def test_what_a_preset_does_not_measure_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset paper measures nothing that decides memories-save-time"):
        reproduce_claims(tmp_path / "out", "paper", ["memories-save-time"], say=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_several_processes_answer_nothing(
    two_encoders: embeddings.PaperPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(EMBEDDINGS, presets={"paper": lambda _: two_encoders})
    monkeypatch.setattr(reproduce, "EXPERIMENTS", (tiny,))
    out = tmp_path / "out"
    command = Claims(names=("causal-embeddings-hold-little",), preset="paper", out=out)
    with monkeypatch.context() as patch:
        for module in (embeddings_run, reproduce):
            patch.setattr(module, "world_size", lambda: 2)
        assert command.run() == {}
        assert not (out / "results").exists()
    assert [row["name"] for row in command.run()["claims"]] == ["causal-embeddings-hold-little"]


def test_other_presets_run_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="preset quick runs in one process, not in 2: leave out torchrun"):
        reproduce_claims(tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("experiment", [EMBEDDINGS, MEMORY_MODEL], ids=lambda experiment: experiment.name)
def test_the_papers_models_differ_by_seed(experiment: Experiment[Any, Any]) -> None:
    plan = experiment.presets["paper"]
    assert repr(plan(0)) != repr(plan(1))
