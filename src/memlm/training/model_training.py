"""What the training of one kind of model takes beside the stage loop (`training.train`): the seam for new kinds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from memlm.config import ModelConfig, Recipe, Stage
from memlm.data.chunks import Chunks, lazy_chunks
from memlm.data.token_store import PreparedData
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.information import unconditional_log_probs
from memlm.text.model import build_model
from memlm.training.objectives import Objective, objective_of

MAX_VALIDATION_CHUNKS = 256

Sampler = Callable[[int], Any]
"""Step → that step's whole batch; a function of the step alone, so that a resumed run sees the same."""
Evaluator = Callable[[nn.Module], dict[str, float]]
"""A model → its held-out measures."""


class ModelTraining(ABC):
    """A recipe's models, batches and validation, stage by stage. One subclass for each kind of model.

    Raises:
        ValueError: the recipe does not fit its data.
    """

    text_model: ClassVar[type[Any]]
    """The `TextModel` that is saved in the end."""
    all_weights_used: ClassVar[bool] = True
    """Whether every step has a gradient for every weight that is trained."""
    begins_with: str = ""
    """The fingerprint of what training begins with besides the recipe's data."""

    def __init__(self, recipe: Recipe[Any], prepared: PreparedData) -> None:
        wanted, found = recipe.model.vocab_size, prepared.tokenizer.vocab_size
        if wanted != found:
            raise ValueError(
                f"the model's vocab_size is {wanted}, the tokenizer's {found}; set the model's vocab_size to {found}"
            )
        self.recipe, self.prepared = recipe, prepared

    def build(self) -> nn.Module:
        """The first stage's model, freshly initialized from the recipe's seed."""
        torch.manual_seed(self.recipe.seed)
        return self.fresh(self.recipe.stages[0])

    def config(self, stage: Stage) -> ModelConfig:
        """Of a stage's model."""
        return self.recipe.model

    def fresh(self, stage: Stage) -> nn.Module:
        """A stage's model, untrained but for what it begins with."""
        return build_model(self.config(stage))

    def begin(self, stage: Stage, model: nn.Module) -> nn.Module:
        """The model that a stage trains, made of what the stage before has trained; parts may be frozen already."""
        return model

    @abstractmethod
    def sampler(self, stage: Stage, model: nn.Module) -> Sampler:
        """A stage's training batches."""

    @abstractmethod
    def evaluator(self, stage: Stage) -> Evaluator:
        """How a stage is watched, on the validation split."""

    def objective(self, stage: Stage) -> Objective:
        """What a stage trains for."""
        return objective_of(self.recipe.model, stage)

    def finish(self, model: nn.Module, provenance: dict[str, Any]) -> Any:
        """The trained model with its tokenizer; and what a reader without a memory knows: how frequent tokens are."""
        tables = []
        if self.text_model.tables:
            log_probs = unconditional_log_probs(self.prepared.splits["train"].tokens, self.recipe.model.vocab_size)
            tables = [torch.from_numpy(log_probs).float()]
        return self.text_model(model, self.prepared.tokenizer, *tables, provenance)

    def validation_chunks(self, chunk_len: int) -> Chunks:
        """What a run is watched by: chunks of the validation split, from all documents alike."""
        chunks = lazy_chunks(self.prepared.splits["validation"], chunk_len)
        return chunks.rows(evenly_spaced(len(chunks.document), MAX_VALIDATION_CHUNKS))


def require_fitting(
    name: str, theirs: Mapping[str, Any], wanted: Mapping[str, Any], tokenizer: Tokenizer, prepared: PreparedData
) -> None:
    """Raise ValueError where the trained model `name`, with which a recipe begins, has other fields (`Config.leaves`)
    than are wanted, or another tokenizer than the data."""
    paths = [path for path in {**theirs, **wanted} if theirs.get(path) != wanted.get(path)]
    if paths:
        wrong = (f"model.{path} is {theirs.get(path)}, not {wanted.get(path)}" for path in paths)
        raise ValueError(f"{name} does not fit the recipe: its {'; its '.join(wrong)}. Set the recipe's like it")
    if tokenizer.fingerprint != prepared.tokenizer.fingerprint:
        raise ValueError(f"{name} knows its own tokens: set data.tokenizer.name to it")


def evenly_spaced(number: int, at_most: int) -> Any:
    """Indices of at most so many of a number of rows, from the first to the last."""
    return np.linspace(0, number - 1, min(at_most, number)).astype(int)
