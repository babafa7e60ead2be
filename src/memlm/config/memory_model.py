"""Memory models: training phases, and the recipe that holds all."""

from dataclasses import dataclass, field

from memlm.config.base import Config, require, require_fraction, require_positive
from memlm.config.data import DataConfig
from memlm.config.decoder import MemoryModelConfig
from memlm.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Weights(Config):
    """How much each term counts in the combined loss; a term of weight 0 is not computed."""

    causal: float = 1.0
    """Predict the next tokens of every chunk from the memories of earlier ones."""
    retention: float = 0.0
    """Regenerate each chunk from its memory alone, on blank inputs (the paper's copy)."""
    copy: float = 0.0
    """The same with the chunk's own tokens as inputs, teacher-forced; for comparison only."""

    def __post_init__(self) -> None:
        for name in ("causal", "retention", "copy"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
        require(self.causal + self.retention + self.copy > 0, "no term of the loss has a weight")


@dataclass(frozen=True, kw_only=True)
class Phase(Config):
    """A stretch of training: what the loss weighs, and whether the encoder learns."""

    weights: Weights = field(default_factory=Weights)
    training: TrainingConfig
    encoder_frozen: bool = False
    """Keep the encoder as it is; then every training chunk is encoded once, not once a step."""


@dataclass(frozen=True, kw_only=True)
class MemoryModelRecipe(Config):
    """Everything that determines the training of a memory model."""

    name: str
    data: DataConfig
    model: MemoryModelConfig
    window_chunks: int = 4
    """Chunks of a training window: consecutive, of one document."""
    phases: tuple[Phase, ...]
    """The curriculum: one phase after the other."""
    encoder_from: str | None = None
    """Take the encoder of this autoencoder or memory model: a checkpoint folder, or one that ships with memlm."""
    recall_fraction: float = 0.0
    """Share of training windows that hold a fact and a question about it (`data.facts`)."""
    recall_chunk_len: int | None = None
    """Tokens of the chunks that facts are placed in; the model's if None. One that reads whole windows as tokens has
    longer chunks than the model it is compared with."""

    def __post_init__(self) -> None:
        require(len(self.phases) > 0, "a curriculum has at least one phase")
        require_positive(self, "window_chunks")
        window = self.window_chunks * self.model.shape.chunk_len
        for phase in self.phases:
            batch = phase.training.batch_tokens
            require(batch >= window, f"batch_tokens {batch} is less than one window of {window} tokens")
        require_fraction(self, "recall_fraction")
        if self.recall_fraction:
            placed = self.recall_chunk_len or self.model.shape.chunk_len
            several = placed > 0 and window % placed == 0 and window > placed
            require(several, f"recall_fraction needs several chunks of {placed} tokens in a window of {window} tokens")
        if self.model.encoder is None:
            without = all(phase.weights.retention == phase.weights.copy == 0 for phase in self.phases)
            require(without, "a model without an encoder has nothing to regenerate a chunk from: weights.retention")
        if self.phases[0].encoder_frozen:
            require(
                self.model.encoder is not None and self.encoder_from is not None,
                "the first phase freezes the encoder, which has learned nothing yet: give encoder_from",
            )
        self.data.require_vocabulary(self.model.shape.vocab_size)
