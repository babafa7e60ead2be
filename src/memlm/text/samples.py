"""Regenerated passages to look at, divided into correct and wrong pieces."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.documents import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.runtime.progress import track
from memlm.text.autoencoder import TextAutoencoder

PASSAGE_CHUNKS = 3
"""Consecutive chunks in a passage: a paragraph or so."""

Sample = dict[str, Any]
"""{document, proven, pieces, unsure}: `proven` says whether all of it is, `pieces` are [original, regenerated], equal
where correct, and `unsure` says which of these are marked as possibly wrong."""


def random_passages(
    model: TextAutoencoder, split: TokenSplit, *, num_passages: int = 3, seed: int = 0
) -> Iterator[Sample]:
    """Passages drawn at random."""
    chunks = split_into_chunks(split, model.config.shape.chunk_len)
    last = np.arange(len(chunks.tokens)) + PASSAGE_CHUNKS - 1
    inside = last < len(last)
    starts = np.flatnonzero(inside)[chunks.document[inside.nonzero()] == chunks.document[last[inside]]]
    drawn = np.random.default_rng(seed).choice(starts, min(num_passages, len(starts)), replace=False)
    for start in np.sort(drawn):
        passage = chunks.rows(slice(start, start + PASSAGE_CHUNKS))
        name = split.document_names[chunks.document[start]]
        yield _sample(model, name, passage)


def regenerated(model: TextAutoencoder, texts: Sequence[str], *, thorough: bool = False) -> Iterator[Sample]:
    """Each text whole, with progress on standard error if it is `thorough`."""
    splits = (tokenize_documents(model.tokenizer, [Document(f"text {n}", text)]) for n, text in enumerate(texts))
    parts = [split_into_chunks(split, model.config.shape.chunk_len) for split in splits]
    total = sum(int(chunks.mask.sum()) for chunks in parts)
    with track("Regenerating", total=total, unit="tokens", quiet=not thorough) as advance:
        for number, chunks in enumerate(parts):
            yield _sample(model, f"text {number}", chunks, thorough=thorough, advance=advance)


def _sample(model: TextAutoencoder, name: str, chunks: Chunks, **options: Any) -> Sample:
    decoded = model.send(chunks, **options)
    counted = decoded.mask.cpu().numpy() | chunks.mask
    original = np.where(chunks.mask, chunks.tokens, -1)[counted].tolist()
    came_out = np.where(decoded.mask.cpu().numpy(), decoded.tokens.cpu().numpy(), -1)[counted].tolist()
    tokens = zip(original, came_out, decoded.unsure.cpu().numpy()[counted].tolist(), strict=True)
    runs = [(key, [*run]) for key, run in itertools.groupby(tokens, key=lambda row: (row[0] == row[1], row[2]))]
    return {
        "document": name,
        "proven": bool(decoded.proven.all()),
        # -1 is no token: one is missing or too many.
        "pieces": [
            [model.tokenizer.decode(token for token in ids if token >= 0) for ids in list(zip(*run, strict=True))[:2]]
            for _, run in runs
        ],
        "unsure": [unsure for (_, unsure), _ in runs],
    }
