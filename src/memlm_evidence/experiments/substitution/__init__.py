"""Memories in place of tokens save time, operations and cache."""

from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.experiments.substitution.claims import CLAIMS
from memlm_evidence.experiments.substitution.plan import SubstitutionPlan
from memlm_evidence.experiments.substitution.result import SubstitutionResult

SUBSTITUTION = Experiment[SubstitutionPlan, SubstitutionResult](
    name=SubstitutionResult.name,
    folder="substitution",
    presets={preset: lambda _: SubstitutionPlan() for preset in ("quick", "standard")},
    run=deferred("memlm_evidence.experiments.substitution.run:run"),
    page=deferred("memlm_evidence.experiments.substitution.page:page"),
    result=SubstitutionResult,
    claims=CLAIMS,
    seeded=False,
    timed=True,
)
