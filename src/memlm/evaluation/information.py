"""Information measures of a memory, from cross-entropies in nats/token."""

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

_BLOCK_TOKENS = 10_000_000
_BISECTIONS = 60
Nats = TypeVar("Nats", float, NDArray[np.float64])


def random_logits_nats(vocab_size: int) -> float:
    """H_0: the expected cross-entropy of logits drawn uniformly from [0, 1), in nats (9.03 for 8000 types).

    ln V + ln(e − 1) − 1/2: the paper's normalizer of the entropy ratio.
    """
    return math.log(vocab_size) + math.log(math.e - 1) - 0.5


def entropy_ratio(nats: float, vocab_size: int) -> float:
    """The paper's I_e = 1 − H(X|M) / H_0; for comparison only: it counts language statistics as memory."""
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


def fano_nats(error: float, vocab_size: int) -> float:
    """The most that can be open about a token, in nats, if it is guessed wrong with this probability.

    Fano's inequality: H(X|M) ≤ h(e) + e ln(V − 1). For texts of any length, per token, since h is concave.

    Raises:
        ValueError: the error is no probability, or there are fewer than two tokens to choose from.
    """
    _require_choice(vocab_size)
    if not 0 <= error <= 1:
        raise ValueError(f"an error rate lies in [0, 1], not {error}")
    entropy = -sum(share * math.log(share) for share in (error, 1 - error) if share > 0)
    return entropy + error * math.log(vocab_size - 1)


def least_error(nats: float, vocab_size: int) -> float:
    """The lowest error rate that any guess can have where so many nats a token are open: Fano's inequality, inverted.

    Raises:
        ValueError: less than nothing, or more than ln V, is open.
    """
    _require_choice(vocab_size)
    if not 0 <= nats <= math.log(vocab_size) + 1e-12:
        raise ValueError(f"between 0 and ln {vocab_size} nats a token can be open, not {nats}")
    low, high = 0.0, 1 - 1 / vocab_size  # Fano's bound rises between them, to ln V
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fano_nats(middle, vocab_size) < nats else (low, middle)
    return low  # a bound must not be above itself, not even by rounding


def hamming_rate(distortion: float, vocab_size: int) -> float:
    """R(D): nats a token that have to be kept of uniform, independent tokens, if a share D may be wrong afterwards.

    R(D) = ln V − h(D) − D ln(V − 1) up to D = 1 − 1/V, where guessing is enough (Cover & Thomas, ch. 10).
    """
    return 0.0 if distortion >= 1 - 1 / vocab_size else math.log(vocab_size) - fano_nats(distortion, vocab_size)


def hamming_distortion(rate: float, vocab_size: int) -> float:
    """D(R): the lowest share of wrong tokens with so many nats a token; the inverse of `hamming_rate`."""
    return least_error(max(0.0, math.log(vocab_size) - rate), vocab_size)


def quantized_capacity(num_dims: int, bits: int) -> float:
    """The most nats that a memory of so many dimensions can hold at this many bits each: all that it stores."""
    return num_dims * bits * math.log(2)


def noisy_capacity(num_dims: int, noise_std: float) -> float:
    """The most nats that a memory of root mean square 1 can hold under Gaussian noise (Shannon's d/2 · ln(1 + 1/σ²)).

    Raises:
        ValueError: there is no noise, and so no limit.
    """
    if noise_std <= 0:
        raise ValueError(f"without noise real numbers hold any amount; noise_std must be positive, not {noise_std}")
    return num_dims / 2 * math.log1p(noise_std**-2)


def _require_choice(vocab_size: int) -> None:
    if vocab_size < 2:
        raise ValueError(f"there must be two tokens to choose from, not {vocab_size}")
