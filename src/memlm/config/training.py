"""Optimizers, training, growth, and the recipe that holds everything."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic

from memlm.config.base import KIND, Config, require, require_fraction, require_positive
from memlm.config.data import DataConfig
from memlm.config.model import AutoencoderConfig, LanguageModelConfig


@dataclass(frozen=True, kw_only=True)
class AdamW(Config):
    """AdamW on every parameter."""

    kind: Annotated[Literal["adamw"], KIND] = "adamw"
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Muon(Config):
    """Muon on the hidden layers' matrices, AdamW on the rest (embeddings, heads, positions)."""

    kind: Annotated[Literal["muon"], KIND] = "muon"
    learning_rate: float = 0.02
    """Of Muon; the update's scale is that of its first publication (`adjust_lr_fn="original"`)."""
    momentum: float = 0.85
    """Of the gradient, Nesterov's. Short runs want less than the customary 0.95."""
    num_newton_schulz: int = 3
    """Newton-Schulz iterations that orthogonalize an update."""
    weight_decay: float = 0.0
    """Share of a matrix that is lost each step, times the learning rate."""
    adamw: AdamW = field(default_factory=AdamW)

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate")


Optimizer = Annotated[AdamW | Muon, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """How long, how fast and in what portions to train. All spans are counted in tokens, never in time."""

    num_tokens: int = 10_000_000
    """Token budget: positions trained on, padding not counted in."""
    batch_tokens: int = 4096
    """Tokens per optimizer step, over all processes and micro-batches."""
    num_micro_batches: int = 1
    """Portions a batch is worked off in, for memory; the gradient is the whole batch's, up to rounding (and up to
    memory noise, which each portion and process draws for itself)."""
    optimizer: Optimizer = field(default_factory=Muon)
    warmup_tokens: int = 100_000
    """The learning rate rises linearly over these."""
    decay_fraction: float = 0.6
    """The learning rate falls linearly over this last share of the budget, after a constant stretch."""
    max_grad_norm: float = 1.0
    short_fraction: float = 0.02
    """Share of training chunks cut to a random length, as often to 1 or 2 tokens as to 32 to 64: short texts."""
    everyday_fraction: float = 0.0
    """Share of training chunks that are everyday text, made up (`data.everyday_bytes`), from its beginning."""
    scrambled_fraction: float = 0.0
    """Share of training chunks in which tokens, from none to all, are replaced by uniformly random ones, so that a
    memory holds rare strings (names, digits, code) too and not only what the corpus says often."""
    repeated_fraction: float = 0.0
    """Share of training chunks into which repetitions of one to four random tokens are put, which corpora of prose lack
    and people type."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Matrix products' type; weights and optimizer state are fp32. `auto` is bf16 where the processor multiplies in it,
    and fp32 where it would have to be emulated, which is many times slower."""
    seed: int = 0
    eval_tokens: int = 1_000_000
    """Measure held-out accuracy each time this many tokens were trained on."""
    checkpoint_tokens: int = 2_000_000
    """Save a checkpoint each time this many tokens were trained on."""
    num_processes: int | None = None
    """Refuse to run unless there are exactly this many processes."""
    sharded: bool = False
    """Divide weights, gradients and optimizer state over the processes (FSDP2), instead of each holding them all."""
    trackers: tuple[str, ...] = ()
    """Also report to these accelerate trackers, such as tensorboard or wandb."""

    def __post_init__(self) -> None:
        require_positive(self, "num_tokens", "batch_tokens", "num_micro_batches", "max_grad_norm")
        require_positive(self, "eval_tokens", "checkpoint_tokens")
        require_fraction(self, "decay_fraction", "short_fraction", "everyday_fraction")
        require_fraction(self, "scrambled_fraction", "repeated_fraction")
        require(self.seed >= 0, f"seed must not be negative, not {self.seed}")
        require(self.warmup_tokens >= 0, f"warmup_tokens must not be negative, not {self.warmup_tokens}")


@dataclass(frozen=True, kw_only=True)
class GrowthStage(Config):
    """Training on shorter chunks, before the model is grown to longer ones."""

    chunk_len: int
    """Tokens per chunk; the memory has as many tokens to a dimension as in the end."""
    training: TrainingConfig

    def __post_init__(self) -> None:
        require_positive(self, "chunk_len")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Config):
    """Everything that determines a training run: data, model and training."""

    name: str
    data: DataConfig
    model: AutoencoderConfig
    training: TrainingConfig
    """Of the model itself, after any growth."""
    growth: tuple[GrowthStage, ...] = ()
    """Stages on shorter chunks that come first (`models.growth`)."""

    def __post_init__(self) -> None:
        shape = self.model.shape
        lengths = [*((stage.chunk_len, stage.training) for stage in self.growth), (shape.chunk_len, self.training)]
        for chunk_len, training in lengths:
            batch = training.batch_tokens
            require(batch >= chunk_len, f"batch_tokens {batch} is less than one chunk of chunk_len {chunk_len}")
        self.data.require_vocabulary(shape.vocab_size)


@dataclass(frozen=True, kw_only=True)
class RetrievalStage(Config):
    """Training a causal language model on, to tell which texts belong together (InfoNCE)."""

    training: TrainingConfig
    temperature: float = 0.1
    """Cosines are divided by this."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")
        portions = self.training.num_micro_batches
        require(
            portions == 1, f"a text is told from the rest of its batch: num_micro_batches must be 1, not {portions}"
        )


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(Config):
    """Everything that determines the training of a causal language model."""

    name: str
    data: DataConfig
    model: LanguageModelConfig
    training: TrainingConfig
    """On the next token."""
    retrieval: RetrievalStage | None = None
    """What comes after, if anything."""

    def __post_init__(self) -> None:
        for training in (self.training, *([self.retrieval.training] if self.retrieval else [])):
            batch, chunk_len = training.batch_tokens, self.model.chunk_len
            require(batch >= 2 * chunk_len, f"batch_tokens {batch} is less than two chunks of chunk_len {chunk_len}")
        self.data.require_vocabulary(self.model.vocab_size)
