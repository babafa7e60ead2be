import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memlm import TextAutoencoder
from memlm.config import Attention, LanguageModelConfig, ReadingConfig, StackConfig
from memlm.models.language_model import LanguageModel
from memlm.probing.encoders import MemoryEncoder, StateEncoder
from memlm.probing.inversion.embedder import Embedder
from memlm.probing.inversion.search import Search
from memlm.probing.results import View
from memlm.probing.transform import Transform
from memlm.runtime.results import Interval
from memlm_evidence import settle
from memlm_evidence.attacks.positions import Inversion
from memlm_evidence.attacks.results import AttackRow, SettleResult, claim_of, verdict_of
from memlm_evidence.attacks.states import StateEmbedder
from tiny import SENTENCE, randomized

READING = ReadingConfig(num_steps=10, max_chunks=300, test_chunks=40)
RESULTS = Path(__file__).parents[2] / "docs" / "results"


def texts() -> list[str]:
    rng, words = random.Random(2), SENTENCE.split()
    return [" ".join(rng.choice(words) for _ in range(120)) for _ in range(60)]


class Shelf:
    """A causal model whose state at each position holds the embeddings of the last so many tokens side by side, and so
    all of a short text; or, if it keeps none, one number."""

    num_layers, max_len, num_prefix, causal = 1, 64, 0, True

    def __init__(self, kept: int) -> None:
        self.kept, self.fingerprint = kept, f"shelf {kept}"
        drawn = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        self.token_table = torch.nn.functional.normalize(drawn, dim=-1)
        self.dim = 8 * max(1, kept)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.token_table[tokens]

    def states(self, embedded: Tensor, mask: Tensor, layers: Sequence[int]) -> list[Tensor]:
        shifted = [
            torch.nn.functional.pad(embedded, (0, 0, back, 0))[:, : embedded.shape[1]] for back in range(self.kept)
        ]
        last = torch.cat(shifted, dim=-1) if shifted else 0 * embedded + 1
        return [(embedded, last)[layer] for layer in layers]

    def untrained(self, seed: int) -> "Shelf":
        return self


def settled(model: Any, trained: TextAutoencoder, cache: Path, **settings: Any) -> SettleResult:
    encoder = StateEncoder(model, trained.tokenizer, name="tiny")
    usual = {"chunk_lens": (4,), "num_texts": 3, "encodings": 3000, "readers": ("parallel",), "reading": READING}
    return settle(encoder, texts(), train_texts=texts(), cache=cache, **usual | settings)


@pytest.fixture(scope="module")
def result(trained: TextAutoencoder, tmp_path_factory: pytest.TempPathFactory) -> SettleResult:
    stack = StackConfig(dim=32, num_layers=2, mlp_ratio=2.0, mixer=Attention(num_heads=2), causal=True)
    model = randomized(LanguageModel(LanguageModelConfig(vocab_size=300, chunk_len=8, stack=stack)))
    cache = tmp_path_factory.mktemp("settle")
    return settled(model.eval(), trained, cache, chunk_lens=(3, 6), readers=("parallel", "linear"), encodings=500)


def test_every_attack_says_what_it_was_given_and_what_it_found(result: SettleResult) -> None:
    again = SettleResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert (again.attacks, again.claims, again.verdict) == (result.attacks, result.claims, result.verdict)
    names = ["parallel reader", "linear reader", "search", "positions"]
    assert [(row.chunk_len, row.attack) for row in result.attacks] == [(at, name) for at in (3, 6) for name in names]
    for row in result.attacks:
        assert row.given
        assert row.knows
        assert 0 <= row.exact_match <= row.token_accuracy <= 1


def test_all_states_give_the_text_back_and_the_attacker_can_tell(result: SettleResult) -> None:
    for positions in result.attacks[3::4]:
        assert positions.given.startswith(f"all {positions.chunk_len} states")
        assert positions.token_accuracy == positions.verified_fraction == 1


def test_search_stays_within_its_budget(result: SettleResult) -> None:
    for search in result.attacks[2::4]:
        assert search.encodings_per_text is not None
        assert search.encodings_per_text < 500 + 300  # what one round takes


def test_a_state_that_holds_the_text_refutes_the_claim(trained: TextAutoencoder, tmp_path: Path) -> None:
    result = settled(Shelf(8), trained, tmp_path)
    assert result.claims == {4: "refuted"}
    assert result.attacks[1].num_found == 3
    assert "refuted at 4 tokens, within 3,000 encodings" in result.verdict
    assert "held all 4 tokens of 3 of 3 texts" in result.verdict


def test_what_was_recovered_is_kept(trained: TextAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settled(Shelf(8), trained, tmp_path, encodings=300)
    monkeypatch.setattr(Search, "run", None)
    monkeypatch.setattr(Inversion, "recover", None)
    assert settled(Shelf(8), trained, tmp_path, encodings=300).attacks == first.attacks
    with pytest.raises(TypeError):
        settled(Shelf(8), trained, tmp_path, encodings=301)


def test_a_rounded_state_may_hold_it_still(trained: TextAutoencoder, tmp_path: Path) -> None:
    result = settled(Shelf(8), trained, tmp_path, bits=6)
    assert result.claims == {4: "refuted"}
    assert "float32, rounded to 6 bits" in result.verdict
    assert result.attacks[1].given == "one vector, float32, rounded to 6 bits"
    assert result.attacks[2].given == "all 4 states of layer 1, float32"


def test_a_state_that_holds_nothing_withstands(trained: TextAutoencoder, tmp_path: Path) -> None:
    result = settled(Shelf(0), trained, tmp_path, encodings=500)
    assert (result.claim, result.attacks[1].num_found) == ("withstood", 0)
    assert result.attacks[0].retained_bits_per_token == 0
    assert "withstood at 4 tokens" in result.verdict
    assert "gave none of 3 texts" in result.verdict
    assert "undecided" not in result.verdict


def test_a_state_that_holds_the_end_alone_withstands_where_the_text_is_longer(
    trained: TextAutoencoder, tmp_path: Path
) -> None:
    result = settled(Shelf(3), trained, tmp_path, chunk_lens=(2, 5))
    assert result.claims == {2: "refuted", 5: "withstood"}
    assert result.claim == "refuted"
    assert "refuted at 2 tokens and withstood at 5 tokens" in result.verdict


def test_the_gradient_names_the_token_that_is_missing(trained: TextAutoencoder) -> None:
    tokens = torch.randint(300, (400, 4), generator=torch.Generator().manual_seed(1))
    encoder = StateEncoder(Shelf(4), trained.tokenizer, name="tiny")  # type: ignore[arg-type]  # as one would have it
    view = encoder.resolve(View(-1, "last"), 4)
    transform = Transform(encoder.embed(tokens, torch.ones_like(tokens, dtype=torch.bool), [view])[0].numpy())
    embedder = StateEmbedder(encoder, view, transform, torch.arange(300))
    text = tuple(tokens[0].tolist())
    (target,) = embedder.embed([text])
    for wrong in (text, (*text[:2], 7, text[3])):
        missing = embedder.without(wrong, target)
        assert missing.gains is not None
        assert text[2] in missing.gains[2].topk(5).indices
    assert Embedder.without(embedder, text, target).gains is None


@pytest.mark.parametrize(
    ("found", "low", "claim"),
    [(0, 0.2, "withstood"), (1, 0.2, "refuted"), (None, 0.5, "withstood"), (0, 0.95, "refuted")],
)
def test_one_text_or_nearly_all_tokens_refute(found: int | None, low: float, claim: str) -> None:
    about: dict[str, Any] = {"knows": "", "given": "", "num_texts": 8, "token_accuracy": 0.5, "exact_match": 0.5}
    reader = AttackRow(attack="reader", num_vectors=1, intervals={"token_accuracy": Interval(low, 1.0)}, **about)
    search = AttackRow(attack="search", num_vectors=1, num_found=found, **about)
    together = AttackRow(attack="positions", num_vectors=4, num_found=8, **about)
    assert claim_of([reader, search, together]) == claim


def test_bits_over_a_language_models_prior_are_told_apart() -> None:
    about: dict[str, Any] = {"knows": "", "given": "", "num_texts": 8, "token_accuracy": 0.5, "exact_match": 0.0}
    readers = [
        AttackRow(attack=f"{kind} reader", retained_bits_per_token=bits, **about)
        for kind, bits in (("parallel", 2.0), ("linear", 1.0), ("pretrained", 0.5))
    ]
    search, together = (AttackRow(attack=name, num_found=0, **about) for name in ("search", "positions"))
    verdict = verdict_of("tiny", "float32", 1000, {16: [*readers, search, together]})
    assert "0.50 bits a token over a language model's own prior (pretrained reader" in verdict
    assert "2.00 bits a token over what a reader knows without it (parallel reader" in verdict
    assert "linear" not in verdict


def test_results_of_older_versions_are_read() -> None:
    old = SettleResult.from_dict(json.loads((RESULTS / "settle-smollm2.json").read_text()))
    assert (old.claim, old.claims) == ("stands", {})
    assert all(row.num_found is None for row in old.attacks)


def test_what_is_no_causal_model_is_refused(trained: TextAutoencoder, tmp_path: Path) -> None:
    ours = MemoryEncoder(trained.model.encoder, trained.tokenizer, name="ours")
    with pytest.raises(ValueError, match="ours is no causal language model"):
        settle(ours, texts(), cache=tmp_path)
