"""Whether passages are found by text that overlaps with them."""

import random
from collections.abc import Iterator, Sequence

from jaxtyping import Bool
from torch import Tensor

from memlm.probing.inversion.embedder import Embedder, Ids, Unit

NEAREST = 10
"""Passages among which the right one must be."""
LEAST_QUERIES = 20
"""With fewer, Recall@10 says nothing."""

Pair = tuple[Ids, Ids]
"""A query, and its passage."""


def pairs_of(embedder: Embedder, texts: Sequence[str], length: int, number: int, seed: int = 0) -> list[Pair]:
    """At most so many pairs of texts of `length` tokens from all over some texts, which share the half of their tokens:
    the end of the first begins the second (as the random crops of Contriever, Izacard et al. 2022)."""
    rng = random.Random(seed)
    made: list[Pair] = []
    for text in rng.sample(texts, len(texts)):
        made += _pairs(embedder.tokens(text), length)
        if len(made) > 4 * number:
            break
    return rng.sample(made, min(number, len(made)))


def _pairs(ids: Ids, length: int) -> Iterator[Pair]:
    shift = -(-length // 2)
    for at in range(0, len(ids) - length - shift + 1, length + shift):
        yield ids[at : at + length], ids[at + shift : at + shift + length]


def hits(queries: Unit, stored: Unit) -> Bool[Tensor, " query"]:
    """Whether each query's own passage, of the same row, is among the nearest; others as near count against it."""
    scores = queries @ stored.T
    own = (queries * stored[: len(queries)]).sum(1, keepdim=True)
    return (scores > own - 1e-6).sum(1) <= NEAREST
