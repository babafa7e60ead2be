"""Synthetic sources of tokens, about which everything is known: probabilities, entropies, and what the future needs.

Entropies are in nats. A `Lookup` is a text about which questions are asked later; all others are `Unifilar`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from memlm_evidence.known_sources.unifilar import Drawn, Unifilar


@dataclass(frozen=True)
class Lookup:
    """A chunk of independent, uniformly random values; then questions about random places of it, each answered.

    Only the first `num_asked` places are ever asked about, so that the future needs just these. Answers are certain for
    one who remembers. Questions name their place by a token of its own.
    """

    num_values: int
    """Value types."""
    num_asked: int
    """Places that are asked about."""

    def __post_init__(self) -> None:
        if self.num_values < 2 or self.num_asked < 1:
            raise ValueError(
                f"a lookup needs two values and a place to ask about, not {self.num_values} and {self.num_asked}"
            )

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"lookup of {self.num_asked}"

    @property
    def vocab_size(self) -> int:
        """Values, and a question for each place."""
        return self.num_values + self.num_asked

    @property
    def entropy_rate(self) -> float:
        """Of the second chunk, nats a token: questions are random, answers known."""
        return math.log(self.num_asked) / 2

    def log_probs(self, tokens: Int[np.ndarray, "window 2 token"]) -> Float[np.ndarray, "window 2 token"]:
        """ln P of each token given all before it in its window."""
        past, future = tokens[:, 0], tokens[:, 1]
        place = future[:, ::2] - self.num_values
        known = np.take_along_axis(past, place.clip(0, past.shape[1] - 1), axis=1)[:, : future.shape[1] // 2]
        nats = np.empty(tokens.shape)
        nats[:, 0] = -math.log(self.num_values)
        nats[:, 1, ::2] = np.where((place >= 0) & (place < self.num_asked), -math.log(self.num_asked), -np.inf)
        nats[:, 1, 1::2] = np.where(known == future[:, 1::2], 0.0, -np.inf)
        return nats

    def draw(self, num_windows: int, chunk_len: int, random: np.random.Generator) -> Drawn:
        """Random windows.

        Raises:
            ValueError: chunks are shorter than the places that are asked about, or not even.
        """
        if chunk_len < self.num_asked or chunk_len % 2:
            raise ValueError(
                f"chunks of {chunk_len} tokens must be even and have the {self.num_asked} places asked for"
            )
        past = random.integers(self.num_values, size=(num_windows, chunk_len))
        place = random.integers(self.num_asked, size=(num_windows, chunk_len // 2))
        answers = np.take_along_axis(past, place, axis=1)
        future = np.stack([self.num_values + place, answers], axis=-1).reshape(num_windows, chunk_len)
        return Drawn(np.stack([past, future], axis=1), past[:, : self.num_asked])

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """How many values each part of a drawn state has."""
        return (self.num_values,) * self.num_asked

    def block_entropy(self, num_tokens: int) -> float:
        """Of so many tokens of the first chunk, nats."""
        return num_tokens * math.log(self.num_values)

    @property
    def state_entropy(self) -> float:
        """Of the values that may be asked for, nats."""
        return self.num_asked * math.log(self.num_values)


Source = Unifilar | Lookup


def independent(name: str, probabilities: Float[np.ndarray, " token"]) -> Unifilar:
    """Independent tokens: nothing of the past is needed."""
    return Unifilar(name, np.asarray(probabilities, dtype=np.float64)[None], np.zeros((1, len(probabilities)), int))


@cache  # here and below: what is computed of a source is computed once
def uniform(vocab_size: int) -> Unifilar:
    """Independent and equally likely tokens."""
    return independent(f"uniform {vocab_size}", np.full(vocab_size, 1 / vocab_size))


@cache
def zipf(vocab_size: int) -> Unifilar:
    """Independent tokens, as frequent as words are: P(rank) ∝ 1 / rank."""
    weights = np.arange(1, vocab_size + 1.0) ** -1.0
    return independent(f"Zipf {vocab_size}", weights / weights.sum())


def markov(name: str, transition: Float[np.ndarray, "*context token"]) -> Unifilar:
    """A Markov chain; `transition` has an axis for each token of the context, the oldest first, and one for the next.

    Raises:
        ValueError: a row is no distribution, or the chain is reducible.
    """
    vocab_size, order = transition.shape[-1], transition.ndim - 1
    context = np.arange(vocab_size**order)
    following = (context[:, None] * vocab_size + np.arange(vocab_size)) % vocab_size**order
    return Unifilar(name, transition.reshape(-1, vocab_size), following)


@cache
def random_markov(vocab_size: int, order: int = 1, *, concentration: float = 0.5) -> Unifilar:
    """A Markov chain whose rows are drawn from a symmetric Dirichlet distribution."""
    rows = np.random.default_rng(0).dirichlet(np.full(vocab_size, concentration), size=(vocab_size,) * order)
    return markov(f"Markov {vocab_size}, order {order}", rows)


@cache
def golden_mean() -> Unifilar:
    """Bits without two ones in a row; two causal states, after a one and after a zero."""
    return Unifilar("golden mean", np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0, 1], [0, 0]]))


@cache
def even_process() -> Unifilar:
    """Bits whose ones come in even runs: its states cannot be told from any fixed number of last tokens."""
    return Unifilar("even process", np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[0, 1], [0, 0]]))


@cache
def random_unifilar(num_states: int, vocab_size: int, *, seed: int = 0) -> Unifilar:
    """A hidden Markov source with random probabilities and moves, the first of them around all states."""
    random = np.random.default_rng(seed)
    moves = random.integers(num_states, size=(num_states, vocab_size))
    moves[:, 0] = (np.arange(num_states) + 1) % num_states
    rows = random.dirichlet(np.ones(vocab_size), size=num_states)
    return Unifilar(f"unifilar {num_states} states", rows, moves)
