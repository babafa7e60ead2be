"""What is measured for the claims, and how large: the presets of `memlm reproduce`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from memlm.runtime.results import Result
from memlm_evidence.benchmarks.memory_training import MemoryTraining
from memlm_evidence.benchmarks.substitution import Substitution
from memlm_evidence.experiments.embeddings import run as embeddings
from memlm_evidence.experiments.embeddings.run import reproduce_embeddings
from memlm_evidence.experiments.exact_recall.run import RecallPlan, reproduce_recall
from memlm_evidence.experiments.foreign_text.run import ForeignTextPlan, reproduce_foreign_text
from memlm_evidence.experiments.memory_model import conditions as arms
from memlm_evidence.experiments.memory_model.run import reproduce_memory_model
from memlm_evidence.experiments.non_invertible.run import NonInvertiblePlan, reproduce_non_invertible
from memlm_evidence.experiments.paper_size import (
    PaperEmbeddings,
    PaperMemoryModels,
    reproduce_paper_embeddings,
    reproduce_paper_memory_models,
)
from memlm_evidence.experiments.settle_causal.run import SettlingPlan, reproduce_settling
from memlm_evidence.known_sources.calibration import CalibrationPlan
from memlm_evidence.known_sources.rate_distortion import DistortionPlan
from memlm_evidence.known_sources.retained_state import StatePlan


@dataclass(frozen=True)
class Experiment:
    """A measurement that decides claims."""

    name: str
    """As claims call it."""
    folder: str
    """Where what it trains is kept; experiments that share a folder share what they train."""
    plan: Any
    """What is measured, and how large; its `repr` says all."""
    measure: Callable[[Path, Any], Result | None]
    """Folder and plan → result, or None where one of several processes only trains. What was made in the folder before
    is not made again."""
    seeded: bool = True
    """Whether another seed is another measurement."""
    timed: bool = False
    """Whether it is time that is measured, so that nothing else may run beside it."""


def quick(seed: int) -> list[Experiment]:
    """Every claim, as small as it can be decided: one seed, half an hour on two cores that multiply in bf16."""
    chain = StatePlan(chunk_lens=(64,), chunk_len=None, seed=seed)
    distortion = DistortionPlan(dims=(96,), seed=seed)
    calibration = CalibrationPlan(chunk_lens=(8,), num_sets=20, seed=seed)
    return _experiments(
        embeddings=embeddings.Plan(
            chunk_len=32,
            dim=128,
            num_tokens=300_000,
            dims=(32, 64, 128),
            budgets=(75_000, 150_000, 300_000),
            reading_chunks=6000,
            seed=seed,
        ),
        memory_model=arms.Plan(num_tokens=800_000, arms=("no_memory", "causal", "combined", "curriculum"), seed=seed),
        recall=RecallPlan(
            num_tokens=3_000_000, autoencoder_tokens=1_000_000, models=("combined",), num_texts=300, seed=seed
        ),
        non_invertible=NonInvertiblePlan(state=chain, distortion=distortion, calibration=calibration),
        settling=SettlingPlan(num_tokens=500_000, num_texts=4, seed=seed),
        foreign_text=ForeignTextPlan(chunk_len=32, memory_dim=128, num_tokens=300_000, seed=seed),
        window_chunks=(4, 32),
    )


def standard(seed: int) -> list[Experiment]:
    """What docs/results.md says: an hour and a half a seed, on two cores that multiply in bf16."""
    return _experiments(
        embeddings=embeddings.Plan(seed=seed),
        memory_model=arms.Plan(seed=seed),
        recall=RecallPlan(seed=seed),
        non_invertible=NonInvertiblePlan(
            state=StatePlan(seed=seed), distortion=DistortionPlan(seed=seed), calibration=CalibrationPlan(seed=seed)
        ),
        settling=SettlingPlan(seed=seed),
        foreign_text=ForeignTextPlan(seed=seed),
        window_chunks=(4, 8, 16, 32),
    )


def paper(seed: int) -> list[Experiment]:
    """What claims need of models of the paper's sizes: trained on GPUs by torchrun, then measured in one process."""
    return [
        Experiment("embeddings", "embeddings", PaperEmbeddings.of_seed(seed), reproduce_paper_embeddings),
        Experiment("memory-model", "memory-model", PaperMemoryModels.of_seed(seed), reproduce_paper_memory_models),
    ]


PRESETS: Mapping[str, Callable[[int], list[Experiment]]] = {"quick": quick, "standard": standard, "paper": paper}
"""Seed → experiments, in the order of the argument."""


def _experiments(
    *,
    embeddings: embeddings.Plan,
    memory_model: arms.Plan,
    recall: RecallPlan,
    non_invertible: NonInvertiblePlan,
    settling: SettlingPlan,
    foreign_text: ForeignTextPlan,
    window_chunks: tuple[int, ...],
) -> list[Experiment]:
    past = {"chunk_len": 256, "num_positions": 4, "dim": 256, "num_layers": 4, "contexts": (1024, 4096, 16384)}
    return [
        Experiment("embeddings", "embeddings", embeddings, reproduce_embeddings),
        Experiment("foreign-text", "embeddings", foreign_text, reproduce_foreign_text),
        Experiment("memory-model", "memory-model", memory_model, reproduce_memory_model),
        Experiment("recall", "memory-model", recall, reproduce_recall),
        Experiment("substitution", "substitution", past, _substitution, seeded=False, timed=True),
        Experiment("memory-training", "memory-training", window_chunks, _memory_training, seeded=False, timed=True),
        Experiment("non-invertible", "non-invertible", non_invertible, _non_invertible),
        Experiment("settle-causal", "settle-causal", settling, reproduce_settling),
    ]


def _substitution(_: Path, plan: Mapping[str, Any]) -> Result:
    return Result.from_dict({"name": "substitution", **Substitution(**plan).run()})


def _memory_training(_: Path, plan: tuple[int, ...]) -> Result:
    return Result.from_dict({"name": "memory-training", **MemoryTraining(window_chunks=plan).run()})


def _non_invertible(out: Path, plan: NonInvertiblePlan) -> Result:
    """Its models are so small that a process for each core is better than a thread."""
    return reproduce_non_invertible(out / f"seed-{plan.state.seed}", plan, num_workers=torch.get_num_threads())
