"""Inversion measured on texts that are known."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memlm.evaluation.bootstrap import mean_interval
from memlm.probing.inversion.invert import Inverter, pieces_of
from memlm.probing.inversion.likeness import bleu, f1
from memlm.probing.inversion.results import InversionResult, InvertedText
from memlm.runtime.results import Interval, Provenance

_MEASURES = {
    "cosine": "cosine", "encodings_per_text": "encodings", "seconds_per_text": "seconds",
    "f1": "f1", "exact": "exact", "bleu": "bleu",
}  # fmt: skip


def invert_texts(
    inverter: Inverter,
    texts: Sequence[str],
    *,
    chunk_len: int = 16,
    max_chunks: int = 30,
    length_known: bool = True,
    encodings: int = 20_000,
    seed: int = 0,
    quiet: bool = True,
) -> InversionResult:
    """Embed pieces of these texts, search for them by their embeddings alone, and compare.

    Raises:
        ValueError: no piece of `chunk_len` tokens; and as `invert`.
    """
    embedder = inverter.embedder
    pieces = pieces_of(embedder, texts, chunk_len, max_chunks, seed)
    vectors = embedder.embed([embedder.tokens(piece) for piece in pieces])
    known = chunk_len if length_known else None
    found = inverter.invert(vectors, chunk_len=known, encodings=encodings, seed=seed, quiet=quiet)
    rows = [
        replace(
            row,
            original=piece,
            f1=f1(row.text, piece),
            exact=embedder.tokens(row.text) == embedder.tokens(piece),
            bleu=bleu(row.text, piece),
        )
        for row, piece in zip(found, pieces, strict=True)
    ]
    return summary(inverter, rows, chunk_len=chunk_len, encodings=encodings, seed=seed)


def summary(
    inverter: Inverter, rows: Sequence[InvertedText], *, chunk_len: int | None, encodings: int, seed: int
) -> InversionResult:
    """Means over texts, with their intervals."""
    values: dict[str, Any] = {
        name: np.array([float(getattr(row, each)) for row in rows])
        for name, each in _MEASURES.items()
        if getattr(rows[0], each) is not None
    }
    intervals: dict[str, Interval] = {name: mean_interval(value) for name, value in values.items() if len(value) > 1}
    means: dict[str, Any] = {name: float(value.mean()) for name, value in values.items()}
    return InversionResult(
        encoder=inverter.embedder.name,
        num_texts=len(rows),
        chunk_len=chunk_len,
        **means,
        prepared_encodings=inverter.prepared_encodings,
        intervals=intervals,
        texts=tuple(rows),
        provenance=Provenance.here(encodings=encodings, seed=seed, language_model=inverter.language_model),
    )
