"""Tokens per second of training and encoding, ours against the reference, and where a training step's time goes."""

from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from memlm.config import RecipeConfig
from memlm.data.token_store import PreparedData, prepare
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.reference import reference
from memlm.runtime.results import Provenance
from memlm.training.accelerator import autocast
from memlm.training.autoencoder import batch_sampler, seeded_autoencoder
from memlm.training.objectives import RETENTION
from memlm_evidence.benchmarks.steps import build_stepper, operation_shares, timed

ROUNDS = 5
STEPS = 10


def speed() -> dict[str, Any]:
    """Both recipes in turn, round after round, so that noise of the machine meets both; medians over rounds."""
    recipes = {
        "ours": autoencoder(grown_from=0),
        "attention": reference(),
        "masked_mixer": reference(mixer="masked_mixer"),
    }
    prepared = prepare(recipes["ours"].data)
    subjects = {name: _Subject(recipe, prepared) for name, recipe in recipes.items()}
    for subject in subjects.values():
        subject.train()
        subject.encode()
    training: dict[str, list[float]] = {name: [] for name in subjects}
    encoding: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            training[name].append(subject.tokens / timed(subject.train)[1])
            encoding[name].append(subject.tokens / timed(subject.encode)[1])
    return {
        "training_tokens_per_second": {name: median(rates) for name, rates in training.items()},
        "encoding_tokens_per_second": {name: median(rates) for name, rates in encoding.items()},
        "step_share": operation_shares(subjects["ours"].train),
        "num_threads": torch.get_num_threads(),
        "provenance": asdict(Provenance.here(data=prepared.fingerprint)),
    }


class _Subject:
    """A recipe's model, ready to train and to encode."""

    def __init__(self, recipe: RecipeConfig, prepared: PreparedData) -> None:
        cfg = recipe.training
        self.model = seeded_autoencoder(recipe)
        self.stepper = build_stepper(self.model, RETENTION, cfg)
        self.batch = batch_sampler(recipe, prepared)(0)
        self.tokens = STEPS * int(self.batch.mask.sum())

    def train(self) -> None:
        for _ in range(STEPS):
            self.stepper.step(self.batch)

    @torch.no_grad()
    def encode(self) -> None:
        batch = self.batch.rows(slice(None), self.stepper.accelerator.device)
        for _ in range(STEPS):
            with autocast(self.stepper.cfg, self.stepper.accelerator):
                self.model.encoder(batch.tokens, batch.mask)
