"""What attacks recovered, and what it says of the claim; without torch, for whoever reads result files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from memlm.runtime.results import Interval, Provenance, Record

REFUTED = 0.9
"""A reader that gives back at least this share of unseen texts' tokens, at 95% confidence, reads nearly all of them."""


@dataclass(frozen=True, kw_only=True)
class AttackRow(Record):
    """What one attack recovered, with 95% intervals over texts."""

    attack: str
    given: str
    knows: str
    chunk_len: int | None = None
    """Tokens of each text; older results say it once, for all attacks."""
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
    num_found: int | None = None
    """Texts that came back whole, and whose state is the given one when they are encoded again."""
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


Claim = Literal["refuted", "withstood", "undecided", "stands"]
"""The last two are of older results, which went by shares of tokens."""


@dataclass(frozen=True, kw_only=True)
class SettleResult(Record):
    """Attacks on one model's hidden state, and what follows."""

    name: str = "settle"
    encoder: str
    layer: int
    attacks: tuple[AttackRow, ...]
    """Length by length; of each, that on the states of all positions is the last."""
    claim: Claim
    """Refuted, if it is at any length."""
    claims: dict[int, Claim] = field(default_factory=dict)
    """By length; empty in older results, which have one."""
    verdict: str
    """In words, with its conditions."""
    provenance: Provenance | None = None


def claim_of(attacks: Sequence[AttackRow]) -> Claim:
    """Whether the claim has withstood the attacks on one state, of texts of one length.

    One text that is given back whole, and verified, refutes it: its state holds it. So do readers that read nearly
    everything. What no attack has given back may be there all the same.
    """
    single = [row for row in attacks if row.from_one_vector]
    read = any(row.intervals.get("token_accuracy", Interval(0.0, 1.0)).low >= REFUTED for row in single)
    return "refuted" if read or any(row.num_found for row in single) else "withstood"


def verdict_of(name: str, dtype: str, budget: int, attacks: dict[int, Sequence[AttackRow]]) -> str:
    """The claim's fate in words, with its conditions."""
    claims = {length: claim_of(rows) for length, rows in attacks.items()}
    said = [
        f"{word} at {_listed(lengths)} tokens"
        for word in ("refuted", "withstood")
        if (lengths := [length for length, claim in claims.items() if claim == word])
    ]
    sentences = [
        f"That next-token training leaves little of a text in one hidden state is, for {name} in {dtype}, "
        f"{' and '.join(said)}, within {budget:,} encodings a text.",
        *(sentence for length, rows in attacks.items() for sentence in _sentences(length, rows)),
    ]
    if "refuted" in claims.values():
        sentences.append("A text that came back whole was in its state, at this precision.")
    if "withstood" in claims.values():
        sentences.append("What did not come back may be there all the same: a stronger search may find it.")
    if any(row.lower_bound for rows in attacks.values() for row in rows):
        sentences.append("Readers that were still learning when their steps ended might have got more.")
    return " ".join(sentences)


def _sentences(length: int, attacks: Sequence[AttackRow]) -> list[str]:
    """What was recovered of texts of one length."""
    *readers, search, together = attacks
    whole = f"held all {length} tokens of {search.num_found} of {search.num_texts} texts"
    none = f"gave none of {search.num_texts} texts of {length} tokens back"
    sentences = [
        f"One state {whole}, found by search and verified by encoding again."
        if search.num_found
        else f"Search from one state {none}; {search.token_accuracy:.0%} of the tokens were right."
    ]
    # What a language model gains counts over what it knows already, and is not to be compared with what others gain.
    for known, prior in ((True, "a language model's own prior"), (False, "what a reader knows without it")):
        rows = [row for row in readers if (row.attack == "pretrained reader") == known]
        for best in sorted(rows, key=lambda row: row.retained_bits_per_token or 0.0)[-1:]:
            sentences.append(
                f"On average one state gives at least {best.retained_bits_per_token or 0.0:.2f} bits a token over "
                f"{prior} ({best.attack}, {best.num_texts} texts, {best.token_accuracy:.0%} of the tokens right)."
            )
    return [*sentences, f"All {length} states together gave {together.token_accuracy:.0%} of the tokens."]


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
