"""The claims that reading a past as memories decides."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.substitution.result import SubstitutionResult

CLAIMS: tuple[Claim[SubstitutionResult], ...] = (
    Claim(
        name="memories-save-time",
        statement="A past as memories is read sooner than as tokens, encoding included.",
        experiment=SubstitutionResult.name,
        quantity="seconds to the first token of the longest past, as tokens over as memories",
        threshold=3.0,
        at_least=True,
        measure=lambda result: Measured.exactly(result.longest.ttft_ratio_cold),
    ),
    Claim(
        name="memories-save-compute",
        statement="They take fewer operations, encoding included.",
        experiment=SubstitutionResult.name,
        quantity="operations to the first token of the longest past, as tokens over as memories",
        threshold=3.0,
        at_least=True,
        measure=lambda result: Measured.exactly(result.longest.flops_ratio_cold),
    ),
    Claim(
        name="memories-save-cache",
        statement="They leave a smaller cache.",
        experiment=SubstitutionResult.name,
        quantity="bytes of keys and values of the longest past, as tokens over as memories",
        threshold=10.0,
        at_least=True,
        measure=lambda result: Measured.exactly(result.longest.cache_bytes_ratio),
    ),
)
