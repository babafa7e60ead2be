"""The combined objective makes memories rich at the same next-token loss; a curriculum makes that cheap."""

from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.experiments.memory_model.claims import CLAIMS
from memlm_evidence.experiments.memory_model.plan import PaperPlan, Plan
from memlm_evidence.experiments.memory_model.result import MemoryModelResult

MEMORY_MODEL = Experiment[Plan | PaperPlan, MemoryModelResult](
    name=MemoryModelResult.name,
    folder="memory-model",
    presets={"quick": Plan.quick, "standard": lambda seed: Plan(seed=seed), "paper": PaperPlan.of_seed},
    run=deferred("memlm_evidence.experiments.memory_model.run:run"),
    page=deferred("memlm_evidence.experiments.memory_model.page:page"),
    result=MemoryModelResult,
    claims=CLAIMS,
)
