"""What recipes share: the few knobs that scale every autoencoder alike, and how Muon trains."""

from dataclasses import dataclass
from typing import Any

from memlm.config import AdamW, Muon, TrainingConfig
from memlm.config.base import Config, require_positive


@dataclass(frozen=True, kw_only=True)
class Scale(Config):
    """Size, budget and seed of an autoencoder; two recipes of one scale are a fair comparison."""

    chunk_len: int = 64
    """Tokens per chunk."""
    memory_dim: int = 256
    """Dimensions of the one vector that holds a chunk."""
    dim: int = 128
    """Width of the hidden state."""
    encoder_layers: int = 1
    """Layers of the encoder."""
    decoder_layers: int = 2
    """Layers of the decoder."""
    vocab_size: int = 1024
    """Token types of the byte-level BPE."""
    num_tokens: int = 2_000_000
    """Tokens to train on, over all stages."""
    batch_chunks: int = 32
    """Chunks per optimizer step."""
    seed: int = 0
    """Random seed of the first weights and of the order of the data."""

    def __post_init__(self) -> None:
        names = ("chunk_len", "memory_dim", "dim", "encoder_layers", "decoder_layers", "num_tokens", "batch_chunks")
        require_positive(self, *names)


DEFAULT_SCALE = Scale()


def muon_training(
    num_tokens: int,
    batch_tokens: int,
    seed: int,
    *,
    rates: tuple[float, float],
    momentum: float = Muon.momentum,
    **changes: Any,
) -> TrainingConfig:
    """Muon, and AdamW for the rest, at these two rates: a short warm-up, ten held-out measures, four checkpoints."""
    schedule = {
        "warmup_tokens": min(10 * batch_tokens, num_tokens // 10),
        "eval_tokens": max(batch_tokens, num_tokens // 10),
        "checkpoint_tokens": max(batch_tokens, num_tokens // 4),
    }
    optimizer = Muon(learning_rate=rates[0], momentum=momentum, adamw=AdamW(learning_rate=rates[1]))
    return TrainingConfig(
        num_tokens=num_tokens, batch_tokens=batch_tokens, optimizer=optimizer, seed=seed, **{**schedule, **changes}
    )
