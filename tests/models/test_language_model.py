import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memlm import TextAutoencoder
from memlm.config import (
    Attention,
    AutoencoderConfig,
    LanguageModelConfig,
    MaskedMixer,
    Mixer,
    RecurrentMixer,
    StackConfig,
)
from memlm.data.chunks import Chunks
from memlm.data.tokenizer import Tokenizer
from memlm.models.language_model import LanguageModel
from memlm.text.checkpoint_folder import FORMATS, config_class
from memlm.text.language_model import TextLanguageModel, causal_nats
from memlm.text.memory_model import TextMemoryModel
from tiny import randomized

VOCAB, LENGTH, DIM, LAYERS = 300, 10, 16, 2
MIXERS: list[Mixer] = [Attention(num_heads=2), MaskedMixer(num_heads=2), RecurrentMixer(num_heads=2, kernel=2)]
CLOSE = {"rtol": 0.0, "atol": 1e-5}

every_mixer = pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.kind)


def language_model(mixer: Mixer = MIXERS[0], seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    stack = StackConfig(dim=DIM, num_layers=LAYERS, mlp_ratio=2.0, mixer=mixer, causal=True)
    return LanguageModel(LanguageModelConfig(vocab_size=VOCAB, chunk_len=LENGTH, stack=stack))


def texts(num_texts: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (num_texts, LENGTH), generator=torch.Generator().manual_seed(seed))


def whole(tokens: Tensor) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool)


def every_output(model: LanguageModel, tokens: Tensor, mask: Tensor) -> list[Tensor]:
    """The states of every layer, then the logits."""
    states = model.states(model.embed_tokens(tokens), mask, range(LAYERS + 1))
    return [output.detach() for output in (*states, model(tokens, mask))]


@every_mixer
def test_a_later_token_changes_no_earlier_state_or_logit(mixer: Mixer) -> None:
    model, tokens = randomized(language_model(mixer)), texts()
    before = every_output(model, tokens, whole(tokens))
    for place in range(LENGTH):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        for one, other in zip(before, every_output(model, changed, whole(tokens)), strict=True):
            torch.testing.assert_close(other[:, :place], one[:, :place], **CLOSE)
            assert (other[:, place] - one[:, place]).abs().amax(dim=-1).min() > 1e-3


@every_mixer
@pytest.mark.parametrize("layer", range(LAYERS + 1))
def test_an_untrained_models_states_depend_on_every_earlier_token_and_no_later_one(mixer: Mixer, layer: int) -> None:
    model, tokens = language_model(mixer), texts(1)
    embedded = model.embed_tokens(tokens).detach().requires_grad_()
    (states,) = model.states(embedded, whole(tokens), [layer])
    weights = torch.randn(DIM, generator=torch.Generator().manual_seed(1))
    for place in range(LENGTH):
        (gradient,) = torch.autograd.grad((states[0, place] * weights).sum(), embedded, retain_graph=True)
        strength = gradient[0].norm(dim=-1)
        assert torch.all(strength[place + 1 :] == 0)
        assert strength[place] > 0
        # The token embeddings themselves know nothing of each other.
        assert torch.all(strength[:place] > 1e-4) if layer else torch.all(strength[:place] == 0)


@every_mixer
def test_a_shorter_text_is_the_beginning_of_a_longer_one(mixer: Mixer) -> None:
    model, tokens = randomized(language_model(mixer)), texts()
    longer = every_output(model, tokens, whole(tokens))
    for length in range(1, LENGTH):
        shorter = every_output(model, tokens[:, :length], whole(tokens[:, :length]))
        for one, other in zip(shorter, longer, strict=True):
            torch.testing.assert_close(one, other[:, :length], **CLOSE)


@every_mixer
def test_what_stands_at_the_padding_changes_nothing_at_the_text(mixer: Mixer) -> None:
    model, tokens = randomized(language_model(mixer)), texts()
    mask = torch.arange(LENGTH) < torch.tensor([LENGTH, 1, 6])[:, None]
    padded = torch.where(mask, tokens, texts(seed=1))
    assert not torch.equal(padded, tokens)
    alone = [every_output(model, tokens[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(dim=1))]
    for number, output in enumerate(every_output(model, padded, mask)):
        for row, own in enumerate(alone):
            torch.testing.assert_close(output[row][mask[row]], own[number][0], **CLOSE)


@every_mixer
def test_the_head_reads_the_last_layers_states(mixer: Mixer) -> None:
    model, tokens = randomized(language_model(mixer)), texts()
    (states,) = model.states(model.embed_tokens(tokens), whole(tokens), [model.num_layers])
    torch.testing.assert_close(model.head(states), model(tokens, whole(tokens)), **CLOSE)


def test_layers_come_in_the_order_they_are_asked_for() -> None:
    model, tokens = randomized(language_model()), texts()
    forward = every_output(model, tokens, whole(tokens))[:-1]
    asked = [LAYERS, 0, 1, 0]
    for layer, states in zip(asked, model.states(model.embed_tokens(tokens), whole(tokens), asked), strict=True):
        assert torch.equal(states, forward[layer])
    assert torch.equal(model.embed_tokens(tokens), model.token_table[tokens])


def test_a_text_that_is_too_long_is_refused() -> None:
    model, tokens = language_model(), torch.zeros(1, LENGTH + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=f"at most {LENGTH} tokens, not {LENGTH + 1}"):
        model(tokens, whole(tokens))
    with pytest.raises(ValueError, match=f"at most {LENGTH} tokens, not {LENGTH + 1}"):
        model.states(model.embed_tokens(tokens), whole(tokens), [0])


def test_a_stack_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ValueError, match="must be causal"):
        LanguageModelConfig(vocab_size=VOCAB, chunk_len=LENGTH, stack=StackConfig(dim=DIM))


def test_held_out_nats_are_those_of_the_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = randomized(language_model()), texts(5)
    mask = torch.arange(LENGTH) < torch.tensor([LENGTH, 1, 2, 7, LENGTH])[:, None]
    chunks = Chunks(tokens.numpy(), mask.numpy(), np.zeros(5, dtype=np.int64))
    with torch.no_grad():
        logits = model(tokens, mask)
    expected = [
        [float(F.cross_entropy(logits[row, i], tokens[row, i + 1])) if mask[row, i + 1] else 0.0 for i in range(9)]
        for row in range(5)
    ]
    np.testing.assert_allclose(causal_nats(model, chunks), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("memlm.text.language_model.batch_chunks", lambda *_: 2)
    np.testing.assert_allclose(causal_nats(model, chunks), expected, rtol=1e-4, atol=1e-5)


# --- with its tokenizer, on disk ---


@pytest.fixture
def text_model(trained: TextAutoencoder) -> TextLanguageModel:
    return TextLanguageModel(randomized(language_model()), trained.tokenizer, {"made": "here"})


@every_mixer
def test_loading_gives_back_the_language_model_that_was_saved(
    mixer: Mixer, trained: TextAutoencoder, tmp_path: Path
) -> None:
    saved = TextLanguageModel(randomized(language_model(mixer)), trained.tokenizer, {"made": "here"})
    saved.save_pretrained(tmp_path / "model")
    loaded, tokens = TextLanguageModel.from_pretrained(tmp_path / "model"), texts()
    assert torch.equal(loaded.model(tokens, whole(tokens)), saved.model(tokens, whole(tokens)))
    assert loaded.model.config == saved.model.config
    assert loaded.tokenizer.fingerprint == saved.tokenizer.fingerprint
    assert loaded.provenance["made"] == "here"
    assert not loaded.model.training


def test_a_folder_of_the_other_kind_is_refused_with_the_reason(
    text_model: TextLanguageModel, finished_run: Path, tmp_path: Path
) -> None:
    text_model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="'memlm language model', not 'memlm autoencoder'; open it with `memlm probe"):
        TextAutoencoder.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"to write with a recurrent one, memlm\.models\.srm\.SrmForCausalLM\.of"):
        TextMemoryModel.from_pretrained(tmp_path / "model")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "structured_recurrent"}', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"holds a structured_recurrent model of transformers: open it with AutoModelForC"
    ):
        TextMemoryModel.from_pretrained(other)
    with pytest.raises(
        ValueError, match=r"holds 'memlm autoencoder', not 'memlm language model'; open it with memlm\.load"
    ):
        TextLanguageModel.from_pretrained(finished_run / "model")


def test_a_folder_says_of_what_kind_it_is(text_model: TextLanguageModel, finished_run: Path, tmp_path: Path) -> None:
    text_model.save_pretrained(tmp_path / "model")
    assert config_class(tmp_path / "model") is LanguageModelConfig
    assert config_class(str(finished_run / "model")) is AutoencoderConfig
    assert config_class("english") is AutoencoderConfig
    (tmp_path / "other").mkdir()
    for nothing in (tmp_path / "other", tmp_path / "nowhere", "user/nosuchmodel"):
        assert config_class(nothing) is None
    (tmp_path / "other" / "provenance.json").write_text(json.dumps({"format": "another"}))
    assert config_class(tmp_path / "other") is None
    assert len(set(FORMATS.values())) == len(FORMATS)


def test_weights_that_do_not_fit_the_language_model_are_named(text_model: TextLanguageModel, tmp_path: Path) -> None:
    text_model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace(f'"chunk_len": {LENGTH}', f'"chunk_len": {LENGTH + 1}'))
    with pytest.raises(ValueError, match=r"do not fit config\.json.*positions"):
        TextLanguageModel.from_pretrained(tmp_path / "model")


def test_a_tokenizer_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="256 types, the model 300"):
        TextLanguageModel(language_model(), Tokenizer.train([], 256), {})
