"""No attack gives a text back from one state of a causal model."""

from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.experiments.settle_causal.claims import CLAIMS
from memlm_evidence.experiments.settle_causal.plan import SettlingPlan
from memlm_evidence.experiments.settle_causal.result import SettlingResult

SETTLE_CAUSAL = Experiment[SettlingPlan, SettlingResult](
    name=SettlingResult.name,
    folder="settle-causal",
    presets={"quick": SettlingPlan.quick, "standard": lambda seed: SettlingPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.settle_causal.run:run"),
    page=deferred("memlm_evidence.experiments.settle_causal.page:page"),
    result=SettlingResult,
    claims=CLAIMS,
)
