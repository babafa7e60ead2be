"""Language models' embeddings hold little of their input, autoencoders' nearly all."""

from memlm_evidence.experiments.embeddings.claims import CLAIMS
from memlm_evidence.experiments.embeddings.plan import PaperPlan, Plan
from memlm_evidence.experiments.embeddings.result import EmbeddingsResult
from memlm_evidence.experiments.experiment import Experiment, deferred

EMBEDDINGS = Experiment[Plan | PaperPlan, EmbeddingsResult](
    name=EmbeddingsResult.name,
    folder="embeddings",
    presets={"quick": Plan.quick, "standard": lambda seed: Plan(seed=seed), "paper": PaperPlan.of_seed},
    run=deferred("memlm_evidence.experiments.embeddings.run:run"),
    page=deferred("memlm_evidence.experiments.embeddings.page:page"),
    result=EmbeddingsResult,
    claims=CLAIMS,
)
