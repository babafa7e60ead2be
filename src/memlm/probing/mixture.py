"""Readers that may ignore the embedding: mixtures with the reader without a memory, chosen on validation text."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from memlm.data.chunks import Chunks
from memlm.probing.texts import Splits

_MIN_STANDARD_ERRORS = 3.0
_PRIOR_COUNTS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""How many tokens the overall frequencies may count for at each position."""
_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)

Nats = Float[np.ndarray, "chunk token"]


def mixed(nats: Nats, without: Nats, trust: float) -> Nats:
    """Nats of the mixture λ · reader + (1 - λ) · reader without a memory."""
    if trust == 0:
        return without
    return -np.logaddexp(np.log(trust) - nats, np.log1p(-trust) - without) if trust < 1 else nats


def chosen_trust(nats: Nats, without: Nats, document: Int[np.ndarray, " chunk"]) -> float:
    """The λ under which validation text costs the fewest nats, or 0 where that gains nothing to speak of.

    Predictors that ignore the embedding belong to the family over which V-information is defined (Xu et al. 2020,
    optional ignorance). λ is 0 unless it gains more than three standard errors.
    """
    best = min(_WEIGHTS, key=lambda trust: float(mixed(nats, without, trust).mean()))
    gain = (without - mixed(nats, without, best)).mean(axis=1)
    # A document's chunks stand or fall together: the error of the mean is that of clusters.
    by_document = np.bincount(document, weights=gain - gain.mean())
    error = float(np.sqrt((by_document**2).sum())) / len(gain)
    return best if float(gain.mean()) > _MIN_STANDARD_ERRORS * error else 0.0


def token_frequencies(chunks: Splits[Chunks], log_probs: Float[np.ndarray, " vocab"]) -> Callable[[Chunks], Nats]:
    """What tokens cost a reader that sees only the embedding, without one: their frequencies are all it can know.

    They are mixed with those of each position, as far as validation text says that these differ.
    """
    train, validation = chunks.train.tokens, chunks.validation
    places = np.arange(train.shape[1])
    counts = np.zeros((len(places), len(log_probs)))
    np.add.at(counts, (places, train), 1)

    def nats(chunks: Chunks, prior: float) -> Nats:
        likelihood = counts[places, chunks.tokens] + prior * np.exp(log_probs[chunks.tokens])
        return -np.log(likelihood / (len(train) + prior))

    prior = min(_PRIOR_COUNTS, key=lambda prior: float(nats(validation, prior).mean()))
    trust = chosen_trust(nats(validation, prior), -log_probs[validation.tokens], validation.document)
    return lambda chunks: mixed(nats(chunks, prior), -log_probs[chunks.tokens], trust)
