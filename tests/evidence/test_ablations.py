"""Named sweeps: every run is a model that takes a step."""

import pytest
import torch

from memlm.config import Recipe
from memlm.models.batch import Batch
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.model import build_model
from memlm.training.accelerator import build_accelerator
from memlm.training.objectives import objective_of
from memlm.training.optimizers import freeze
from memlm.training.step import Stepper
from memlm_evidence.sweep.ablations import ABLATIONS


def takes_a_step(recipe: Recipe | None) -> None:
    """One optimizer step on two chunks, or windows, of random tokens."""
    assert recipe
    model, (stage,) = build_model(recipe.model), recipe.stages
    freeze(model, stage.frozen)
    cfg, objective = stage.training, objective_of(recipe.model, stage)
    tokens = torch.randint(recipe.model.vocab_size, (2, *recipe.row_shape))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    stepper = Stepper(model, objective, cfg, build_accelerator(cfg))
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
            assert build_model(run.recipe.model).config == run.recipe.model


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_run_of_an_ablation_takes_a_step(name: str) -> None:
    for run in ABLATIONS[name]().runs():
        takes_a_step(run.recipe)


def test_the_frozen_encoder_fits() -> None:
    encoder = TextAutoencoder.from_pretrained("english").config
    for run in ABLATIONS["frozen"]().runs():
        model = run.recipe.model
        assert (model.shape, model.encoder, model.pooling) == (encoder.shape, encoder.encoder, encoder.pooling)
