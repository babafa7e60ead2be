"""Claim: a memory model trains faster than loops over chunks, recurrent memory and encoder-decoders."""

from pathlib import Path

from memlm_evidence.benchmarks.memory_training import MemoryTraining
from memlm_evidence.experiments.memory_training.plan import MemoryTrainingPlan
from memlm_evidence.experiments.memory_training.result import MemoryTrainingResult


def run(_: Path, plan: MemoryTrainingPlan) -> MemoryTrainingResult:
    """Measure; nothing is kept of what is trained."""
    return MemoryTrainingResult.from_dict(MemoryTraining(**vars(plan)).run())
