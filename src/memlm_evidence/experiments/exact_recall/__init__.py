"""Memories can be used, not only regenerated: a decoder gives back exact strings from anywhere in its past."""

from memlm_evidence.experiments.exact_recall.claims import CLAIMS
from memlm_evidence.experiments.exact_recall.plan import RecallPlan
from memlm_evidence.experiments.exact_recall.result import RecallResult
from memlm_evidence.experiments.experiment import Experiment, deferred

EXACT_RECALL = Experiment[RecallPlan, RecallResult](
    name=RecallResult.name,
    folder="memory-model",
    presets={"quick": RecallPlan.quick, "standard": lambda seed: RecallPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.exact_recall.run:run"),
    page=deferred("memlm_evidence.experiments.exact_recall.page:page"),
    result=RecallResult,
    claims=CLAIMS,
)
