"""What makes the dimensions by which memories are searched."""

from dataclasses import replace

import pytest
import torch

from memlm.config import Attention, MemoryShape, SearchConfig, StackConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.autoencoder import SEARCH_RMS, SearchEncoder

SHAPE = MemoryShape(vocab_size=280, chunk_len=12, memory_dim=32, end_token=True)
CONFIG = SearchConfig(
    dim=8, teacher_dim=16, num_words=64, word_dim=4, stack=StackConfig(dim=16, mixer=Attention(num_heads=2))
)
TEXT = "search searching Searches SEARCH, re-search (searched) the theatre theatres"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT] * 4, 280)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> SearchEncoder:
    torch.manual_seed(0)
    encoder = SearchEncoder(CONFIG, SHAPE).eval()
    torch.nn.init.normal_(encoder.stack.blocks[0].mixer.outward.weight)
    encoder.spell(tokenizer.token_bytes)
    return encoder


def codes(encoder: SearchEncoder, pieces: list[bytes], tokenizer: Tokenizer) -> list[int]:
    """Hashes of a text that is cut into these tokens."""
    ids = torch.tensor([[tokenizer.token_bytes.index(piece) for piece in pieces]])
    return encoder.word_codes(ids)[0].tolist()


def letters(text: str) -> list[bytes]:
    return [bytes([byte]) for byte in text.encode()]


def test_a_word_has_one_hash_however_it_is_cut_and_written(encoder: SearchEncoder, tokenizer: Tokenizer) -> None:
    merged = [tokenizer.token_bytes[token] for token in tokenizer.encode("the theatre")]
    assert len(merged) < 5
    whole = codes(encoder, merged, tokenizer)[-1]
    for cut in (" theatre", "x theatre", "(theatre", "\nTheatre", "x,THEATRE"):
        assert codes(encoder, letters(cut), tokenizer)[-1] == whole, cut
    for other in ("theatres", "xtheatre", "1theatre", "ätheatre", "heatre"):
        assert codes(encoder, letters(other), tokenizer)[-1] != whole, other


@torch.no_grad()
def test_padding_changes_nothing(encoder: SearchEncoder) -> None:
    tokens = torch.randint(280, (5, 12))
    mask = torch.arange(12) < torch.tensor([1, 3, 7, 11, 12])[:, None]
    vectors = encoder(tokens, mask)
    assert vectors.shape == (5, 1, 8)
    torch.testing.assert_close(vectors, encoder(torch.where(mask, tokens, 7), mask))
    torch.testing.assert_close(vectors.square().mean(-1).sqrt(), torch.full((5, 1), SEARCH_RMS))


def test_words_may_be_left_out() -> None:
    tokens, mask = torch.randint(280, (2, 12)), torch.ones(2, 12, dtype=torch.bool)
    without = SearchEncoder(replace(CONFIG, num_words=0), SHAPE)
    assert without(tokens, mask).isfinite().all()
    assert not any("words" in name for name, _ in without.named_parameters())


def test_the_fingerprint_knows_the_weights(encoder: SearchEncoder) -> None:
    other = SearchEncoder(CONFIG, SHAPE)
    other.load_state_dict(encoder.state_dict())
    assert other.fingerprint("a") == encoder.fingerprint("a") != encoder.fingerprint("b")
    with torch.no_grad():
        assert other.words is not None
        other.words.weight[0] += 1
    assert other.fingerprint("a") != encoder.fingerprint("a")
