"""What the training of one kind of model takes beside the stage loop (`training.train`): the seam for new kinds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import Recipe, Stage
from memlm.data.chunks import Chunks, lazy_chunks
from memlm.data.token_store import PreparedData
from memlm.evaluation.information import unconditional_log_probs
from memlm.models.batch import Batch

MAX_VALIDATION_CHUNKS = 256

Sampler = Callable[[int], Batch]
"""Step → that step's whole batch; a function of the step alone, so that a resumed run sees the same."""
Evaluator = Callable[[nn.Module], dict[str, float]]
"""A model → its held-out measures."""


class TrainedModel(Protocol):
    """What a run ends with."""

    provenance: dict[str, Any]

    @classmethod
    def from_pretrained(cls, name_or_path: Any) -> Self: ...  # noqa: D102

    def save_pretrained(self, folder: Any) -> None: ...  # noqa: D102


class ModelTraining(ABC):
    """A recipe's models, batches and validation, stage by stage. One subclass for each kind of model.

    Raises:
        ValueError: the recipe does not fit its data.
    """

    text_model: ClassVar[type[TrainedModel]]
    """What is saved in the end."""
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

    @abstractmethod
    def fresh(self, stage: Stage) -> nn.Module:
        """A stage's model, untrained."""

    def begin(self, stage: Stage, model: nn.Module) -> nn.Module:
        """The model that a stage trains, made of what the stage before has trained; parts may be frozen already."""
        return model

    @abstractmethod
    def sampler(self, stage: Stage, model: nn.Module) -> Sampler:
        """A stage's training batches."""

    @abstractmethod
    def evaluator(self, stage: Stage) -> Evaluator:
        """How a stage is watched, on the validation split."""

    @abstractmethod
    def finish(self, model: Any, provenance: Mapping[str, Any]) -> Any:
        """The trained model with its tokenizer."""

    def validation_chunks(self, chunk_len: int) -> Chunks:
        """What a run is watched by: chunks of the validation split, from all documents alike."""
        chunks = lazy_chunks(self.prepared.splits["validation"], chunk_len)
        return chunks.rows(evenly_spaced(len(chunks.document), MAX_VALIDATION_CHUNKS))

    def unconditional(self) -> Float[Tensor, " vocab"]:
        """Log-probabilities of a reader without a memory: the tokens' frequencies in the training split."""
        log_probs = unconditional_log_probs(self.prepared.splits["train"].tokens, self.recipe.model.vocab_size)
        return torch.from_numpy(log_probs).float()


def evenly_spaced(number: int, at_most: int) -> Any:
    """Indices of at most so many of a number of rows, from the first to the last."""
    return np.linspace(0, number - 1, min(at_most, number)).astype(int)
