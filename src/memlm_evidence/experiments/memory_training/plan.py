"""Which windows to train on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MemoryTrainingPlan:
    """As `benchmarks.memory_training.MemoryTraining` has them; as it is, the standard preset's."""

    window_chunks: tuple[int, ...] = (4, 8, 16, 32)
