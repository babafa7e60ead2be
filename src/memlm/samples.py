"""Regenerated passages, to be looked at: runs of text that came back right, and runs that did not."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from memlm.data.chunks import cut
from memlm.data.corpus import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.evaluation.metrics import Scores
from memlm.text_autoencoder import TextAutoencoder

PASSAGE_CHUNKS = 3
"""Consecutive chunks in a passage: a paragraph or so."""

Sample = dict[str, Any]
"""{document, pieces}: `pieces` are [what it should be, what came out], equal where regenerated right."""


def random_passages(
    model: TextAutoencoder, split: TokenSplit, *, num_passages: int = 3, seed: int = 0
) -> Iterator[Sample]:
    """Passages drawn at random, not by how well they came out."""
    chunks = cut(split, model.config.shape.chunk_len)
    last = np.arange(len(chunks.tokens)) + PASSAGE_CHUNKS - 1
    inside = last < len(last)
    starts = np.flatnonzero(inside)[chunks.document[inside.nonzero()] == chunks.document[last[inside]]]
    drawn = np.random.default_rng(seed).choice(starts, min(num_passages, len(starts)), replace=False)
    for start in np.sort(drawn):
        passage = chunks.rows(slice(start, start + PASSAGE_CHUNKS))
        name = split.document_names[chunks.document[start]]
        yield {"document": name, "pieces": pieces(model, model.score(passage))}


def regenerated(model: TextAutoencoder, texts: Sequence[str]) -> Iterator[Sample]:
    """Each text whole."""
    for number, text in enumerate(texts):
        split = tokenize_documents(model.tokenizer, [Document(f"text {number}", text, None)])
        yield {
            "document": f"text {number}",
            "pieces": pieces(model, model.score(cut(split, model.config.shape.chunk_len))),
        }


def pieces(model: TextAutoencoder, scores: Scores) -> list[list[str]]:
    """Runs of tokens, alternately right and wrong, as [what it should be, what came out]."""
    mask = scores.chunks.mask
    pairs = zip(scores.chunks.tokens[mask].tolist(), scores.predicted[mask].tolist(), strict=True)
    runs = (tuple(run) for _, run in itertools.groupby(pairs, key=lambda pair: pair[0] == pair[1]))
    return [[model.tokenizer.decode(ids) for ids in zip(*run, strict=True)] for run in runs]
