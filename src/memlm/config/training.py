"""Optimizers, and how long, how fast and in what portions to train."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic

from memlm.config.base import KIND, Config, require, require_fraction, require_positive


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
    """How long, how fast and in what portions to train. All spans are counted in tokens, but for `max_seconds`."""

    num_tokens: int = 10_000_000
    """Token budget: positions trained on, padding not counted in."""
    max_seconds: float | None = None
    """End, with the learning rate at nothing, when steps have taken this long, where the tokens are not spent before;
    for a machine that is lent by the minute. Such a run is not repeated to the bit."""
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
    workers: int = 0
    """Processes that make batches ahead of time, where a GPU would wait for them; 0 makes them between steps."""
    trackers: tuple[str, ...] = ()
    """Also report to these accelerate trackers, such as tensorboard or wandb."""

    def __post_init__(self) -> None:
        require_positive(self, "num_tokens", "batch_tokens", "num_micro_batches", "max_grad_norm")
        require_positive(self, "eval_tokens", "checkpoint_tokens")
        require_fraction(self, "decay_fraction", "short_fraction", "everyday_fraction")
        require_fraction(self, "scrambled_fraction", "repeated_fraction")
        require(
            self.max_seconds is None or self.max_seconds > 0, f"max_seconds must be positive, not {self.max_seconds}"
        )
        require(self.seed >= 0, f"seed must not be negative, not {self.seed}")
        for name in ("warmup_tokens", "workers"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
