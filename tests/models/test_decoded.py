import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm import TextAutoencoder
from memlm.data.texts import evaluation_documents
from memlm.models.autoencoder import Autoencoder
from memlm.models.decoded import Decoded, decode, num_regenerated
from tiny import randomized, tiny_model

VOCAB, LENGTH = 300, 16


def padded(texts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    lengths = torch.tensor([len(text) for text in texts])
    return tokens, torch.arange(LENGTH) < lengths[:, None]


def without_end_token() -> Autoencoder:
    return randomized(Autoencoder(tiny_model(shape=replace(tiny_model().shape, end_token=False)))).eval()


def distance(model: Autoencoder, memory: torch.Tensor, decoded: Decoded) -> torch.Tensor:
    with torch.no_grad():
        return (model.encoder(decoded.tokens, decoded.mask) - memory).square().mean((1, 2)).sqrt()


texts = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=LENGTH), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(texts)
def test_what_is_proven_is_right_and_what_is_right_is_proven(trained: TextAutoencoder, texts: list[list[int]]) -> None:
    tokens, mask = padded(texts)
    with torch.no_grad():
        memory = trained.model.encoder(tokens, mask)
    decoded = decode(trained.model, memory)
    right = (decoded.tokens == tokens).all(1) & (decoded.num_tokens == mask.sum(1))
    assert torch.equal(right, decoded.proven)
    assert not decoded.unsure[decoded.proven].any()
    assert not decoded.tokens[~decoded.mask].any()


@settings(max_examples=20, deadline=None)
@given(texts, st.booleans())
def test_a_search_only_comes_nearer(trained: TextAutoencoder, texts: list[list[int]], told: bool) -> None:
    model, (tokens, mask) = trained.model, padded(texts)
    with torch.no_grad():
        memory = model.encoder(tokens, mask)
        logits = model.decoder(memory)
    lengths = mask.sum(1) if told else num_regenerated(logits, VOCAB)
    first = Decoded(logits[..., :VOCAB].argmax(-1), lengths, logits[..., 0], mask[:, 0])
    first = first._replace(tokens=first.tokens * first.mask)
    found = decode(model, memory, mask.sum(1) if told else None)
    assert (distance(model, memory, found) <= distance(model, memory, first) + 1e-6).all()
    if told:
        assert torch.equal(found.num_tokens, mask.sum(1))
    assert torch.equal(found.proven, distance(model, memory, found) <= 2e-3)


def test_a_search_finds_a_token_that_is_a_little_less_likely(trained: TextAutoencoder) -> None:
    model, (tokens, mask) = trained.model, padded([[5, 6, 7], [40] * LENGTH])
    with torch.no_grad():
        memory = model.encoder(tokens, mask)
    head = model.decoder.head
    # A decoder that is sure of all but one place, where it prefers a wrong token by a little.
    right = torch.where(mask, tokens, VOCAB)
    logits = torch.nn.functional.one_hot(right, VOCAB + 1).float() * 9
    logits[0, 1, 99], logits[1, 3, 41] = 9.5, 9.5
    handle = head.register_forward_hook(lambda *_: logits.clone())
    try:
        decoded = decode(model, memory)
    finally:
        handle.remove()
    assert decoded.proven.all()
    assert torch.equal(decoded.tokens, tokens)
    assert decoded.margin[0, 1] == -0.5  # less likely, and right all the same
    assert decoded.margin[0, 0] == 9


def test_a_length_that_is_one_off_is_found(trained: TextAutoencoder) -> None:
    model, (tokens, mask) = trained.model, padded([[5, 6, 7], [8, 9]])
    with torch.no_grad():
        memory = model.encoder(tokens, mask)
    right = torch.where(mask, tokens, VOCAB)
    logits = torch.nn.functional.one_hot(right, VOCAB + 1).float() * 9
    logits[0, 2, VOCAB], logits[1, 2, 50] = 9.5, 9.5  # one too short, one too long
    handle = model.decoder.head.register_forward_hook(lambda *_: logits.clone())
    try:
        assert decode(model, memory).num_tokens.tolist() == [3, 2]
    finally:
        handle.remove()


@given(st.integers(0, 2**30))
def test_the_likeliest_length_is_its_naive_twin(seed: int) -> None:
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed)) * 3
    probabilities = (logits[..., 3] - logits[..., :3].amax(-1)).double().sigmoid()
    for row, found in zip(probabilities.tolist(), num_regenerated(logits, 3).tolist(), strict=True):
        chances = [
            sum(math.log(1 - end) for end in row[:length]) + sum(math.log(end) for end in row[length:])
            for length in range(6)
        ]
        assert chances[found] == pytest.approx(max(chances), abs=1e-4)


def test_a_margin_is_the_lead_over_the_next_likeliest(trained: TextAutoencoder) -> None:
    tokens, mask = padded([[1, 2, 3], [4]])
    with torch.no_grad():
        memory = trained.model.encoder(tokens, mask)
        logits = trained.model.decoder(memory)
    decoded = decode(trained.model, memory)
    for row in range(2):
        for place in range(LENGTH):
            own = int(decoded.tokens[row, place]) if decoded.mask[row, place] else VOCAB
            others = torch.cat([logits[row, place, :own], logits[row, place, own + 1 :]])
            assert decoded.margin[row, place] == pytest.approx(float(logits[row, place, own] - others.max()), abs=1e-5)


def test_a_model_without_an_end_token_is_told_the_length() -> None:
    model, (tokens, mask) = without_end_token(), padded([[1, 2, 3], [4] * LENGTH])
    with torch.no_grad():
        memory = model.encoder(tokens, mask)
    with pytest.raises(ValueError, match="do not hold their length: give num_tokens"):
        decode(model, memory)
    decoded = decode(model, memory, mask.sum(1))
    assert decoded.num_tokens.tolist() == [3, LENGTH]
    assert decoded.margin[0, 3:].isinf().all()


@pytest.mark.parametrize("end_token", [True, False])
def test_what_stands_at_the_padding_changes_no_memory(end_token: bool) -> None:
    model = Autoencoder(tiny_model(shape=replace(tiny_model().shape, end_token=end_token)))
    model = randomized(model).eval()
    tokens, mask = padded([[1, 2, 3], [4], []])
    other = torch.where(mask, tokens, 7)
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(tokens, mask), model.encoder(other, mask))


def test_an_end_token_makes_short_texts_as_strong_as_long_ones() -> None:
    model = randomized(Autoencoder(tiny_model())).eval()
    tokens, mask = padded([[1], [1] * LENGTH])
    filled = torch.where(mask, tokens, VOCAB)
    with torch.no_grad():
        hidden = model.encoder.embed(filled) + model.encoder.positions
        energy = model.encoder.pooling(model.encoder.stack(hidden), torch.ones_like(mask)).square().mean((1, 2)).sqrt()
    assert 0.5 < energy[0] / energy[1] < 2


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.2])
def test_a_guess_in_bf16_changes_nothing(
    noise: float, english: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = evaluation_documents("code")[0].text
    texts = [text[at : at + 3 * at % 500 + 1] for at in range(0, 20_000, 400)]
    memory = english.encode(texts)
    torch.manual_seed(0)
    vectors = english.readable(memory)
    vectors = vectors + noise * torch.randn_like(vectors)
    found = []
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr("memlm.models.decoded.precision_on", lambda device, answer=precision: answer)
        found.append(decode(english.model, vectors))
    exactly, guessed = found
    assert torch.equal(exactly.proven, guessed.proven)
    assert torch.equal(exactly.tokens, guessed.tokens)
    assert torch.equal(exactly.unsure, guessed.unsure)
    assert exactly.proven.all() == (noise == 0)
