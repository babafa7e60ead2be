"""What encoders to train and read, and how large: small ones by preset, and the paper's."""

from dataclasses import dataclass, field
from typing import Literal

from memlm.config import AutoencoderRecipe, LanguageModelRecipe, ReadingConfig
from memlm.recipes.paper import paper_autoencoder, paper_causal

LanguageMixer = Literal["attention", "masked_mixer"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train and how large; as it is, the standard preset's."""

    chunk_len: int = 64
    dim: int = 256
    """Width of the language models' states, and dimensions of the autoencoder's memory."""
    num_tokens: int = 750_000
    """Tokens every encoder is trained on."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Sizes of causal models."""
    budgets: tuple[int, ...] = (187_500, 375_000, 750_000)
    """Budgets of causal models, in tokens."""
    mixers: tuple[LanguageMixer, ...] = ("masked_mixer",)
    grid: bool = False
    """Train every size with every budget, instead of each size with the largest budget and the other way round."""
    cross: bool = False
    """Cross objectives with poolings."""
    reading_steps: int = 400
    reading_chunks: int = 8_000
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "Plan":
        """As small as the claims can be decided."""
        return cls(
            chunk_len=32,
            dim=128,
            num_tokens=300_000,
            dims=(32, 64, 128),
            budgets=(75_000, 150_000, 300_000),
            reading_chunks=6000,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class PaperPlan:
    """An autoencoder and a causal model of the paper's sizes, and how they are read."""

    autoencoder: AutoencoderRecipe
    causal: LanguageModelRecipe
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(num_steps=10_000, max_chunks=500_000))
    seed: int = 0

    @classmethod
    def of_seed(cls, seed: int) -> "PaperPlan":
        """The paper's."""
        return cls(autoencoder=paper_autoencoder(seed=seed), causal=paper_causal("masked_mixer", seed=seed), seed=seed)
