"""No attack gives a text back from one state of a causal model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from memlm.config import ReadingConfig
from memlm.runtime.wording import share
from memlm_evidence.attacks.results import AttackRow
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.seeds import of, seeds_table


@dataclass(frozen=True, kw_only=True)
class SettlingPlan:
    """What to train, and how hard to attack it; as it is, the standard preset's."""

    chunk_len: int = 16
    num_tokens: int = 1_000_000
    reading: ReadingConfig = field(
        default_factory=lambda: ReadingConfig(num_steps=300, max_chunks=15_000, test_chunks=300)
    )
    num_texts: int = 8
    """Texts that are searched for."""
    encodings: int = 20_000
    """Texts that may be encoded to search for one."""
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "SettlingPlan":
        """As small as the claim can be decided."""
        return cls(num_tokens=500_000, num_texts=4, encodings=8000, seed=seed)


@dataclass(frozen=True, kw_only=True)
class SettlingResult(ExperimentResult):
    """Attacks, and what they say of the claim (`attacks.settle`)."""

    name: ClassVar[str] = "settle-causal"
    encoder: str
    chunk_len: int
    layer: int
    attacks: Sequence[AttackRow]
    claim: str
    verdict: str


def page(results: Sequence[SettlingResult]) -> Page:
    """What each attack recovers from a causal model's states."""
    columns = {
        "attack": lambda same: f"{same[0].attack}\n{same[0].num_texts} texts",
        "given": lambda same: str(same[0].given),
        "token accuracy": of("token_accuracy", share),
        "exact texts": of("exact_match", share),
    }
    about = f"{results[0].encoder}, {results[0].chunk_len} tokens. {results[0].verdict}"
    table = seeds_table([result.attacks for result in results], columns)
    return Page.of(Section("Attacks on a causal model's state", about, table=table))


@claim("token accuracy of the best attack on one vector", at_most=0.9)
def no_attack_refutes_it(result: SettlingResult) -> Measured:
    """No attack on one state of a causal model gives its text of 16 tokens back."""
    attacks = [attack for attack in result.attacks if attack.from_one_vector]
    return Measured.of(max(attacks, key=lambda attack: attack.token_accuracy), "token_accuracy")


SETTLE_CAUSAL = Experiment[SettlingPlan, SettlingResult](
    name=SettlingResult.name,
    folder="settle-causal",
    presets={"quick": SettlingPlan.quick, "standard": lambda seed: SettlingPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.settle_causal.run:run"),
    page=page,
    result=SettlingResult,
    claims=(no_attack_refutes_it,),
)
