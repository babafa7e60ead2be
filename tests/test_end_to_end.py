"""The claim in small: real text goes into vectors and comes back, and the measures say how much of it."""

import math

import pytest
import torch

from memlm.config import AutoencoderRecipe
from memlm.data.chunks import split_into_chunks
from memlm.data.token_store import TokenSplit, prepare
from memlm.evaluation.information import retained_bits
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch, token_nats
from memlm.recipes import autoencoder
from memlm.recipes.scale import Scale
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.train import train


@pytest.fixture(scope="module")
def small() -> AutoencoderRecipe:
    """Our recipe on the default corpus: 16 tokens in 128 dimensions."""
    return autoencoder(Scale(chunk_len=16, memory_dim=128, num_tokens=150_000))


@pytest.fixture(scope="module")
def model(small: AutoencoderRecipe, tmp_path_factory: pytest.TempPathFactory) -> TextAutoencoder:
    return train(small, tmp_path_factory.mktemp("end_to_end") / "run", quiet=True)


@pytest.fixture(scope="module")
def held_out(small: AutoencoderRecipe) -> TokenSplit:
    """The first documents kept out of training."""
    split = prepare(small.data, quiet=True).splits["test"]
    number = 2
    return TokenSplit(
        tokens=split.tokens[: split.document_starts[number]],
        document_starts=split.document_starts[: number + 1],
        document_bytes=split.document_bytes[:number],
        document_names=split.document_names[:number],
    )


def test_held_out_text_comes_back(model: TextAutoencoder, held_out: TokenSplit) -> None:
    result = model.evaluate_split(held_out, name="held_out")
    assert result.token_accuracy > 0.9
    assert result.exact_match > 0.5
    assert 0.9 < result.retained_fraction < 1
    # What is retained is what is there to know, and not more: at most the tokens' own bits.
    assert result.retained_bits_per_token < result.unconditional_nats_per_token / math.log(2)
    low, high = result.intervals["token_accuracy"]
    assert low <= result.token_accuracy <= high


def test_an_untrained_models_memories_give_nothing_back(
    small: AutoencoderRecipe, model: TextAutoencoder, held_out: TokenSplit
) -> None:
    torch.manual_seed(0)
    untrained = TextAutoencoder(Autoencoder(small.model), model.tokenizer, model.unconditional, {})
    result = untrained.evaluate_split(held_out, name="untrained")
    assert result.token_accuracy < 0.02
    assert result.exact_match == 0
    assert result.retained_bits_per_token < 0.1


def test_shuffled_memories_tell_nothing(model: TextAutoencoder, held_out: TokenSplit) -> None:
    chunks = split_into_chunks(held_out, 16).rows(slice(500))
    batch = Batch.of(chunks)
    without = -model.unconditional.numpy()[chunks.tokens][chunks.mask].mean()
    with torch.no_grad():
        memory = model.model.encoder(batch.tokens, batch.mask)
        own, others = (
            token_nats(model.model.decoder(m), batch).numpy()[chunks.mask].mean()
            for m in (memory, memory.roll(1, dims=0))
        )
    assert retained_bits(float(own), float(without)) > 5
    assert retained_bits(float(others), float(without)) < 0
