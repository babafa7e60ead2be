"""Which memory models to train, and how large: small ones by preset, and the paper's."""

from dataclasses import dataclass, field

from memlm.config import MemoryModelRecipe, ReadingConfig
from memlm.recipes.paper import paper_memory_model

BOUNDS = ("encoder_decoder", "oracle")
"""Conditions that read more of the past, or of the very chunk, than memories hold; of a full comparison."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train and how large; as it is, the standard preset's."""

    chunk_len: int = 32
    memory_dim: int = 256
    window_chunks: int = 4
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 128
    """Width of the decoder."""
    num_tokens: int = 1_000_000
    """Causal tokens of every condition; the curriculum reads memories for some more first."""
    autoencoder_tokens: int = 1_000_000
    """Tokens of the autoencoder whose encoder the curriculum freezes."""
    reading_fraction: float = 0.25
    """Share of `num_tokens` that the curriculum spends on reading memories, on top of them."""
    reading_steps: int = 1000
    """Steps of the readers that memories are probed with."""
    reading_chunks: int = 40_000
    conditions: tuple[str, ...] = ("no_memory", "causal", "combined", "curriculum", "full_context", "recurrent")
    """What is trained (`conditions.CONDITIONS`); the first four are always compared."""
    full: bool = False
    """Also train bounds and variants."""
    variant_tokens: int = 500_000
    """Tokens of each variant."""
    weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Of the retention term beside the causal one."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Decoder widths."""
    insertions: tuple[tuple[str, int], ...] = (("prefix", 1), ("prefix", 4), ("cross_attention", 4), ("unpooled", 4))
    """How a memory enters the decoder, and as how many positions or keys."""
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "Plan":
        """As small as the claims can be decided."""
        return cls(num_tokens=800_000, conditions=("no_memory", "causal", "combined", "curriculum"), seed=seed)

    @property
    def compared(self) -> tuple[str, ...]:
        """All conditions."""
        return (*self.conditions, *(BOUNDS if self.full else ()))


@dataclass(frozen=True, kw_only=True)
class PaperPlan:
    """Memory models of the paper's sizes, and how their memories are read."""

    causal: MemoryModelRecipe
    combined: MemoryModelRecipe
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(num_steps=10_000, max_chunks=500_000))
    seed: int = 0

    @classmethod
    def of_seed(cls, seed: int) -> "PaperPlan":
        """The paper's."""
        causal = paper_memory_model(retention=0.0, seed=seed)
        return cls(causal=causal, combined=paper_memory_model(seed=seed), seed=seed)
