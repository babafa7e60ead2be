"""What a store's vectors give away, as typed results; without torch."""

from dataclasses import dataclass, field
from typing import Literal

from memlm.config import Degradation, Noise, Quantization
from memlm.runtime.results import Interval, Provenance, Record

KINDS = ("words", "names", "numbers")
"""What is counted: all words, and of these names and numbers."""

Attack = Literal["words", "guess", "search", "decoder"]
"""Words read off a vector at once; the same off another text's vector, which is guessing; a search for the text; an
autoencoder's own decoder."""


@dataclass(frozen=True, kw_only=True)
class LeakRow(Record):
    """What one attack gets of texts of one length, stored in one way; with 95% intervals over texts."""

    attack: Attack
    chunk_len: int
    degradation: Degradation | None
    """What was done to the vectors; None for float32."""
    num_texts: int
    num_words: int
    num_names: int
    num_numbers: int
    words: float | None = None
    """Share of each text's different words that come back; None where there are none."""
    names: float | None = None
    numbers: float | None = None
    f1: float | None = None
    """Words and signs in common with the text; these and what follows only of whole texts."""
    f1_other: float | None = None
    """The same with another text: what is in common by chance."""
    exact: float | None = None
    cosine: float | None = None
    """Of the found text's embedding with the vector as it was stored."""
    encodings: float | None = None
    """For one text."""
    seconds: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StorageRow(Record):
    """What is left, stored in one way, of what can be read and of retrieval; with 95% intervals."""

    degradation: Degradation | None
    words_left: float | None = None
    """Of the words, at all lengths, that float32 vectors give beyond guessing; None where they give no more."""
    names_left: float | None = None
    numbers_left: float | None = None
    recall: float | None = None
    """Recall@10: the share of queries whose own passage is among the ten nearest; None where it was not measured."""
    recall_left: float | None = None
    """Of Recall@10 of float32 vectors."""
    num_queries: int = 0
    num_passages: int = 0
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FoundText(Record):
    """A text, and what came back of it."""

    chunk_len: int
    degradation: Degradation | None
    original: str
    found: str


@dataclass(frozen=True, kw_only=True)
class LeakResult(Record):
    """What an encoder's vectors give away."""

    name: str = "leak"
    encoder: str
    dim: int
    rows: tuple[LeakRow, ...]
    stored: tuple[StorageRow, ...]
    """One for each way to store vectors, float32 first."""
    texts: tuple[FoundText, ...] = ()
    conclusion: str = ""
    """In words, from the numbers."""
    provenance: Provenance | None = None

    def of(self, *attacks: Attack) -> list[LeakRow]:
        """The rows of these attacks."""
        return [row for row in self.rows if row.attack in attacks]


def stored_as(degradation: Degradation | None) -> str:
    """A way to store vectors, as a user of stores calls it."""
    match degradation:
        case None:
            return "float32"
        case Quantization(num_bits=8):
            return "int8"
        case Quantization(num_bits=1):
            return "binary"
        case Noise(std=std):
            return f"noise {std:g}"
    return str(degradation)
