"""Which models to train and how long, and how much to ask them."""

from dataclasses import dataclass

MODELS = ("combined", "causal", "full_context")


@dataclass(frozen=True, kw_only=True)
class RecallPlan:
    """What to train and how long, and how much to ask; as it is, the standard preset's."""

    chunk_len: int = 32
    memory_dim: int = 256
    window_chunks: int = 4
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    pointer_span: int = 12
    """Tokens by which a decoder with memories finds what it copies of them."""
    dim: int = 128
    """Width of the decoder."""
    reading_fraction: float = 0.25
    """Share of the tokens that the combined model first learns to read memories from: what is not given back cannot be
    pointed at."""
    num_tokens: int = 8_000_000
    autoencoder_tokens: int | None = None
    """Train an autoencoder on so many tokens first (the comparison of memory models has the same), take its encoder,
    and leave that as it is: memories are good from the first step on. None trains the encoder with the rest."""
    recall_fraction: float = 0.8
    """Share of training windows with facts and questions."""
    num_texts: int = 100
    """Texts of the benchmark for each kind of fact, number of past chunks and distance."""
    models: tuple[str, ...] = MODELS
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "RecallPlan":
        """As small as the claim can be decided."""
        return cls(num_tokens=3_000_000, autoencoder_tokens=1_000_000, models=("combined",), num_texts=300, seed=seed)
