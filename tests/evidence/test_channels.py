"""What channels let through: against closed forms and enumeration."""

import itertools
import math

import numpy as np
import pytest

from memlm_evidence.known_sources.sources import even_process, random_markov, uniform, zipf
from memlm_evidence.known_sources.unifilar import Channel, Unifilar, erasure, symmetric, through

CHANNELS = [erasure(3, 0.4), symmetric(3, 0.2), symmetric(3, 0.0)]
every_channel = pytest.mark.parametrize("channel", CHANNELS, ids=["erasure", "symmetric", "everything"])


def enumerated(source: Unifilar, channel: Channel, length: int) -> float:
    """I(tokens; symbols) in nats, over all of both."""
    texts = np.array(list(itertools.product(range(source.vocab_size), repeat=length)))
    symbols = np.array(list(itertools.product(range(channel.shape[1]), repeat=length)))
    prior = np.exp(source.log_probs(texts).sum(1))
    joint = prior[:, None] * channel[texts[:, None], symbols[None]].prod(-1)
    marginal = joint.sum(0)
    kept = joint > 0
    return float((joint[kept] * np.log(joint[kept] / (prior[:, None] * marginal)[kept])).sum())


@every_channel
@pytest.mark.parametrize("source", [uniform(3), zipf(3), random_markov(3)], ids=lambda source: source.name)
def test_information_is_in_the_mean_that_of_enumeration(source: Unifilar, channel: Channel) -> None:
    random = np.random.default_rng(0)
    tokens = source.draw(40_000, 4, random).tokens[:, 0]
    told = source.information(tokens, through(channel, tokens, random), channel)
    error = 5 * told.std() / math.sqrt(len(told)) + 1e-9
    assert told.mean() == pytest.approx(enumerated(source, channel, 4), abs=error)


def test_closed_forms() -> None:
    random = np.random.default_rng(0)
    tokens = uniform(8).draw(20_000, 16, random).tokens[:, 0]
    erased = erasure(8, 0.25)
    told = uniform(8).information(tokens, through(erased, tokens, random), erased)
    assert told.mean() == pytest.approx(0.75 * 16 * math.log(8), rel=0.005)
    changed = symmetric(8, 0.1)
    told = uniform(8).information(tokens, through(changed, tokens, random), changed)
    open_nats = -0.1 * math.log(0.1 / 7) - 0.9 * math.log(0.9)
    assert told.mean() == pytest.approx(16 * (math.log(8) - open_nats), rel=0.005)


@pytest.mark.parametrize("source", [random_markov(4), even_process()], ids=lambda source: source.name)
def test_a_channel_that_changes_nothing_tells_the_whole_text(source: Unifilar) -> None:
    everything = symmetric(source.vocab_size, 0.0)
    tokens = source.draw(100, 12, np.random.default_rng(0)).tokens[:, 0]
    np.testing.assert_allclose(source.information(tokens, tokens, everything), -source.log_probs(tokens).sum(1))
    np.testing.assert_allclose(source.log_probs(tokens, everything), source.log_probs(tokens))


@every_channel
def test_symbols_come_as_often_as_the_channel_says(channel: Channel) -> None:
    np.testing.assert_allclose(channel.sum(1), 1)
    tokens = np.repeat(np.arange(3), 20_000)[None]
    symbols = through(channel, tokens, np.random.default_rng(0)).reshape(3, -1)
    for row, expected in zip(symbols, channel, strict=True):
        found = np.bincount(row, minlength=channel.shape[1]) / len(row)
        np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("make", [erasure, symmetric])
def test_what_is_no_probability_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"a probability lies in \[0, 1\], not 1.5"):
        make(4, 1.5)  # type: ignore[operator]
