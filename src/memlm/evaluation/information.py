"""Information measures of a memory, from cross-entropies in nats/token."""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Nats = TypeVar("Nats", float, NDArray[np.float64])


def random_logits_nats(vocab_size: int) -> float:
    """H_0: the expected cross-entropy of logits drawn uniformly from [0, 1), in nats (9.03 for 8000 types).

    ln V + ln(e − 1) − 1/2: the paper's normalizer of the entropy ratio.
    """
    return math.log(vocab_size) + math.log(math.e - 1) - 0.5


def entropy_ratio(nats: float, vocab_size: int) -> float:
    """The paper's I_e = 1 − H(X|M) / H_0; kept for comparison, for it counts language statistics as memory."""
    return 1 - nats / random_logits_nats(vocab_size)


def retained_bits(nats: Nats, unconditional_nats: Nats) -> Nats:
    """V-information of the memory about the text, in bits/token (Xu et al. 2020).

    I_V = (H(X|∅) − H(X|M)) / ln 2, where H(X|∅) is the same reader's, trained the same way on a constant memory.
    """
    return (unconditional_nats - nats) / math.log(2)
