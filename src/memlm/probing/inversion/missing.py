"""Which words a text lacks, read off its embedding and the target's by a network, trained once for each embedder."""

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memlm.data.cache import default_cache, make_once
from memlm.models.layered import seeded
from memlm.probing.inversion.embedder import Embedder, Ids, Unit
from memlm.probing.inversion.moves import Parent, move
from memlm.probing.inversion.readout import Readout, by_rank, pieces_of_addresses
from memlm.runtime.cpu import precision_on
from memlm.runtime.progress import track

_TIMES = 4
"""Texts to train on, with a copy of each that has errors, for each that the linear map is fitted to."""
_EPOCHS = 6
_BATCH = 256
_WIDTH = 1024
_RATE, _RATE_OF_ROWS, _RATE_OF_BIAS = 7e-4, 1e-3, 3e-3
_STEPS_TO_RATE = 50
_NOTHING = 0.15
"""Of the copies, those that have no token left."""
_FOREIGN = (0.0, 0.1, 0.3)
"""Of a text's tokens, those that are drawn from all there are, so that none is unheard of."""
_LIKELY = 150
"""Tokens that the linear map thinks of first, of which errors are made."""
_KNOWN = 0.6
"""What the target's own words count beside what one text lacks."""


class MissingWords(nn.Module):
    """What `Readout` says, of the words that a text lacks, by a network that knows both its embedding and the target's.

    It corrects the direction from one to the other before the linear map reads it. A text of nothing has the mean
    embedding.
    """

    gram: Float[Tensor, "dim dim"]

    def __init__(self, readout: Readout) -> None:
        super().__init__()
        dim = len(readout.mean)
        self.readout, self.allowed = readout, readout.allowed
        self.first, self.second, self.last = (
            nn.Linear(*sizes) for sizes in ((3 * dim, _WIDTH), (_WIDTH, _WIDTH), (_WIDTH, dim))
        )
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.rows = nn.Parameter(readout.weight / readout.spread.sqrt()[:, None])
        self.bias = nn.Parameter(readout.prior)
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        read = self.rows.detach()[readout.allowed]
        self.register_buffer("gram", read.T @ read, persistent=False)

    @classmethod
    def of(cls, embedder: Embedder, readout: Readout, *, cache: Path | None = None, quiet: bool = True) -> Self:
        """The network of an embedder and its linear map, trained if it is not in the cache."""
        folder = (cache or default_cache()) / "missing-words" / embedder.fingerprint

        def make(made: Path) -> None:
            with seeded(0):
                network = cls(readout)
            _train(network, embedder, quiet=quiet)
            save_file(network.state_dict(), made / "network.safetensors")

        make_once(folder, make)
        network = cls(readout)
        network.load_state_dict(load_file(folder / "network.safetensors"))
        return network.requires_grad_(False)

    def forward(self, target: Unit, other: Unit) -> Float[Tensor, "text vocab"]:
        """Scores, in nats, of what each target's text has and the other's lacks."""
        target, other = target - self.readout.mean, other - self.readout.mean
        direction = F.normalize(target - other, dim=1)
        seen = F.gelu(self.first(torch.cat([target, other, direction], dim=1) * target.shape[1] ** 0.5))
        seen = seen + F.gelu(self.second(seen))
        return (direction + 0.05 * self.last(seen)) @ self.rows.T * self.log_scale.exp() + self.bias

    def words(self, target: Float[Tensor, " dim"]) -> Float[Tensor, " vocab"]:
        """What speaks for each token, by the mean logarithm of its ranks here and by the linear map."""
        scores = self(target[None], self.readout.mean[None])[0].masked_fill(~self.allowed, -torch.inf)
        return (by_rank(scores) + self.readout.words(target)) / 2

    def missing(self, target: Float[Tensor, " dim"], vectors: Unit) -> Float[Tensor, "text vocab"]:
        """What speaks for each token being missing in texts of these embeddings, in nats."""
        return self(target.expand_as(vectors), vectors) + _KNOWN * self.words(target)

    def closeness(self, target: Float[Tensor, " dim"], vectors: Unit) -> Float[Tensor, " text"]:
        """The cosine of the words that the linear map reads, which tells similar texts apart a little better than that
        of the embeddings."""
        target, vectors = target - self.readout.mean, vectors - self.readout.mean
        lengths = ((target @ self.gram @ target) * ((vectors @ self.gram) * vectors).sum(1)).sqrt()
        return vectors @ (self.gram @ target) / lengths


def _train(network: MissingWords, embedder: Embedder, *, quiet: bool) -> None:
    """Embed texts and copies with errors, and learn what the copies lack."""
    texts, copies, vectors, others = _pairs(embedder, network.readout, quiet=quiet)
    lacking = [Counter(text) - Counter(copy) for text, copy in zip(texts, copies, strict=True)]
    rates = {"rows": _RATE_OF_ROWS, "bias": _RATE_OF_BIAS, "log_scale": 10 * _RATE_OF_BIAS}
    groups = [{"params": [each], "lr": rates.get(name, _RATE)} for name, each in network.named_parameters()]
    steps = _EPOCHS * len(texts) // _BATCH
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _STEPS_TO_RATE) * (1 - step / steps)
    )
    rng, low = random.Random(0), precision_on(torch.device("cpu")) == "bf16"
    with track("Learning what is missing", total=steps * _BATCH, unit="tokens", quiet=quiet) as advance:
        for _ in range(steps):
            rows = rng.choices(range(len(texts)), k=_BATCH)
            wanted = torch.zeros(_BATCH, len(network.allowed))
            for at, row in enumerate(rows):
                counted = lacking[row]
                wanted[at, [*counted]] = torch.tensor([*counted.values()], dtype=torch.float)
            wanted.masked_fill_(~network.allowed, 0)
            with torch.autocast("cpu", dtype=torch.bfloat16) if low else nullcontext():
                scores = network(vectors[rows], others[rows]).float()
            costs = -(scores.masked_fill(~network.allowed, -1e4).log_softmax(1) * wanted).sum(1)
            # A text that lacks much does not count as much more.
            number = wanted.sum(1).clamp_min(1).sqrt()
            loss = (costs / number).sum() / number.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(_BATCH, note=f"{loss.item():.2f} nats")


def _pairs(embedder: Embedder, readout: Readout, *, quiet: bool) -> tuple[list[Ids], list[Ids], Unit, Unit]:
    """Texts, copies with errors, and the embeddings of both."""
    rng, allowed = random.Random(1), readout.allowed.nonzero()[:, 0].tolist()
    texts = [
        tuple(rng.choice(allowed) if rng.random() < share else token for token in text)
        for text in pieces_of_addresses(embedder, _TIMES, seed=1)
        for share in [rng.choice(_FOREIGN)]
    ]
    copies, vectors, others = list[Ids](), list[Unit](), list[Unit]()
    total = 2 * sum(map(len, texts))
    with track("Embedding texts with errors", total=total, unit="tokens", quiet=quiet) as advance:
        for at in range(0, len(texts), _BATCH):
            batch = texts[at : at + _BATCH]
            made = embedder.embed(batch, exact=False)
            likely = (readout.brings(made - readout.mean) + readout.prior).masked_fill(~readout.allowed, -torch.inf)
            ranked = likely.topk(min(_LIKELY, len(allowed))).indices.tolist()
            wrong = [_with_errors(rng, text, row, rng.choice(texts)) for text, row in zip(batch, ranked, strict=True)]
            other = embedder.embed([each or batch[0] for each in wrong], exact=False)
            other[[not each for each in wrong]] = readout.mean
            copies, vectors, others = [*copies, *wrong], [*vectors, made], [*others, other]
            advance(2 * sum(map(len, batch)))
    return texts, copies, torch.cat(vectors), torch.cat(others)


def _with_errors(rng: random.Random, text: Ids, likely: Sequence[int], other: Ids) -> Ids:
    """A text with spans moved, some tokens wrong, and one left out; or nothing of it."""
    if rng.random() < _NOTHING:
        return ()
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            text = move(rng, Parent(text, (), ()), ())
    share, sources = rng.random() ** 1.5, (likely, likely, other, other, text)
    copy = [rng.choice(rng.choice(sources)) if rng.random() < share else token for token in text]
    del copy[rng.randrange(len(copy))]
    return tuple(copy)
