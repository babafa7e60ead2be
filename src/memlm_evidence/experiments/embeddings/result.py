"""What embeddings were found to hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AliasChoices, Field

from memlm.probing.results import ProbeRow
from memlm.runtime.results import Interval
from memlm.runtime.wording import share
from memlm_evidence.claims import ExperimentResult, Measured


@dataclass(frozen=True, kw_only=True)
class EmbeddingRow(ProbeRow):
    """What a reader finds in one encoder's embeddings; `num_tokens` are those that the encoder was trained on."""

    objective: str
    mixer: str
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """How the retained fraction changes for ten times the parameters (`compute`) or tokens (`data`); 95% intervals."""

    compute: float
    data: float
    compute_interval: Interval
    data_interval: Interval
    num_points: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingsResult(ExperimentResult):
    """Embeddings by objective, and of causal models by size and budget.

    Slopes, causal models and controls are None at the paper's sizes, where two models are compared and no more.
    """

    name: ClassVar[str] = "embeddings"
    rows: Sequence[EmbeddingRow]
    """By mixer and objective."""
    chunk_len: int
    seed: int
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    slope_compute: float | None = None
    slope_data: float | None = None
    """Of the first mixer."""
    token_accuracy: Mapping[str, float] | None = None
    retained_fraction: Mapping[str, float] | None = None
    """By objective, of the first mixer."""
    slopes: Mapping[str, Slopes] | None = None
    """By mixer."""
    causal_models: Annotated[
        Sequence[EmbeddingRow] | None, Field(validation_alias=AliasChoices("causal_models", "cells"))
    ] = None
    """By size and budget; older files call them cells."""
    controls: Mapping[str, EmbeddingRow | ProbeRow] | None = None
    """Of the causal model, by name; the untrained one is among `rows` too."""
    pooling_table: Sequence[EmbeddingRow] | None = None
    """Objectives crossed with poolings; empty unless the plan asks for it. Some older files have none."""

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for row in self.rows:
            found = f"token accuracy {share(row.token_accuracy)}, retained fraction {share(row.retained_fraction)}"
            yield f"{row.objective}, {row.mixer}: {found}"
        for name in self.intervals:
            slope = Measured.of(self, name)
            yield f"{name}: {slope.value:+.4f} retained fraction a decade [{slope.low:+.4f}, {slope.high:+.4f}]"
