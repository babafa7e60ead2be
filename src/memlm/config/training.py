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
    """Highest learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: float = 0.0
    """Weight decay."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Muon(Config):
    """Muon on the hidden layers' matrices, AdamW on the rest (embeddings, heads, positions)."""

    kind: Annotated[Literal["muon"], KIND] = "muon"
    learning_rate: float = 0.02
    """Highest learning rate of Muon. Updates are scaled as in its first publication (`adjust_lr_fn="original"`)."""
    momentum: float = 0.85
    """Nesterov momentum of the gradient. Short runs need less than the customary 0.95."""
    num_newton_schulz: int = 3
    """Newton-Schulz iterations that orthogonalize an update."""
    weight_decay: float = 0.0
    """Weight decay: each step a matrix loses this share of itself, times the learning rate."""
    adamw: AdamW = field(default_factory=AdamW)
    """AdamW for the parameters that Muon does not train."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate")


Optimizer = Annotated[AdamW | Muon, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """How long and how fast to train, and in what batches. Lengths are in tokens, except `max_seconds`."""

    num_tokens: int = 10_000_000
    """Token budget: the number of positions to train on, without padding."""
    max_seconds: float | None = None
    """Time budget: stop, with the learning rate decayed to 0, after this many seconds of training steps, unless the
    tokens run out first. For rented machines. Such a run cannot be repeated bit for bit."""
    batch_tokens: int = 4096
    """Tokens per optimizer step, over all processes and micro-batches."""
    num_micro_batches: int = 1
    """Split each batch into this many parts to save memory. The gradient is that of the whole batch, up to rounding
    (and up to memory noise, which each part and process draws for itself)."""
    optimizer: Optimizer = field(default_factory=Muon)
    """The optimizer and its learning rate."""
    warmup_tokens: int = 100_000
    """The learning rate rises linearly over this many tokens."""
    decay_fraction: float = 0.6
    """The learning rate falls linearly over this last share of the budget. Between warm-up and decay it is constant."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this norm."""
    short_fraction: float = 0.02
    """Share of training chunks cut to a random length, for short texts. Lengths of 1 or 2 tokens are as frequent as
    lengths of 32 to 64."""
    everyday_fraction: float = 0.0
    """Share of training chunks that are the beginning of a made-up everyday text (`data.everyday_bytes`)."""
    scrambled_fraction: float = 0.0
    """Share of training chunks with a random share of tokens (none to all) replaced by uniformly random ones, so that
    memories hold rare strings (names, digits, code) too."""
    repeated_fraction: float = 0.0
    """Share of training chunks with repetitions of one to four random tokens put in, which people type but prose
    lacks."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of matrix products; weights and optimizer state are fp32. `auto` is bf16 if the processor supports it,
    and else fp32, because emulating bf16 is many times slower."""
    seed: int = 0
    """Random seed of the first weights and of the order of the data."""
    eval_tokens: int = 1_000_000
    """Measure held-out accuracy after every this many training tokens."""
    checkpoint_tokens: int = 2_000_000
    """Save a checkpoint after every this many training tokens."""
    num_processes: int | None = None
    """Refuse to run unless there are exactly this many processes; None accepts any number."""
    sharded: bool = False
    """Divide weights, gradients and optimizer state among the processes (FSDP2). Otherwise each process holds them
    all."""
    workers: int = 0
    """Number of processes that prepare batches ahead of time, so that a GPU need not wait; 0 prepares them between
    steps."""
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
