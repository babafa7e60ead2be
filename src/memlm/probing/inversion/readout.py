"""Which words a text has, read off its embedding by a linear map that is fitted once for each embedder."""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from memlm.config import NamedCorpus
from memlm.data.cache import default_cache, make_once
from memlm.data.corpus import read_documents
from memlm.probing.inversion.embedder import Embedder, Ids, Unit
from memlm.runtime.progress import track

NUM_TEXTS = 8000
"""Pieces of the presidential addresses that the map is fitted to, beside each token alone."""
_LENGTHS = (5, 36)
_ALONE = 1.6
"""What a token alone counts, where a piece of text counts one."""
_RIDGE = 1.0
_PRIOR = 0.02
"""What a nat of a token's frequency counts, where the spread of its score over other texts is 1."""
_LISTED = 1000
"""Tokens, best first, that anything speaks for."""
_KNOWN = 0.3
"""What that counts beside what one text lacks."""
_OF_ONE = 134
"""Pieces of each address."""
_BATCH = 1024
_WRITTEN = re.compile(r"\s?[^\W_]+|\s?[-.,;:!?'\"()&%$/]")


class Readout:
    """Scores of tokens by embeddings: a ridge regression of counts on embeddings, each score in units that shrink with
    what the token scores in texts that lack it. Words that no text has had are known from their embedding alone."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.mean, self.weight = tensors["mean"], tensors["weight"].float()
        self.spread, self.counts = tensors["spread"], tensors["counts"]
        self.allowed: Bool[Tensor, " vocab"] = tensors["allowed"]

    @classmethod
    def of(
        cls, embedder: Embedder, pieces: Sequence[str], *, cache: Path | None = None, quiet: bool = True
    ) -> "Readout":
        """The readout of an embedder, fitted if it is not in the cache; `pieces` are its tokens as they are written."""
        folder = (cache or default_cache()) / "readouts" / embedder.fingerprint
        make_once(folder, lambda made: save_file(_fit(embedder, pieces, quiet=quiet), made / "readout.safetensors"))
        return cls(load_file(folder / "readout.safetensors"))

    @classmethod
    def of_pairs(cls, texts: Int[Tensor, "text token"], vectors: Unit, allowed: Bool[Tensor, " vocab"]) -> "Readout":
        """The readout of texts of one length that are embedded already; only tokens that are allowed are proposed."""
        return cls(_solve(list(map(tuple, texts.tolist())), vectors, allowed))

    def words(self, target: Float[Tensor, " dim"]) -> Float[Tensor, " vocab"]:
        """What speaks for each token, by its rank alone: 0 for most, `log(1000)` for the first."""
        return by_rank((self.brings(target - self.mean) + self.prior).masked_fill(~self.allowed, -torch.inf))

    def missing(self, target: Float[Tensor, " dim"], vectors: Unit) -> Float[Tensor, "text vocab"]:
        """What speaks for each token being missing in texts of these embeddings, in standard deviations."""
        return standard(self.brings(target - vectors)) + _KNOWN * self.words(target)

    def closeness(self, target: Float[Tensor, " dim"], vectors: Unit) -> Float[Tensor, " text"]:
        """The cosine of each with the target."""
        return vectors @ target

    @property
    def prior(self) -> Float[Tensor, " vocab"]:
        """What the frequency of each token counts."""
        return _PRIOR * (self.counts + 0.3).log()

    def brings(self, difference: Float[Tensor, "*text dim"]) -> Float[Tensor, "*text vocab"]:
        """How much of each token is in what one embedding has more than another."""
        return difference @ self.weight.T / self.spread.sqrt()


def by_rank(scores: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """What speaks for each token by its rank alone: 0 for most, `log(1000)` for the first."""
    order = scores.argsort(descending=True)
    ranks = torch.empty(len(order)).scatter_(0, order, torch.arange(1.0, len(order) + 1))
    return (_LISTED / ranks).log().clamp_min(0)


def standard(scores: Float[Tensor, "place vocab"]) -> Float[Tensor, "place vocab"]:
    """In standard deviations from the mean of each place."""
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True).clamp_min(1e-12)


def _fit(embedder: Embedder, pieces: Sequence[str], *, quiet: bool) -> dict[str, Tensor]:
    """Embed pieces of text and each token alone, and fit the map."""
    allowed = torch.tensor([_WRITTEN.fullmatch(piece) is not None for piece in pieces])
    texts = list(pieces_of_addresses(embedder))
    single = [(token,) for token in allowed.nonzero()[:, 0].tolist()]
    with track(
        "Reading words off embeddings", total=sum(map(len, texts)) + len(single), unit="tokens", quiet=quiet
    ) as advance:
        made: list[Tensor] = []
        for at in range(0, len(texts) + len(single), _BATCH):
            batch = (texts + single)[at : at + _BATCH]
            made.append(embedder.embed(batch, exact=False))
            advance(sum(map(len, batch)))
    return _solve(texts, torch.cat(made), allowed, torch.tensor(single)[:, 0])


def _solve(
    texts: Sequence[Ids], vectors: Unit, allowed: Bool[Tensor, " vocab"], alone: Int[Tensor, " single"] | None = None
) -> dict[str, Tensor]:
    """The map fitted to the vectors of texts, and of each of the tokens `alone`."""
    size, alone = len(allowed), torch.zeros(0, dtype=torch.long) if alone is None else alone
    mean = vectors[: len(texts)].mean(0)
    vectors = vectors - mean
    rows = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(text) for text in texts]))
    tokens = torch.tensor([token for text in texts for token in text])
    of_texts = vectors[: len(texts)]
    sums = torch.zeros(size, vectors.shape[1]).index_add_(0, tokens, of_texts[rows])
    sums[alone] += 10 * _ALONE * vectors[len(texts) :]
    gram = of_texts.T @ of_texts + _ALONE * vectors[len(texts) :].T @ vectors[len(texts) :]
    weight = torch.linalg.solve(gram + _RIDGE * torch.eye(len(gram)), sums.T)
    spread = torch.cat([(of_texts[:2000] @ part).std(0) for part in weight.split(4096, 1)]).clamp_min(1e-4)
    counts = torch.bincount(tokens, minlength=size).float() * (8000 / len(texts))
    return {
        "mean": mean,
        "weight": weight.T.contiguous().half(),
        "spread": spread,
        "counts": counts,
        "allowed": allowed,
    }


def pieces_of_addresses(embedder: Embedder, times: int = 1, seed: int = 0) -> Iterator[Ids]:
    """Pieces of the addresses, of a few to some dozen tokens, so many times as many as the map is fitted to."""
    rng, number = random.Random(seed), times * NUM_TEXTS
    documents = [document.text for document in read_documents(NamedCorpus())]
    drawn = rng.sample(documents, min(len(documents), -(-number // _OF_ONE)))
    encoded = [ids for ids in embedder.tokenizer.encode_batch(drawn) if len(ids) > max(_LENGTHS)]
    least, most = np.log(_LENGTHS[0]), np.log(min(_LENGTHS[1], embedder.max_len))
    for _ in range(number):
        ids, length = rng.choice(encoded), round(np.exp(rng.uniform(least, most)))
        begin = rng.randrange(len(ids) - length)
        yield tuple(ids[begin : begin + length].tolist())
