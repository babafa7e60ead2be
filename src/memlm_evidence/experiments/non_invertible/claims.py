"""The claims that known sources decide, on the longest texts of the Markov chain."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.non_invertible.result import NonInvertibleResult


def _kept_state(result: NonInvertibleResult) -> Measured:
    row = result.longest("causal")
    return _share(Measured.of(row, "retained_state_bits"), row.state_bits)


def _kept_rest(result: NonInvertibleResult) -> Measured:
    row = result.longest("causal")
    return _share(Measured.of(row, "retained_rest_bits"), row.entropy_bits - row.state_bits)


def _kept_by_both(result: NonInvertibleResult) -> Measured:
    row = result.longest("combined")
    return _share(Measured.of(row, "retained_bits"), row.entropy_bits)


def _share(bits: Measured, whole_bits: float) -> Measured:
    return Measured(*(end / whole_bits for end in bits))


CLAIMS: tuple[Claim[NonInvertibleResult], ...] = (
    Claim(
        name="prediction-keeps-the-state",
        statement="Causal training keeps what the future needs of a past whose every bit is counted.",
        experiment=NonInvertibleResult.name,
        quantity="share of the predictive state's bits",
        threshold=0.9,
        at_least=True,
        measure=_kept_state,
    ),
    Claim(
        name="prediction-is-not-invertible",
        statement="Causal training keeps little of everything else.",
        experiment=NonInvertibleResult.name,
        quantity="share of all other bits",
        threshold=0.2,
        at_least=False,
        measure=_kept_rest,
    ),
    Claim(
        name="both-objectives-keep-all",
        statement="Trained to regenerate as well, nearly all of it is kept.",
        experiment=NonInvertibleResult.name,
        quantity="share of all bits",
        threshold=0.95,
        at_least=True,
        measure=_kept_by_both,
    ),
)
