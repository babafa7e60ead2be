import json
import random
from pathlib import Path

import pytest

from memlm import TextAutoencoder
from memlm.config import Attention, LanguageModelConfig, ReadingConfig, StackConfig
from memlm.models.language_model import LanguageModel
from memlm.probing.encoders import MemoryEncoder, StateEncoder
from memlm.runtime.results import Interval
from memlm_evidence import settle
from memlm_evidence.attacks.results import AttackRow, SettleResult, claim_of
from tiny import SENTENCE, randomized

READING = ReadingConfig(num_steps=10, max_chunks=200, test_chunks=40)


def texts() -> list[str]:
    rng, words = random.Random(2), SENTENCE.split()
    return [" ".join(rng.choice(words) for _ in range(120)) for _ in range(60)]


@pytest.fixture(scope="module")
def result(trained: TextAutoencoder, tmp_path_factory: pytest.TempPathFactory) -> SettleResult:
    stack = StackConfig(dim=32, num_layers=2, mlp_ratio=2.0, mixer=Attention(num_heads=2), causal=True)
    model = randomized(LanguageModel(LanguageModelConfig(vocab_size=300, chunk_len=8, stack=stack)))
    encoder = StateEncoder(model.eval(), trained.tokenizer, name="tiny")
    cache = tmp_path_factory.mktemp("settle")
    return settle(encoder, texts(), cache=cache, chunk_len=4, num_texts=4, search_steps=30, reading=READING)


def test_every_attack_says_what_it_was_given_and_what_it_found(result: SettleResult) -> None:
    again = SettleResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert (again.attacks, again.verdict) == (result.attacks, result.verdict)
    names = ["parallel reader", "linear reader", "autoregressive reader", "search", "positions"]
    assert [row.attack for row in result.attacks] == names
    for row in result.attacks:
        assert row.given
        assert row.knows
        assert 0 <= row.exact_match <= row.token_accuracy <= 1


def test_all_states_give_the_text_back_and_the_attacker_can_tell(result: SettleResult) -> None:
    positions = result.attacks[-1]
    assert positions.given.startswith("all 4 states")
    assert positions.token_accuracy == positions.verified_fraction == 1


def test_search_finds_no_less_than_it_set_out_from(result: SettleResult) -> None:
    found = result.attacks[-2]
    assert found.token_accuracy >= found.start_token_accuracy - 0.25
    assert found.exact_fraction <= found.exact_match + 1e-9  # a verified text is the right one


def test_the_verdict_names_the_strongest_attack_on_one_vector(result: SettleResult) -> None:
    best = max(row.token_accuracy for row in result.attacks[:-1])
    assert f"{best:.1%}" in result.verdict


@pytest.mark.parametrize(
    ("intervals", "claim"),
    [
        ([(0.05, 0.1), (0.02, 0.14)], "stands"),
        ([(0.05, 0.1), (0.02, 0.16)], "undecided"),
        ([(0.05, 0.1), (0.85, 1.0)], "undecided"),
        ([(0.05, 0.1), (0.95, 1.0)], "refuted"),
        ([(0.05, 0.1), None], "undecided"),  # one text tells nothing of others
    ],
)
def test_a_claim_needs_intervals_on_its_side(intervals: list[tuple[float, float] | None], claim: str) -> None:
    about = {"knows": "", "given": "", "num_texts": 8, "token_accuracy": 0.5, "exact_match": 0.5}
    attacks = [
        AttackRow(
            attack="search", num_vectors=1, intervals={"token_accuracy": Interval(*each)} if each else {}, **about
        )
        for each in intervals
    ]
    reference = AttackRow(attack="positions", intervals={"token_accuracy": Interval(1.0, 1.0)}, **about)
    assert claim_of([*attacks, reference]) == claim


def test_what_is_no_causal_model_is_refused(trained: TextAutoencoder, tmp_path: Path) -> None:
    ours = MemoryEncoder(trained.model.encoder, trained.tokenizer, name="ours")
    with pytest.raises(ValueError, match="ours is no causal language model"):
        settle(ours, texts(), cache=tmp_path)
