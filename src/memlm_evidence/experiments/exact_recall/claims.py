"""The claim that recall of exact strings decides."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.exact_recall.result import RecallResult


def _worst_distance(result: RecallResult) -> Measured:
    """Exact answers from combined memories, at the worst distance."""
    rates, intervals = result.recall["combined"], result.recall_intervals["combined"]
    return min(Measured(rate, *intervals[distance]) for distance, rate in rates.items())


CLAIMS: tuple[Claim[RecallResult], ...] = (
    Claim(
        name="memories-can-be-used",
        statement="A decoder gives back exact strings from memories of any distance.",
        experiment=RecallResult.name,
        quantity="exact answers at the worst distance",
        threshold=0.95,
        at_least=True,
        measure=_worst_distance,
    ),
)
