"""`memlm bench speed`."""

from dataclasses import dataclass
from typing import Any

import torch

from memlm.cli.command import Answer
from memlm.config import AutoencoderRecipe
from memlm.data.token_store import PreparedData, prepare
from memlm.recipes.autoencoder import autoencoder, reference
from memlm.training.accelerator import autocast
from memlm.training.objectives import RETENTION
from memlm.training.train import training_of
from memlm_evidence.benchmarks.measuring import Benchmark, TrainingSteps, made_here, operation_shares, side_by_side

ROUNDS = 5
STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Speed(Benchmark):
    """Compare tokens per second in training and encoding, the paper's recipe and ours, and profile a training step."""

    def run(self) -> Answer:
        """Run all recipes in turn; medians over rounds."""
        recipes = {
            "ours": autoencoder(grown_from=0),
            "attention": reference(),
            "masked_mixer": reference(mixer="masked_mixer"),
        }
        prepared = prepare(recipes["ours"].data)
        models = {name: _Model(recipe, prepared) for name, recipe in recipes.items()}
        training = side_by_side({name: model.train for name, model in models.items()}, ROUNDS)
        encoding = side_by_side({name: model.encode for name, model in models.items()}, ROUNDS)
        return {
            "training_tokens_per_second": {name: models[name].tokens / spent for name, spent in training.items()},
            "encoding_tokens_per_second": {name: models[name].tokens / spent for name, spent in encoding.items()},
            "step_share": operation_shares(models["ours"].train),
            **made_here(data=prepared.fingerprint),
        }


class _Model:
    """A recipe's model, ready to train and to encode."""

    def __init__(self, recipe: AutoencoderRecipe, prepared: PreparedData) -> None:
        (stage,), training = recipe.stages, training_of(recipe, prepared)
        self.model: Any = training.build()
        batch = training.sampler(stage, self.model)(0)
        self.train = TrainingSteps(self.model, RETENTION, stage.training, batch, STEPS)
        self.tokens = STEPS * int(self.train.batch.mask.sum())

    @torch.no_grad()
    def encode(self) -> None:
        stepper = self.train.stepper
        batch = self.train.batch.rows(slice(None), stepper.accelerator.device)
        for _ in range(STEPS):
            with autocast(stepper.cfg, stepper.accelerator):
                self.model.encoder(batch.tokens, batch.mask)
