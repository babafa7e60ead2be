"""A memory model trains faster than loops over chunks, recurrent memory and encoder-decoders."""

from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.experiments.memory_training.claims import CLAIMS
from memlm_evidence.experiments.memory_training.plan import MemoryTrainingPlan
from memlm_evidence.experiments.memory_training.result import MemoryTrainingResult

MEMORY_TRAINING = Experiment[MemoryTrainingPlan, MemoryTrainingResult](
    name=MemoryTrainingResult.name,
    folder="memory-training",
    presets={
        "quick": lambda _: MemoryTrainingPlan(window_chunks=(4, 32)),
        "standard": lambda _: MemoryTrainingPlan(),
    },
    run=deferred("memlm_evidence.experiments.memory_training.run:run"),
    page=deferred("memlm_evidence.experiments.memory_training.page:page"),
    result=MemoryTrainingResult,
    claims=CLAIMS,
    seeded=False,
    timed=True,
)
