"""The few knobs that scale every autoencoder recipe alike."""

from dataclasses import dataclass

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
    decoder_layers: int = 2
    vocab_size: int = 1024
    """Token types of the byte-level BPE."""
    num_tokens: int = 2_000_000
    """Tokens trained on, over all stages."""
    batch_chunks: int = 32
    """Chunks per optimizer step."""
    seed: int = 0

    def __post_init__(self) -> None:
        names = ("chunk_len", "memory_dim", "dim", "encoder_layers", "decoder_layers", "num_tokens", "batch_chunks")
        require_positive(self, *names)


DEFAULT_SCALE = Scale()
