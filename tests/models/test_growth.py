import re
from dataclasses import replace

import pytest
import torch

from memlm.config import Attention, AutoencoderConfig, LastToken, MemoryShape
from memlm.models.autoencoder import Autoencoder
from memlm.models.growth import grow, shrunk
from tiny import randomized, tiny_model


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_grown_model_is_copies_side_by_side(factor: int) -> None:
    cfg = tiny_model()
    short = randomized(Autoencoder(shrunk(cfg, 16 // factor))).eval()
    grown = grow(short, cfg).eval()
    assert short.config.shape == replace(cfg.shape, chunk_len=16 // factor, memory_dim=32 // factor)
    tokens = torch.randint(301, (3, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 16, dtype=torch.bool)
    parts = tokens.view(3 * factor, -1), mask.view(3 * factor, -1)

    # Before the norm, a memory is its parts' memories; the norm is over all of it.
    raw = [
        model.encoder.pooling(model.encoder.stack(hidden, seen), seen)
        for model, hidden, seen in (
            (grown, grown.encoder.embed(tokens) + grown.encoder.positions, mask),
            (short, short.encoder.embed(parts[0]) + short.encoder.positions, parts[1]),
        )
    ]
    torch.testing.assert_close(raw[0].view(3, -1), raw[1].reshape(3, -1), rtol=1e-4, atol=1e-4)

    memories = torch.randn(3 * factor, 1, 32 // factor)
    logits = grown.decoder(memories.view(3, 1, 32))
    torch.testing.assert_close(logits, short.decoder(memories).view(3, 16, 301), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("cfg", "chunk_len", "message"),
    [
        (tiny_model(), 5, "chunks of 5 tokens cannot grow into 16"),
        (tiny_model(shape=MemoryShape(vocab_size=300, chunk_len=16, memory_dim=30)), 4, "16 tokens in 30 dimensions"),
        (tiny_model(pooling=LastToken()), 8, "last_token cannot be grown"),
        (tiny_model(encoder=replace(tiny_model().encoder, mixer=Attention(num_heads=2))), 8, "attention cannot be"),
        (tiny_model(decoder=replace(tiny_model().decoder, causal=True)), 8, "not causal"),
        (tiny_model(shape=MemoryShape(vocab_size=300, chunk_len=16, memory_dim=32, num_slots=2)), 8, "num_slots 1"),
    ],
)
def test_what_cannot_grow_is_refused(cfg: AutoencoderConfig, chunk_len: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        shrunk(cfg, chunk_len)


def test_a_model_grows_into_its_own_kind_only() -> None:
    short = Autoencoder(shrunk(tiny_model(), 8))
    with pytest.raises(ValueError, match="differs from the grown one in more than its chunk length"):
        grow(short, tiny_model(memory_noise=0.5))
