"""Next-token prediction asks a memory for the past's predictive state alone, regeneration for the whole text."""

from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.experiments.non_invertible.claims import CLAIMS
from memlm_evidence.experiments.non_invertible.plan import NonInvertiblePlan
from memlm_evidence.experiments.non_invertible.result import NonInvertibleResult

NON_INVERTIBLE = Experiment[NonInvertiblePlan, NonInvertibleResult](
    name=NonInvertibleResult.name,
    folder="non-invertible",
    presets={"quick": NonInvertiblePlan.quick, "standard": NonInvertiblePlan.standard},
    run=deferred("memlm_evidence.experiments.non_invertible.run:run"),
    page=deferred("memlm_evidence.experiments.non_invertible.page:page"),
    result=NonInvertibleResult,
    claims=CLAIMS,
)
