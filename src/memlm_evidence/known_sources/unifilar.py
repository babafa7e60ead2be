"""Sources whose hidden state follows from the state before and the token, and all that is to be known of them.

These are independent tokens, Markov chains, and hidden Markov sources given by their causal states (Shalizi &
Crutchfield 2001). Entropies are in nats.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Channel = Float[np.ndarray, "token symbol"]
"""P(symbol | token)."""


def erasure(vocab_size: int, probability: float) -> Channel:
    """Every token is lost with this probability, and known to be: it becomes the symbol after the last token."""
    _require_probability(probability)
    return np.hstack([(1 - probability) * np.eye(vocab_size), np.full((vocab_size, 1), probability)])


def symmetric(vocab_size: int, probability: float) -> Channel:
    """Every token becomes one of the others with this probability, each as likely."""
    _require_probability(probability)
    others = probability / (vocab_size - 1)
    return np.full((vocab_size, vocab_size), others) + (1 - probability - others) * np.eye(vocab_size)


def through(channel: Channel, tokens: Int[np.ndarray, "..."], random: np.random.Generator) -> Int[np.ndarray, "..."]:
    """The symbols that a channel makes of tokens, of any shape."""
    passed = random.random((*tokens.shape, 1)) > channel.cumsum(1)[tokens]
    return passed.sum(-1).clip(max=channel.shape[1] - 1)


def _require_probability(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability lies in [0, 1], not {probability}")


_PRECISION = 12
"""Decimals to which probabilities are told apart."""
_MAX_BELIEFS = 20_000
"""Beliefs about the state that are followed exactly."""


class Drawn(NamedTuple):
    """Windows of two chunks: a past and what follows it."""

    tokens: Int[np.ndarray, "window 2 token"]
    state: Int[np.ndarray, "window part"]
    """The predictive state between the two chunks: all that the second depends on of the first."""


@dataclass(frozen=True, eq=False)
class Unifilar:
    """A stationary source with hidden states, where state and token determine the next state."""

    name: str
    emission: Float[np.ndarray, "state token"]
    """P(token | state)."""
    next_state: Int[np.ndarray, "state token"]
    """The state after each token; of a token that cannot be, any."""

    def __post_init__(self) -> None:
        """Check that the tables describe one stationary source.

        Raises:
            ValueError: a row is no distribution, a state does not exist, or not every state can be reached from every
                other, so that entropies depend on where the source begins. (Periodic sources are allowed: none of the
                formulas here needs more than one stationary distribution.)
        """
        for state, row in enumerate(self.emission):
            if (row < 0).any() or not math.isclose(row.sum(), 1, abs_tol=1e-9):
                raise ValueError(
                    f"{self.name}: the token probabilities of state {state} are no distribution: {row}, sum {row.sum()}"
                )
        if self.next_state.shape != self.emission.shape or not np.isin(self.next_state, range(self.num_states)).all():
            raise ValueError(f"{self.name}: next_state must name one of {self.num_states} states for each state, token")
        from scipy.sparse.csgraph import shortest_path  # takes a second to import

        stranded = np.argwhere(np.isinf(shortest_path(self._moves.sum(0) > 0, unweighted=True)))
        if len(stranded):
            begin, end = stranded[0]
            raise ValueError(f"{self.name} is reducible: state {end} cannot be reached from state {begin}")

    @property
    def vocab_size(self) -> int:
        """Token types."""
        return self.emission.shape[1]

    @property
    def num_states(self) -> int:
        """States of this presentation; `causal_state` says which are one."""
        return len(self.emission)

    @cached_property
    def _moves(self) -> Float[np.ndarray, "token state next"]:
        """P(token, next state | state)."""
        target = np.arange(self.num_states) == self.next_state[..., None]
        return np.moveaxis(self.emission[..., None] * target, 1, 0)

    @cached_property
    def stationary(self) -> Float[np.ndarray, " state"]:
        """P(state)."""
        equations = np.vstack([self._moves.sum(0).T - np.eye(self.num_states), np.ones(self.num_states)])
        found: NDArray[np.float64] = np.linalg.lstsq(equations, np.append(np.zeros(self.num_states), 1), rcond=None)[0]
        return found.clip(0) / found.clip(0).sum()

    @cached_property
    def causal_state(self) -> Int[np.ndarray, " state"]:
        """Which predictive state each state is: those after which everything is equally likely are one (Moore 1956)."""
        group = _groups(self.emission.round(_PRECISION))
        while True:
            after = np.where(self.emission > 0, group[self.next_state], -1)
            finer = _groups(np.column_stack([group, after]))
            if finer.max() == group.max():
                return group
            group = finer

    @property
    def entropy_rate(self) -> float:
        """h: nats a token, for one who knows all that went before."""
        return float(self.stationary @ _entropy(self.emission))

    @property
    def state_entropy(self) -> float:
        """The entropy of the predictive state: statistical complexity."""
        return float(_entropy(np.bincount(self.causal_state, weights=self.stationary)))

    def block_entropy(self, num_tokens: int) -> float:
        """H(X₁..ₙ), nats."""
        known, more = _entropies(self)
        known.extend(itertools.islice(more, max(0, num_tokens - len(known))))
        return float(sum(known[:num_tokens]))

    def conditional_entropies(self) -> Iterator[float]:
        """H(Xₙ | X₁..ₙ₋₁) for n = 1, 2, ..., from the distribution of what can be believed about the state.

        Beliefs are merged where they agree to twelve decimals. Where they are still too many, those that leave the
        least to be known are counted as knowing the state: what follows is too low by no more than the entropy they had
        left, and never lower than h.
        """
        beliefs, weights = self.stationary[None], np.ones(1)
        while True:
            yield float(weights @ _entropy(beliefs @ self.emission))
            joint = weights[:, None, None] * np.einsum("bs,xst->bxt", beliefs, self._moves)
            beliefs, weights = _merged(joint.reshape(-1, self.num_states))

    def log_probs(
        self, tokens: Int[np.ndarray, "text ..."], channel: Channel | None = None
    ) -> Float[np.ndarray, "text ..."]:
        """ln P of each token given those before it in its text, which may stand in chunks; -inf of what cannot be.

        With a channel, of each symbol that it makes of a token, given the symbols before.
        """
        moves = self._moves if channel is None else np.einsum("tsn,to->osn", self._moves, channel)
        belief = np.repeat(self.stationary[None], len(tokens), axis=0)
        nats = np.empty((len(tokens), math.prod(tokens.shape[1:])))
        for place, token in enumerate(tokens.reshape(nats.shape).T):
            joint = np.einsum("bs,bst->bt", belief, moves[token])
            likely = joint.sum(1)
            with np.errstate(divide="ignore", invalid="ignore"):
                nats[:, place] = np.log(likely)
                belief = np.where(likely[:, None] > 0, joint / likely[:, None], self.stationary)
        return nats.reshape(tokens.shape)

    def information(
        self, tokens: Int[np.ndarray, "text token"], symbols: Int[np.ndarray, "text token"], channel: Channel
    ) -> Float[np.ndarray, " text"]:
        """What symbols tell of their texts, ln P(symbols | tokens) / P(symbols): in the mean, I(tokens; symbols)."""
        return np.log(channel[tokens, symbols]).sum(1) - self.log_probs(symbols, channel).sum(1)

    def draw(self, num_windows: int, chunk_len: int, random: np.random.Generator) -> Drawn:
        """Random stretches of 2 · `chunk_len` tokens."""
        state = random.choice(self.num_states, size=num_windows, p=self.stationary)
        tokens, between = np.empty((num_windows, 2 * chunk_len), dtype=np.int64), state
        for place in range(2 * chunk_len):
            between = state if place == chunk_len else between
            tokens[:, place] = through(self.emission, state, random)
            state = self.next_state[state, tokens[:, place]]
        return Drawn(tokens.reshape(num_windows, 2, chunk_len), self.causal_state[between][:, None])

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """How many values each part of a drawn state has."""
        return (int(self.causal_state.max()) + 1,)


@cache
def _entropies(source: Unifilar) -> tuple[list[float], Iterator[float]]:
    """Conditional entropies as far as they are known, and those after them."""
    return [], source.conditional_entropies()


def _entropy(probabilities: Float[np.ndarray, "*row outcome"]) -> Float[np.ndarray, "*row"]:
    """Nats of each distribution."""
    with np.errstate(divide="ignore"):
        logs = np.where(probabilities > 0, np.log(probabilities), 0.0)
    return 0.0 - (probabilities * logs).sum(-1)


def _groups(rows: NDArray[np.generic]) -> NDArray[np.int64]:
    """Which rows are equal, numbered."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def _merged(
    joint: Float[np.ndarray, "case state"],
) -> tuple[Float[np.ndarray, "belief state"], Float[np.ndarray, " belief"]]:
    """P(case, state) → beliefs about the state and how likely each is; those of equal cases are one."""
    weights = joint.sum(1)
    joint, weights = joint[weights > 0], weights[weights > 0]
    beliefs, belief = np.unique((joint / weights[:, None]).round(_PRECISION), axis=0, return_inverse=True)
    weights = np.bincount(belief.ravel(), weights=weights).astype(np.float64)
    if len(beliefs) <= _MAX_BELIEFS:
        return beliefs, weights
    kept, rest = np.split(np.argsort(-weights * _entropy(beliefs)), [_MAX_BELIEFS // 2])
    known = np.eye(beliefs.shape[1])  # of those that leave least to be known of the state, it becomes known
    return np.vstack([beliefs[kept], known]), np.append(weights[kept], weights[rest] @ beliefs[rest])
