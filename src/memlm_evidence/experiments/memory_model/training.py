"""A condition trained and measured on held-out text, and what its training takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from memlm.config import MemoryModelRecipe, Phase, RecipeConfig, RecurrentConfig, Weights
from memlm.data.chunks import split_into_chunks
from memlm.data.token_store import PreparedData
from memlm.data.windows import all_windows
from memlm.evaluation.prediction import Prediction, predict
from memlm.models.memory_model import MemoryModel
from memlm.models.recurrent import RecurrentModel
from memlm.text.memory_model import TextMemoryModel
from memlm.training.accelerator import build_accelerator
from memlm.training.autoencoder import retention_task, seeded_autoencoder, stages, train_autoencoder
from memlm.training.flops import flops_per_token
from memlm.training.loop import Home, Task, fit
from memlm.training.memory_model import train_memory_model, window_sampler
from memlm.training.objectives import combined
from memlm.training.run import fingerprint


class PhaseCost(NamedTuple):
    """A phase of training, and what it takes."""

    num_tokens: int
    flops_per_token: float


class Trained(NamedTuple):
    """A trained condition."""

    prediction: Prediction
    """Of held-out text."""
    phases: Sequence[PhaseCost]
    num_tokens: int
    model: TextMemoryModel | None
    """None of recurrent memory."""

    def flops_until(self, num_tokens: int) -> float:
        """Operations of training on so many tokens; without those of what it began with."""
        total, left = 0.0, num_tokens
        for phase in self.phases:
            total += min(left, phase.num_tokens) * phase.flops_per_token
            left = max(0, left - phase.num_tokens)
        return total + left * self.phases[-1].flops_per_token  # a last batch may go beyond the budget

    @property
    def train_flops(self) -> float:
        """Operations of all of its training."""
        return self.flops_until(self.num_tokens)


@dataclass(frozen=True)
class Data:
    """The text that all conditions are trained and measured on."""

    prepared: PreparedData
    chunk_len: int
    """Of the chunks that are compared; a full context is one long chunk."""
    quiet: bool

    def train(self, recipe: MemoryModelRecipe, folder: Path, term: Literal["causal", "copy"] = "causal") -> Trained:
        """Train a recipe into a folder, or load what was trained there, and predict the held-out text by a term."""
        trained = train_memory_model(recipe, folder, prepared=self.prepared, quiet=self.quiet)
        shape = recipe.model.shape
        windows = all_windows(split_into_chunks(self.prepared.splits["test"], shape.chunk_len), recipe.window_chunks)
        prediction = predict(trained.model, windows, shape.vocab_size, term=term).chunked(self.chunk_len)
        phases = [self._cost(recipe, phase, trained.model) for phase in recipe.phases]
        return Trained(prediction, phases, trained.provenance["tokens"], trained)

    def _cost(self, recipe: MemoryModelRecipe, phase: Phase, model: MemoryModel) -> PhaseCost:
        """What a phase takes. A frozen encoder is counted as if it encoded every window when its turn comes: it is run
        forwards, and once for each chunk, unless there are more turns than text."""
        chunks = split_into_chunks(self.prepared.splits["validation"], recipe.model.shape.chunk_len)
        batch = window_sampler(recipe, phase, chunks, self.prepared.tokenizer, None)(0)
        if model.encoder is not None:
            model.encoder.requires_grad_(not phase.encoder_frozen)
        spent = flops_per_token(model, combined(phase.weights), batch)
        model.requires_grad_(True)
        return PhaseCost(phase.training.num_tokens, spent)

    def train_recurrent(self, recipe: MemoryModelRecipe, num_memory_tokens: int, folder: Path, seed: int) -> Trained:
        """Recurrent memory with the decoder, the windows and the training of a memory model's recipe."""
        (phase,) = recipe.phases
        shape = recipe.model.shape
        cfg = RecurrentConfig(
            vocab_size=shape.vocab_size, decoder=recipe.model.decoder, num_memory_tokens=num_memory_tokens
        )
        torch.manual_seed(seed)
        model, objective = RecurrentModel(cfg), combined(Weights(causal=1.0))
        train, test = (split_into_chunks(self.prepared.splits[name], shape.chunk_len) for name in ("train", "test"))
        sample = window_sampler(recipe, phase, train, self.prepared.tokenizer, None)
        run = fingerprint([cfg, recipe], self.prepared)
        home = Home(folder / "checkpoints", folder / "metrics.jsonl", run)
        task = Task(sample=sample, objective=objective, title="Training recurrent memory")
        progress = fit(model, task, phase.training, build_accelerator(phase.training), home=home, quiet=self.quiet)
        prediction = predict(model.cpu(), all_windows(test, recipe.window_chunks), cfg.vocab_size)
        cost = PhaseCost(progress.tokens, flops_per_token(model, objective, sample(0)))
        return Trained(prediction, [cost], progress.tokens, None)

    def autoencoder_flops(self, recipe: RecipeConfig) -> float:
        """What it takes to train an autoencoder, over all its stages."""
        total = 0.0
        for stage in stages(recipe):
            task = retention_task(stage, self.prepared)
            each = flops_per_token(seeded_autoencoder(stage), task.objective, task.sample(0))
            total += each * stage.training.num_tokens
        return total


def trained_encoder(recipe: RecipeConfig, out: Path, *, quiet: bool) -> str:
    """Where the autoencoder is, to take its encoder from; trained if it is not there yet."""
    folder = out / f"autoencoder-seed-{recipe.training.seed}"
    train_autoencoder(recipe, folder, quiet=quiet)
    return str(folder / "model")
