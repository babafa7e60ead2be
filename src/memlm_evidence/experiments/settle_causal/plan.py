"""What to train, and how hard to attack it."""

from dataclasses import dataclass, field

from memlm.config import ReadingConfig


@dataclass(frozen=True, kw_only=True)
class SettlingPlan:
    """What to train, and how hard to attack it; as it is, the standard preset's."""

    chunk_len: int = 16
    num_tokens: int = 1_000_000
    reading: ReadingConfig = field(
        default_factory=lambda: ReadingConfig(num_steps=300, max_chunks=15_000, test_chunks=300)
    )
    num_texts: int = 8
    """Texts that are searched for."""
    search_steps: int = 60
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "SettlingPlan":
        """As small as the claim can be decided."""
        return cls(num_tokens=500_000, num_texts=4, seed=seed)
