"""Named sweeps: every run is a model that takes a step."""

import pytest
import torch

from memlm.config import MemoryModelRecipe, Recipe, RecipeConfig
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch
from memlm.models.memory_model import MemoryModel
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.accelerator import build_accelerator
from memlm.training.objectives import RETENTION, combined
from memlm.training.optimizers import build_optimizers
from memlm.training.step import Stepper
from memlm_evidence.sweep.ablations import ABLATIONS


def built(recipe: Recipe | None) -> Autoencoder | MemoryModel:
    assert isinstance(recipe, RecipeConfig | MemoryModelRecipe)
    return Autoencoder(recipe.model) if isinstance(recipe, RecipeConfig) else MemoryModel(recipe.model)


def takes_a_step(recipe: Recipe | None) -> None:
    """One optimizer step on two chunks, or windows, of random tokens."""
    model = built(recipe)
    if isinstance(recipe, MemoryModelRecipe):
        (phase,) = recipe.phases
        cfg, objective, windows = phase.training, combined(phase.weights), (recipe.window_chunks,)
        if phase.encoder_frozen:
            model.encoder.requires_grad_(False)
    else:
        cfg, objective, windows = recipe.training, RETENTION, ()
    shape = recipe.model.shape
    tokens = torch.randint(shape.vocab_size, (2, *windows, shape.chunk_len))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    stepper = Stepper(model, objective, cfg, build_accelerator(cfg), build_optimizers(model, cfg.optimizer))
    stepper.step(Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)))
    assert any(not torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_run_of_an_ablation_is_a_model(name: str) -> None:
    sweep = ABLATIONS[name](num_tokens=100_000)
    runs = sweep.runs()
    assert f"Cost: {len(runs)} runs" in (ABLATIONS[name].__doc__ or "")
    assert sweep.question.endswith("?")
    for run in runs:
        assert not run.fault
        assert run.num_tokens == 100_000
        with torch.device("meta"):
            assert built(run.recipe).config == run.recipe.model


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_run_of_an_ablation_takes_a_step(name: str) -> None:
    for run in ABLATIONS[name]().runs():
        takes_a_step(run.recipe)


def test_the_frozen_encoder_fits() -> None:
    encoder = TextAutoencoder.from_pretrained("english").config
    for run in ABLATIONS["frozen"]().runs():
        assert isinstance(run.recipe, MemoryModelRecipe)
        model = run.recipe.model
        assert (model.shape, model.encoder, model.pooling) == (encoder.shape, encoder.encoder, encoder.pooling)
