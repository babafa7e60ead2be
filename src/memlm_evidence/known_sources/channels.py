"""Memoryless channels: what becomes of each token, by itself and at random. What they let through is known exactly."""

import numpy as np
from jaxtyping import Float, Int

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
