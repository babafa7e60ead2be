"""The search for one text: a pool of texts, changed, encoded again, and kept if they come closer and read well."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from memlm.probing.inversion.embedder import Embedder, Ids, Unit
from memlm.probing.inversion.language import NoLanguage, Reading
from memlm.probing.inversion.missing import MissingWords
from memlm.probing.inversion.moves import MOVES, Parent
from memlm.probing.inversion.readout import Readout, standard

SAME = 1 - 2e-5
"""A closeness from which on a text counts as the target's own."""
_SLACK = 3
"""Tokens that a changed text may be too long before it is written out."""
_SURE = 0.1
"""Distance from closeness 1 within which what the language model says counts less and less."""
_IDLE = 20
"""Rounds without a text that is new, after which there is nothing left to try."""
_DOUBT = 0.02
"""Closeness lost by leaving a token out that halves the doubt about it, and more."""


class Guess(NamedTuple):
    """A text of the pool."""

    text: Ids
    closeness: float
    """The cosine with the target, or what the readout measures instead; 1 for the target itself."""
    nats: float
    """What each token costs the language model."""


@dataclass(kw_only=True)
class Search:
    """A search for the text whose embedding is `target`, of length 1.

    What is missing in a text is read off the target and the embedding of the text without one of its tokens, and off
    the gradient there, if the encoder gives one. A text's score is its closeness, less what it costs the language
    model: nearly nothing where it is nearly 1, as that of the text itself is whatever its English is like.
    """

    embedder: Embedder
    language: NoLanguage
    readout: Readout | MissingWords
    target: Float[Tensor, " dim"]
    length: int | None
    budget: int
    """Encodings."""
    seed: int = 0
    pool_size: int = 16
    islands: int = 3
    """Pools that first grow apart, each for `apart` of the budget."""
    apart: float = 0.15
    last: float = 0.1
    """The end of the budget, in which closeness is the cosine, whatever the readout measured instead."""
    batch: int = 128
    """Changed texts encoded in each round."""
    num_read: int = 5
    """Of these, the closest, that the language model reads."""
    num_choices: int = 200
    """Tokens that may be put in each place of a text."""
    likelihood: float = 0.012
    """Closeness that a nat a token is worth, where it is 0.9 or less."""
    context: float = 0.25
    """What a nat of the language model counts for a token, in standard deviations of what embeddings say."""
    pool: list[Guess] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.begun = self.embedder.num_encodings
        self.language = self.language.of(self.target)
        self.words = self.readout.words(self.target)
        self.weight, self.by_cosine = self.likelihood, False
        self.tried: set[Ids] = set()
        self.parents: dict[Ids, Parent] = {}
        self.readings: dict[Ids, Reading] = {}

    @property
    def spent(self) -> int:
        """Encodings so far."""
        return self.embedder.num_encodings - self.begun

    @property
    def found(self) -> bool:
        """Whether the best text's embedding is the target."""
        return bool(self.pool) and self.pool[0].closeness >= SAME

    def run(self, starts: Sequence[Ids]) -> Guess:
        """The best text there is when one is found, the budget is spent, or nothing is left to try.

        Raises:
            ValueError: nothing to start from.
        """
        if not starts:
            raise ValueError("there is no text to start from")
        best: list[Guess] = []
        groups = [starts[number :: self.islands] for number in range(self.islands)]
        for number, group in enumerate(filter(None, groups), start=1):
            self.pool, self.tried, self.weight = [], set(), self.likelihood
            self._take(group[: self.pool_size])
            self._climb(min(number * self.apart, 1) * self.budget)
            if self.found:
                break
            best += self.pool[: -(-self.pool_size // self.islands)]
        self.pool = sorted({*best, *self.pool}, key=lambda guess: -guess.closeness)
        self._forget()
        self._climb((1 - self.last) * self.budget)
        if not self.found and self.spent + len(self.pool) <= self.budget:
            self._turn_to_cosine()
            self._climb(self.budget)
        return max(self.pool, key=lambda guess: guess.closeness)

    def _climb(self, budget: float) -> None:
        """Rounds until a text is found, another would spend more encodings than these, or nothing is left to try."""
        idle = 0
        while not self.found and self.spent + self._most_of_a_round() <= budget and idle < _IDLE:
            idle = 0 if self._round() else idle + 1

    def _turn_to_cosine(self) -> None:
        """Words come out by other measures, but what is asked for is the embedding."""
        self.by_cosine, self.parents = True, {}
        exact = self._closeness(self.embedder.embed([guess.text for guess in self.pool])).tolist()
        self.pool = [guess._replace(closeness=close) for guess, close in zip(self.pool, exact, strict=True)]
        self._rank()

    def _closeness(self, vectors: Unit) -> Float[Tensor, " text"]:
        return vectors @ self.target if self.by_cosine else self.readout.closeness(self.target, vectors)

    def _most_of_a_round(self) -> int:
        """Encodings: of changed texts, of the closest once more, and of two parents without each of their tokens."""
        return self.batch + self.num_read + 2 * max(len(guess.text) for guess in self.pool)

    def _round(self) -> bool:
        """Change two texts of the pool in many ways, and keep the best; whether there was any change left to try."""
        parents = [self._parent(self._chosen().text) for _ in range(2)]
        moves, shares = [*MOVES], [*MOVES.values()]
        made: set[Ids] = set()
        for _ in range(8 * self.batch):
            (move,) = self.rng.choices(moves, shares)
            self._add(move(self.rng, self.rng.choice(parents), self.rng.choice(self.pool).text), made)
            if len(made) >= self.batch:
                break
        if made:
            self._take(sorted(made))
        return bool(made)

    def _add(self, changed: Ids, made: set[Ids]) -> None:
        """Put a text into `made` as it is written, if it is new."""
        if changed in self.tried:
            return
        self.tried.add(changed)
        written = self._written(changed)
        if written and (written == changed or written not in self.tried):
            self.tried.add(written)
            made.add(written)

    def _chosen(self) -> Guess:
        """One of the pool, better ones more often."""
        return self.pool[int(self.rng.random() ** 2 * len(self.pool))]

    def _take(self, texts: Sequence[Ids]) -> None:
        """Encode texts, read the closest, and keep the best in the pool."""
        rough = self._closeness(self.embedder.embed(texts, exact=False))
        order = rough.argsort(descending=True).tolist()[: self.num_read if self.pool else self.pool_size]
        near = [texts[row] for row in order if float(rough[row]) > self._least()]
        if not near:
            return
        exact = self._closeness(self.embedder.embed(near)).tolist()
        for text, close, reading in zip(near, exact, self._read(near), strict=True):
            self.readings[text] = reading
            self.pool.append(Guess(text, close, reading.nats / len(text)))
        self._rank()

    def _rank(self) -> None:
        """Sort the pool, and keep the best."""
        self.weight = self.likelihood * min(1.0, (1 - max(guess.closeness for guess in self.pool)) / _SURE)
        self.pool.sort(key=lambda guess: guess.closeness - self.weight * guess.nats, reverse=True)
        self.pool = self.pool[: self.pool_size]
        self._forget()

    def _least(self) -> float:
        """The closeness a text needs to come into the pool, if it reads as well as the best of it."""
        if len(self.pool) < self.pool_size:
            return -1.0
        last = self.pool[-1]
        return last.closeness - self.weight * (last.nats - min(guess.nats for guess in self.pool))

    def _forget(self) -> None:
        """Keep what was worked out for texts of the pool alone; of those that came from elsewhere, read again."""
        kept = [guess.text for guess in self.pool]
        missing = [text for text in kept if text not in self.readings]
        if missing:
            self.readings |= zip(missing, self._read(missing), strict=True)
        self.readings = {text: self.readings[text] for text in kept}
        self.parents = {text: self.parents[text] for text in kept if text in self.parents}

    def _parent(self, text: Ids) -> Parent:
        """A text with what may be missing in each of its places, and where it may be wrong."""
        if text not in self.parents:
            vectors, gains = self.embedder.without(text, self.target)
            fit = self.readout.missing(self.target, vectors)
            prefixes = [len(self.embedder.tokenizer.decode(text[:place])) for place in range(len(text))]
            likely = self.language.proposals(self.readings[text], prefixes)
            quarter = self.num_choices // 4
            scores = [(fit + self.context * likely, 2 * quarter), (fit, quarter), (likely + self.words, quarter)]
            if gains is not None:
                scores = [(standard(gains) + self.context * likely, 2 * quarter), *scores]
            best = [
                score.masked_fill(~self.readout.allowed, -torch.inf).topk(min(number, score.shape[1])).indices
                for score, number in scores
            ]
            choices = [_mixed([row.tolist() for row in rows]) for rows in zip(*best, strict=True)]
            left = self._closeness(vectors)
            self.parents[text] = Parent(text, choices, (0.25 + torch.exp((left - left.max()) / _DOUBT)).tolist())
        return self.parents[text]

    def _read(self, texts: Sequence[Ids]) -> list[Reading]:
        return self.language.read(list(map(self.embedder.text, texts)))

    def _written(self, text: Ids) -> Ids | None:
        """The tokens that this text, written out, is made of; None if it is too long, empty or of another length."""
        if not text or abs(len(text) - (self.length or len(text))) > _SLACK:
            return None
        again = self.embedder.tokens(self.embedder.text(text))
        if self.length is not None and len(again) != self.length:
            return None
        return again if 0 < len(again) <= self.embedder.max_len else None


def _mixed(ranked: Sequence[Sequence[int]]) -> list[int]:
    """Several rankings as one: two of the first, then one of each other, and so on."""
    first, *others = ranked
    pairs = [first[at : at + 2] for at in range(0, len(first), 2)]
    mixed = [
        each for at, pair in enumerate(pairs) for each in (*pair, *(other[at] for other in others if at < len(other)))
    ]
    return list(dict.fromkeys(mixed))
