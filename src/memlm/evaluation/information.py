"""Information measures of a memory, from cross-entropies in nats/token."""

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

_BLOCK_TOKENS = 10_000_000
Nats = TypeVar("Nats", float, NDArray[np.float64])


def random_logits_nats(vocab_size: int) -> float:
    """H_0: the expected cross-entropy of logits drawn uniformly from [0, 1), in nats (9.03 for 8000 types).

    ln V + ln(e − 1) − 1/2: the paper's normalizer of the entropy ratio.
    """
    return math.log(vocab_size) + math.log(math.e - 1) - 0.5


def entropy_ratio(nats: float, vocab_size: int) -> float:
    """The paper's I_e = 1 − H(X|M) / H_0; kept for comparison, for it counts language statistics as memory."""
    return 1 - nats / random_logits_nats(vocab_size)


def unconditional_log_probs(tokens: Int[np.ndarray, " token"], vocab_size: int) -> Float[np.ndarray, " vocab"]:
    """Log-probabilities, in nats, of a reader that has no memory, trained to the end on these tokens.

    Reading a constant, a parallel decoder can learn nothing but how often each token occurs, and chunks begin anywhere,
    so every position has the same frequencies: its optimum is known, and need not be approached by training. Half a
    count is added to each token (Krichevsky-Trofimov), for those that never occurred.
    """
    counts = np.full(vocab_size, 0.5)
    for start in range(0, len(tokens), _BLOCK_TOKENS):
        counts += np.bincount(tokens[start : start + _BLOCK_TOKENS], minlength=vocab_size)
    return np.log(counts / counts.sum())


def retained_bits(nats: Nats, unconditional_nats: Nats) -> Nats:
    """V-information of the memory about the text, in bits/token (Xu et al. 2020).

    I_V = (H(X|∅) − H(X|M)) / ln 2, where H(X|∅) is the same reader's on a constant memory.
    """
    return (unconditional_nats - nats) / math.log(2)
