"""Claim: a memory model trains faster than loops over chunks, recurrent memory and encoder-decoders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memlm_evidence.benchmarks.memory_training import MemoryTraining
from memlm_evidence.experiments.memory_training import MemoryTrainingResult


def run(_: Path, options: Mapping[str, Any]) -> MemoryTrainingResult:
    """Measure, with these options of the benchmark; nothing is kept of what is trained."""
    return MemoryTrainingResult.from_dict(MemoryTraining(**options).run())
