from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from memlm.config import Attention, LanguageModelConfig, MaskedMixer, StackConfig
from memlm.models.language_model import LanguageModel
from memlm_evidence.attacks.positions import Inversion, Recovered
from memlm_evidence.attacks.search import Found, Search
from tiny import randomized

VOCAB, LENGTH, DIM, LAYERS = 60, 6, 32, 2
MIXERS = [Attention(num_heads=2), MaskedMixer(num_heads=2)]
OPTIONS: dict[str, Any] = {"num_steps": 60, "num_candidates": 64, "top_k": 16, "patience": 20}


def language_model(mixer: Attention | MaskedMixer = MIXERS[0]) -> LanguageModel:
    stack = StackConfig(dim=DIM, num_layers=LAYERS, mlp_ratio=2.0, mixer=mixer, causal=True)
    return randomized(LanguageModel(LanguageModelConfig(vocab_size=VOCAB, chunk_len=LENGTH, stack=stack)))


def text(seed: int, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


def states(model: LanguageModel, tokens: Tensor, layer: int) -> Tensor:
    embedded = model.embed_tokens(tokens[None]).detach()
    return model.states(embedded, torch.ones_like(tokens[None], dtype=torch.bool), [layer])[0][0].detach()


def last_state(model: LanguageModel, embedded: Tensor) -> Tensor:
    return model.states(embedded, torch.ones(embedded.shape[:2], dtype=torch.bool), [LAYERS])[0][:, -1]


def half_right(tokens: Tensor, seed: int) -> Tensor:
    """Two starts, every other token of each redrawn."""
    wrong = text(seed + 100, 2 * len(tokens)).view(2, -1)
    return torch.where(torch.arange(len(tokens)) % 2 == torch.arange(2)[:, None], wrong, tokens)


def find(model: LanguageModel, tokens: Tensor, start: Tensor, **options: Any) -> Found:
    embed, target = partial(last_state, model), states(model, tokens, LAYERS)[-1]
    return Search(embed=embed, token_table=model.token_table, target=target, **OPTIONS | options).find(start)


def read_off(model: LanguageModel, observed: Tensor, layer: int, **options: Any) -> Recovered:
    return Inversion(model=model, states=observed, layer=layer, **options).recover()


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.kind)
@pytest.mark.parametrize("layer", range(LAYERS + 1))
def test_every_token_is_read_off_the_states_of_any_layer(mixer: Attention | MaskedMixer, layer: int) -> None:
    model, tokens = language_model(mixer), text(layer)
    for batch in (VOCAB, 8):  # all candidates at once; those that gradient descent leads to
        read = read_off(model, states(model, tokens, layer), layer, batch=batch, num_rounds=6)
        assert torch.equal(read.tokens, tokens)
        assert read.verified.all()
        assert read.num_encodings >= LENGTH * min(batch, 8)


def test_descent_needs_fewer_encodings_than_trying_all() -> None:
    model, tokens = language_model(), text(0)
    observed = states(model, tokens, LAYERS)
    led = read_off(model, observed, LAYERS, batch=4, num_steps=5)
    assert led.num_encodings < read_off(model, observed, LAYERS).num_encodings


def test_a_corrupted_state_is_not_verified() -> None:
    model, tokens = language_model(), text(0)
    observed = states(model, tokens, 1)
    observed[3] += 0.3 * torch.randn(DIM, generator=torch.Generator().manual_seed(0))
    read = read_off(model, observed, 1)
    assert read.verified.tolist()[:4] == [True, True, True, False]
    assert torch.equal(read.tokens[:3], tokens[:3])


def test_only_allowed_tokens_are_read() -> None:
    model, tokens = language_model(), text(0)
    read = read_off(model, states(model, tokens, 1), 1, allowed=torch.tensor([5, tokens[0].item(), 5]))
    assert set(read.tokens.tolist()) <= {5, tokens[0].item()}
    assert read.verified[0]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.kind)
def test_search_finds_the_text_behind_its_last_state(mixer: Attention | MaskedMixer) -> None:
    model = language_model(mixer)
    for seed, length in enumerate((4, 5, 6)):
        tokens = text(seed, length)
        found = find(model, tokens, half_right(tokens, seed))
        assert torch.equal(found.tokens, tokens)
        assert found.exact
        target = states(model, tokens, LAYERS)[-1]
        again = last_state(model, model.embed_tokens(found.tokens[None]))[0]
        assert (again - target).norm() <= Search.tolerance * target.norm()


def test_search_never_ends_farther_than_it_began_and_repeats_itself() -> None:
    model, tokens = language_model(), text(7)
    start = text(8, 3 * LENGTH).view(3, -1)
    few = {"num_steps": 4, "patience": 1, "num_candidates": 4}
    found, again = (find(model, tokens, start, **few) for _ in range(2))
    target = states(model, tokens, LAYERS)[-1]
    distances = (last_state(model, model.embed_tokens(start)) - target).norm(dim=-1) / target.norm()
    assert found.distance <= distances.min().item() + 1e-6
    assert not found.exact
    assert torch.equal(found.tokens, again.tokens)
    assert found[1:] == again[1:]


def test_a_readers_proposals_help_along() -> None:
    model, tokens = language_model(), text(9)
    proposals = torch.stack((text(10), tokens), dim=1)
    found = find(model, tokens, text(10)[None], proposals=proposals)
    assert torch.equal(found.tokens, tokens)
    assert find(model, tokens, tokens[None]).num_encodings == 2  # there already


def test_positions_of_a_model_that_is_not_causal_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model()
    observed = states(model, text(0), 1)
    monkeypatch.setattr(LanguageModel, "causal", False)
    with pytest.raises(ValueError, match="not causal"):
        read_off(model, observed, 1)
