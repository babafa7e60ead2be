"""Memories are not trivial codes: what was never in training is held too, and what is unlikely is held worse."""

from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.experiments.foreign_text.claims import CLAIMS
from memlm_evidence.experiments.foreign_text.plan import ForeignTextPlan
from memlm_evidence.experiments.foreign_text.result import ForeignTextResult

FOREIGN_TEXT = Experiment[ForeignTextPlan, ForeignTextResult](
    name=ForeignTextResult.name,
    folder="embeddings",
    presets={"quick": ForeignTextPlan.quick, "standard": lambda seed: ForeignTextPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.foreign_text.run:run"),
    page=deferred("memlm_evidence.experiments.foreign_text.page:page"),
    result=ForeignTextResult,
    claims=CLAIMS,
)
