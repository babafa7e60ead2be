"""Sources are what their formulas say: checked by enumeration and against textbook values."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from memlm_evidence.known_sources.sources import (
    Lookup,
    even_process,
    golden_mean,
    independent,
    markov,
    random_markov,
    random_unifilar,
    uniform,
    zipf,
)
from memlm_evidence.known_sources.unifilar import Unifilar

SOURCES = [
    uniform(4),
    zipf(5),
    random_markov(3, 1),
    random_markov(2, 3),
    golden_mean(),
    even_process(),
    random_unifilar(3, 2),
    random_unifilar(4, 3, seed=1),
]
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)


def enumerated(source: Unifilar, length: int) -> tuple[np.ndarray, np.ndarray]:
    """All texts, and the log-probabilities of their tokens."""
    texts = np.array(list(itertools.product(range(source.vocab_size), repeat=length)))
    return texts, source.log_probs(texts)


def excess_entropy(source: Unifilar) -> float:
    """I(past; future): what block entropies tend to above n·h."""
    return source.block_entropy(100) - 100 * source.entropy_rate


@every_source
def test_probabilities_and_block_entropies_are_those_of_all_texts(source: Unifilar) -> None:
    for length in (1, 4, 6):
        nats = enumerated(source, length)[1].sum(1)
        possible = np.exp(nats)
        assert possible.sum() == pytest.approx(1, abs=1e-12)
        kept = possible > 0
        assert source.block_entropy(length) == pytest.approx(-(possible[kept] * nats[kept]).sum(), abs=1e-10)


@every_source
def test_an_oracle_pays_the_entropy_rate(source: Unifilar) -> None:
    """What it pays in the long run, summed over all texts, is h."""
    far = 12 if source.vocab_size == 2 else 6
    nats = enumerated(source, far)[1]
    known = np.exp(nats[:, :-1].sum(1))
    with np.errstate(invalid="ignore"):
        last = np.nansum(-known * np.exp(nats[:, -1]) * nats[:, -1])
    longer = source.block_entropy(100) - source.block_entropy(99)
    assert longer == pytest.approx(source.entropy_rate, abs=1e-6)
    assert last >= source.entropy_rate - 1e-9
    assert last == pytest.approx(source.block_entropy(far) - source.block_entropy(far - 1), abs=1e-9)


@every_source
def test_blocks_have_no_more_above_the_rate_than_the_state(source: Unifilar) -> None:
    assert -1e-9 <= excess_entropy(source) <= source.state_entropy + 1e-9


def test_textbook_values() -> None:
    golden, even = golden_mean(), even_process()
    assert golden.entropy_rate == pytest.approx(2 / 3 * math.log(2))
    assert golden.state_entropy == even.state_entropy == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert excess_entropy(golden) == pytest.approx(math.log(3) - 4 / 3 * math.log(2))
    assert excess_entropy(even) == pytest.approx(even.state_entropy, abs=1e-9)  # Crutchfield & Feldman 2003
    assert uniform(8).entropy_rate == pytest.approx(math.log(8))
    assert uniform(8).state_entropy == 0
    assert excess_entropy(uniform(8)) == pytest.approx(0, abs=1e-9)


def test_a_chain_knows_its_last_tokens() -> None:
    source = random_markov(3, 2)
    assert source.state_entropy == pytest.approx(source.block_entropy(2))
    assert source.block_entropy(9) == pytest.approx(source.block_entropy(2) + 7 * source.entropy_rate)


def test_states_after_which_everything_is_equally_likely_are_one() -> None:
    flat = np.full((2, 2, 2), 0.5)
    assert markov("coin in disguise", flat).state_entropy == 0
    flat[:, 1] = [0.9, 0.1]  # depends on the last token alone
    assert len(set(markov("order 1 in disguise", flat).causal_state)) == 2


@every_source
def test_what_is_drawn_has_these_probabilities_and_states(source: Unifilar) -> None:
    drawn = source.draw(20_000, 3, np.random.default_rng(0))
    whole = drawn.tokens.reshape(len(drawn.tokens), -1)
    nats = source.log_probs(whole).sum(1)
    assert np.isfinite(nats).all()
    error = nats.std() / math.sqrt(len(nats))
    assert abs(-nats.mean() - source.block_entropy(6)) < 5 * error + 1e-9
    counts = np.bincount(drawn.state[:, 0]) / len(whole)
    expected = np.bincount(source.causal_state, weights=source.stationary)
    assert np.abs(counts - expected).max() < 0.02


def test_answers_to_questions_are_known_and_nothing_else_is() -> None:
    source = Lookup(num_values=8, num_asked=4)
    drawn = source.draw(50, 6, np.random.default_rng(0))
    nats = source.log_probs(drawn.tokens)
    np.testing.assert_allclose(nats[:, 0], -math.log(8))
    np.testing.assert_allclose(nats[:, 1], np.tile([-math.log(4), 0.0], (50, 3)))
    assert -nats[:, 1].mean() == pytest.approx(source.entropy_rate)
    assert (drawn.state == drawn.tokens[:, 0, :4]).all()
    wrong = drawn.tokens.copy()
    wrong[:, 1, 1] = (wrong[:, 1, 1] + 1) % 8
    assert (source.log_probs(wrong)[:, 1, 1] == -np.inf).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: independent("bent", np.array([0.5, 0.6])), r"bent: the token probabilities of state 0 are no distrib"),
        (lambda: independent("bent", np.array([1.5, -0.5])), "no distribution"),
        (lambda: markov("two rooms", np.eye(2)), "two rooms is reducible: state 1 cannot be reached from state 0"),
        (lambda: Unifilar("lost", np.ones((1, 1)), np.array([[3]])), "next_state must name one of 1 states"),
        (lambda: Lookup(num_values=1, num_asked=1), "two values and a place to ask about, not 1 and 1"),
        (lambda: Lookup(4, 8).draw(1, 6, np.random.default_rng()), "have the 8 places"),
    ],
)
def test_what_is_no_source_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_periodic_source_has_its_entropies() -> None:
    clock = markov("clock", np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert clock.entropy_rate == pytest.approx(0)
    assert excess_entropy(clock) == clock.state_entropy == pytest.approx(math.log(2))


def test_beliefs_that_are_too_many_to_follow_cost_no_more_than_what_they_leave_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = random_unifilar(4, 3, seed=1)
    exact = source.block_entropy(12)
    monkeypatch.setattr("memlm_evidence.known_sources.unifilar._MAX_BELIEFS", 400)
    source = replace(source)  # nothing is known of it yet
    assert source.block_entropy(12) == pytest.approx(exact, rel=0.01)
    assert 12 * source.entropy_rate < source.block_entropy(12) < exact
