"""A condition trained and measured on held-out text, and what its training takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from memlm.config import AutoencoderRecipe, MemoryModelRecipe, RecurrentConfig, Stage, Weights
from memlm.data.chunks import all_windows, split_into_chunks
from memlm.data.token_store import PreparedData
from memlm.evaluation.prediction import Prediction, predict
from memlm.models.memory_model import MemoryModel
from memlm.models.recurrent import RecurrentModel
from memlm.text.memory_model import TextMemoryModel
from memlm.training.checkpoint import RunFolder
from memlm.training.footprint import flops_per_token
from memlm.training.loop import fit
from memlm.training.memory_model import window_sampler
from memlm.training.objectives import combined, objective_of
from memlm.training.optimizers import freeze
from memlm.training.train import fingerprint, train, training_of


class StageCost(NamedTuple):
    """A stage of training, and what it takes."""

    num_tokens: int
    flops_per_token: float


class Trained(NamedTuple):
    """A trained condition."""

    prediction: Prediction
    """Of held-out text."""
    stages: Sequence[StageCost]
    num_tokens: int
    text_model: TextMemoryModel | None
    """None of recurrent memory."""

    @property
    def model(self) -> TextMemoryModel:
        """Of any other condition."""
        assert self.text_model is not None
        return self.text_model

    def flops_until(self, num_tokens: int) -> float:
        """Operations of training on so many tokens; without those of what it began with."""
        total, left = 0.0, num_tokens
        for stage in self.stages:
            total += min(left, stage.num_tokens) * stage.flops_per_token
            left = max(0, left - stage.num_tokens)
        return total + left * self.stages[-1].flops_per_token  # a last batch may go beyond the budget

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

    def train(self, recipe: MemoryModelRecipe, folder: Path, term: Literal["causal", "copy"] = "causal") -> Trained:
        """Train a recipe into a folder, or load what was trained there, and predict the held-out text by a term."""
        trained = train(recipe, folder, prepared=self.prepared)
        shape = recipe.model.shape
        test = split_into_chunks(self.prepared.splits["test"], shape.chunk_len)
        windows = all_windows(test, recipe.windows.num_chunks)
        prediction = predict(trained.model, windows, shape.vocab_size, term=term).chunked(self.chunk_len)
        stages = [self._cost(recipe, stage, trained.model) for stage in recipe.stages]
        return Trained(prediction, stages, trained.provenance["tokens"], trained)

    def _cost(self, recipe: MemoryModelRecipe, stage: Stage, model: MemoryModel) -> StageCost:
        """What a stage takes. A frozen encoder is counted as if it encoded every window when its turn comes: it is run
        forwards, and once for each chunk, unless there are more turns than text."""
        chunks = split_into_chunks(self.prepared.splits["validation"], recipe.model.shape.chunk_len)
        batch = window_sampler(recipe, stage, chunks, self.prepared.tokenizer)(0)
        freeze(model, stage.frozen)
        spent = flops_per_token(model, combined(stage.weights), batch)
        freeze(model, ())
        return StageCost(stage.training.num_tokens, spent)

    def train_recurrent(self, recipe: MemoryModelRecipe, num_memory_tokens: int, folder: Path, seed: int) -> Trained:
        """Recurrent memory with the decoder, the windows and the training of a memory model's recipe."""
        model, cost = self.recurrent(recipe, num_memory_tokens, folder, seed)
        test = split_into_chunks(self.prepared.splits["test"], recipe.model.shape.chunk_len)
        prediction = predict(model, all_windows(test, recipe.windows.num_chunks), model.config.vocab_size)
        return Trained(prediction, [cost], cost.num_tokens, None)

    def recurrent(
        self, recipe: MemoryModelRecipe, num_memory_tokens: int, folder: Path, seed: int
    ) -> tuple[RecurrentModel, StageCost]:
        """That model, and what its training takes."""
        (stage,) = recipe.stages
        shape = recipe.model.shape
        cfg = RecurrentConfig(
            vocab_size=shape.vocab_size, decoder=recipe.model.decoder, num_memory_tokens=num_memory_tokens
        )
        torch.manual_seed(seed)
        model, objective = RecurrentModel(cfg), combined(Weights(causal=1.0))
        train = split_into_chunks(self.prepared.splits["train"], shape.chunk_len)
        sample = window_sampler(recipe, stage, train, self.prepared.tokenizer)
        run = " ".join(fingerprint(each, self.prepared) for each in (cfg, recipe))
        into, title = RunFolder(folder, run), "Training recurrent memory"
        progress = fit(model, sample, objective, stage.training, title=title, folder=into)
        model = model.cpu()
        return model, StageCost(progress.tokens, flops_per_token(model, objective, sample(0)))

    def autoencoder_flops(self, recipe: AutoencoderRecipe) -> float:
        """What it takes to train an autoencoder, over all its stages."""
        training, total = training_of(recipe, self.prepared), 0.0
        for stage in recipe.stages:
            model = training.fresh(stage)
            each = flops_per_token(model, objective_of(recipe.model, stage), training.sampler(stage, model)(0))
            total += each * stage.training.num_tokens
        return total


def trained_encoder(recipe: AutoencoderRecipe, out: Path) -> str:
    """Where the autoencoder is, to take its encoder from; trained if it is not there yet."""
    folder = out / f"autoencoder-seed-{recipe.seed}"
    train(recipe, folder)
    return str(folder / "model")
