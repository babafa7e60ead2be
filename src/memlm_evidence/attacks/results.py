"""What attacks recovered, and what it says of the claim; without torch, for whoever reads result files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from memlm.runtime.results import Interval, Provenance, Record

REFUTED = 0.9
"""One vector gives back at least this share of the tokens, at 95% confidence: the claim does not hold for this model
at this length."""
HELD = 0.15
"""No attack gets more than this share from one vector, at 95% confidence: the claim stands, against these attacks."""


@dataclass(frozen=True, kw_only=True)
class AttackRow(Record):
    """What one attack recovered, with 95% intervals over texts."""

    attack: str
    given: str
    knows: str
    num_texts: int
    token_accuracy: float
    exact_match: float
    num_vectors: int | None = None
    """States of the model that it is given; older results do not say: all but `positions` have one."""
    retained_bits_per_token: float | None = None
    retained_fraction: float | None = None
    lower_bound: bool | None = None
    """Whether the reader was still improving; of trained readers alone, as the two above."""
    start_token_accuracy: float | None = None
    exact_fraction: float | None = None
    """Texts verified by encoding them again; of the search alone, as the above."""
    verified_fraction: float | None = None
    """Tokens verified so; of the inversion of all states alone."""
    encodings_per_text: float | None = None
    accuracy_by_position: tuple[float, ...] | None = None
    """Of the last two attacks, as the above."""
    intervals: dict[str, Interval] = field(default_factory=dict)

    @property
    def from_one_vector(self) -> bool:
        """Whether it is given the last state alone."""
        return self.attack != "positions" if self.num_vectors is None else self.num_vectors == 1


Claim = Literal["refuted", "undecided", "stands"]
_MEANING: dict[Claim, str] = {
    "refuted": "That is nearly all of the text: for this model at this length, the claim that next-token training "
    "leaves little of a text in one hidden state is refuted.",
    "undecided": f"At 95% confidence that is neither little ({HELD:.0%} at most) nor most ({REFUTED:.0%} or more): "
    "the claim is neither refuted nor borne out at this length, on so many texts.",
    "stands": "That is little: the claim stands, against these attacks and budgets. A stronger attack may yet "
    "refute it; a failed one proves nothing.",
}


@dataclass(frozen=True, kw_only=True)
class SettleResult(Record):
    """Attacks on one model's embedding, and what follows."""

    name: str = "settle"
    encoder: str
    chunk_len: int
    layer: int
    attacks: tuple[AttackRow, ...]
    claim: Claim
    verdict: str
    """In words."""
    provenance: Provenance | None = None


def claim_of(attacks: Sequence[AttackRow]) -> Claim:
    """What the intervals of the attacks on one vector say of the claim; those on all states are left out."""
    ends = [row.intervals.get("token_accuracy", Interval(0.0, 1.0)) for row in attacks if row.from_one_vector]
    if max(low for low, _ in ends) >= REFUTED:
        return "refuted"
    return "stands" if max(high for _, high in ends) <= HELD else "undecided"


def verdict_of(name: str, chunk_len: int, attacks: Sequence[AttackRow]) -> str:
    """The claim's fate in words, with its conditions; the last attack is the one on all states."""
    best = max((row for row in attacks if row.from_one_vector), key=lambda row: row.token_accuracy)
    together = attacks[-1].token_accuracy
    reference = f"With the states of all positions, {together:.1%} are recovered"
    if together >= REFUTED:
        reference += ": what one vector lacks is not missing from the states together"
    sentences = [
        f"Of {chunk_len} tokens, the strongest attack on one vector of {name} ({best.attack}) recovers "
        f"{best.token_accuracy:.1%}, on {best.num_texts} texts.",
        _MEANING[claim_of(attacks)],
        f"{reference}.",
    ]
    if any(row.lower_bound for row in attacks):
        sentences.append("Readers that were still learning when their steps ended might have got more.")
    return " ".join(sentences)
