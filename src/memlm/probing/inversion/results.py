"""What an inversion found; without torch."""

from dataclasses import dataclass, field

from memlm.runtime.results import Interval, Provenance, Record


@dataclass(frozen=True, kw_only=True)
class InvertedText(Record):
    """A text found for an embedding, and how like it is to the original, where that is known."""

    text: str
    cosine: float
    """Of its embedding with the given one."""
    found: bool
    """Whether its embedding is the given one, but for rounding: then it is the text, or one the encoder cannot tell
    from it."""
    encodings: int
    seconds: float
    original: str | None = None
    f1: float | None = None
    exact: bool | None = None
    """Whether the encoder's tokens are the same, and so all that the encoder sees: case may not matter to it."""
    bleu: float | None = None


@dataclass(frozen=True, kw_only=True)
class InversionResult(Record):
    """Texts found for embeddings; measures are means over texts, with 95% intervals."""

    name: str = "invert"
    encoder: str
    num_texts: int
    chunk_len: int | None
    """Tokens of every text, where that was known."""
    cosine: float
    encodings_per_text: float
    seconds_per_text: float
    f1: float | None = None
    exact: float | None = None
    bleu: float | None = None
    prepared_encodings: int
    """Encodings beside these, for all texts together, that the encoder's words were learned from; 0 if that was done
    before."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    texts: tuple[InvertedText, ...] = ()
    provenance: Provenance | None = None
