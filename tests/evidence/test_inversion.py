from typing import Any

import pytest
import torch
from torch import Tensor

from memlm.config import Attention, LanguageModelConfig, MaskedMixer, StackConfig
from memlm.models.language_model import LanguageModel
from memlm_evidence.attacks.positions import Inversion, Recovered
from tiny import randomized

VOCAB, LENGTH, DIM, LAYERS = 60, 6, 32, 2
MIXERS = [Attention(num_heads=2), MaskedMixer(num_heads=2)]


def language_model(mixer: Attention | MaskedMixer = MIXERS[0]) -> LanguageModel:
    stack = StackConfig(dim=DIM, num_layers=LAYERS, mlp_ratio=2.0, mixer=mixer, causal=True)
    return randomized(LanguageModel(LanguageModelConfig(vocab_size=VOCAB, chunk_len=LENGTH, stack=stack)))


def text(seed: int, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


def states(model: LanguageModel, tokens: Tensor, layer: int) -> Tensor:
    embedded = model.embed_tokens(tokens[None]).detach()
    return model.states(embedded, torch.ones_like(tokens[None], dtype=torch.bool), [layer])[0][0].detach()


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


def test_positions_of_a_model_that_is_not_causal_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model()
    observed = states(model, text(0), 1)
    monkeypatch.setattr(LanguageModel, "causal", False)
    with pytest.raises(ValueError, match="not causal"):
        read_off(model, observed, 1)
