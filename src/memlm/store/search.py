"""Search in a memory file: the vectors of all chunks, read once, and which of them are nearest to a query's."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from memlm.store.store import MemoryStore, OnDamage
from memlm.text.autoencoder import TextAutoencoder


class Found(NamedTuple):
    """A chunk that a search found."""

    score: float
    """The cosine of its vector and the query's: 1 where they mean the same."""
    document: str
    chunk: int
    text: str


class SearchIndex:
    """The search vectors of a store's chunks, in memory, at two bytes a dimension."""

    def __init__(self, store: MemoryStore, model: TextAutoencoder) -> None:
        self.store, self._model = store, model
        self._read = 0
        self._vectors = [torch.zeros(0, model.config.search_dim, dtype=torch.half)]
        self._chunks = [torch.zeros(0, dtype=torch.long)]
        """Of each vector; of a chunk that is stored raw, there may be several."""

    def read_on(self, text: Callable[[int], str], on_damage: OnDamage | None = None) -> None:
        """Read the chunks that were added since; `text` gives that of a chunk, for those that are stored raw."""
        stop = len(self.store.numbers)
        for numbered in self.store.read(self._read, stop, on_damage):
            stored = [(number, chunk) for number, chunk in numbered if chunk.vector is not None]
            self._add(self.store.about.memory([chunk for _, chunk in stored]).search_vectors, [n for n, _ in stored])
            for number in (number for number, chunk in numbered if chunk.vector is None):
                made = self._model.encode([text(number)]).search_vectors
                self._add(made, [number] * len(made))
        self._read = stop

    def nearest(self, vector: Float[Tensor, " dim"], most: int) -> list[tuple[int, float]]:
        """The nearest chunks and their cosines, the nearest first."""
        vectors, chunks = torch.cat(self._vectors), torch.cat(self._chunks)
        self._vectors, self._chunks = [vectors], [chunks]
        scores = torch.cat([part.float() @ vector for part in torch.split(vectors, _AT_ONCE)] or [torch.zeros(0)])
        best: dict[int, float] = {}
        for place in scores.argsort(descending=True, stable=True).tolist():
            if len(best) == most:
                break
            best.setdefault(int(chunks[place]), float(scores[place]))
        return [*best.items()]

    def _add(self, vectors: Float[Tensor, "vector dim"], chunks: list[int]) -> None:
        self._vectors.append(vectors.half())
        self._chunks.append(torch.tensor(chunks, dtype=torch.long))


_AT_ONCE = 1 << 16
"""Vectors compared at once, in fp32."""
