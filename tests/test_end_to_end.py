"""The claim in small: real text goes into vectors and comes back, and the measures say how much of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from memlm.config import RecipeConfig
from memlm.data.chunks import cut
from memlm.data.token_store import TokenSplit, prepare
from memlm.evaluation.information import retained_bits
from memlm.objectives import Batch, token_nats
from memlm.models.autoencoder import Autoencoder, Regeneration
from memlm.recipes import autoencoder
from memlm.text_autoencoder import TextAutoencoder
from memlm.training.run import train_autoencoder


@pytest.fixture(scope="module")
def small() -> RecipeConfig:
    """Our recipe on the default corpus: 16 tokens in 128 dimensions."""
    return autoencoder(chunk_len=16, memory_dim=128, num_tokens=150_000)


@pytest.fixture(scope="module")
def model(small: RecipeConfig, tmp_path_factory: pytest.TempPathFactory) -> TextAutoencoder:
    return train_autoencoder(small, tmp_path_factory.mktemp("end_to_end") / "run", quiet=True)


@pytest.fixture(scope="module")
def held_out(small: RecipeConfig) -> TokenSplit:
    return prepare(small.data, quiet=True).splits["test"]


def test_held_out_text_comes_back(model: TextAutoencoder, held_out: TokenSplit) -> None:
    result = model.evaluate_split(held_out, name="held_out")
    print(result.to_dict())
    assert result.token_accuracy > 0.9


def test_an_untrained_models_memories_give_nothing_back(
    small: RecipeConfig, model: TextAutoencoder, held_out: TokenSplit
) -> None:
    torch.manual_seed(0)
    untrained = TextAutoencoder(Autoencoder(small.model), model.tokenizer, model.unconditional, {})
    result = untrained.evaluate_split(held_out, name="untrained")
    print(result.to_dict())
    assert result.token_accuracy < 0.02


def test_shuffled_memories_tell_nothing(model: TextAutoencoder, held_out: TokenSplit) -> None:
    chunks = cut(held_out, 16, max_chunks=500)
    batch = Batch(torch.from_numpy(chunks.tokens), torch.from_numpy(chunks.mask))
    without = model.unconditional_nats(chunks)[chunks.mask].mean()
    with torch.no_grad():
        memory = model.model.encoder(*batch)
        own, others = (
            token_nats(Regeneration(model.model.decoder(m), m), batch).numpy()[chunks.mask].mean()
            for m in (memory, memory.roll(1, dims=0))
        )
    print(retained_bits(own, without), retained_bits(others, without))
    assert retained_bits(float(own), float(without)) > 5
    assert retained_bits(float(others), float(without)) < 0
