"""The claim that attacks on a causal model decide."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.settle_causal.result import SettlingResult


def _best_attack(result: SettlingResult) -> Measured:
    """Token accuracy of the best attack that is given one vector."""
    attacks = [attack for attack in result.attacks if attack.from_one_vector]
    return Measured.of(max(attacks, key=lambda attack: attack.token_accuracy), "token_accuracy")


CLAIMS: tuple[Claim[SettlingResult], ...] = (
    Claim(
        name="no-attack-refutes-it",
        statement="No attack on one state of a causal model gives its text back.",
        experiment=SettlingResult.name,
        quantity="token accuracy of the best attack on one vector",
        threshold=0.9,
        at_least=False,
        measure=_best_attack,
    ),
)
