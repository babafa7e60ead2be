"""Code that is written for sentence-transformers works with an autoencoder."""

import numpy as np
import pytest
import torch
from sentence_transformers import util

import memlm
from memlm import SentenceEncoder, TextAutoencoder

TEXTS = ["the memory of a", "vector", "the memory of", "漢"]


@pytest.fixture(scope="module")
def encoder(trained: TextAutoencoder) -> SentenceEncoder:
    return SentenceEncoder(trained)


def test_vectors_are_the_autoencoders(encoder: SentenceEncoder, trained: TextAutoencoder) -> None:
    expected = trained.encode(TEXTS, convert_to_numpy=True)[:, 0]
    np.testing.assert_allclose(encoder.encode(TEXTS), expected)
    np.testing.assert_allclose(encoder.encode(inputs=TEXTS), expected)
    np.testing.assert_allclose(encoder.encode(TEXTS[0], batch_size=1), expected[0], atol=1e-5)
    assert encoder.encode(TEXTS).shape == (4, encoder.get_sentence_embedding_dimension())
    tensor = encoder.encode_query(TEXTS, convert_to_tensor=True, normalize_embeddings=True, prompt_name=None)
    torch.testing.assert_close(tensor.norm(dim=-1), torch.ones(4))
    assert encoder.regenerate(encoder.encode(TEXTS)) == trained.regenerate(trained.encode(TEXTS))


def test_sentence_transformers_own_tools_take_it(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(encoder.similarity(vectors, vectors), util.cos_sim(vectors, vectors))
    torch.testing.assert_close(encoder.similarity_pairwise(vectors, vectors), torch.ones(4))
    pairs = util.paraphrase_mining(encoder, TEXTS)  # type: ignore[arg-type]
    assert len(pairs) == 6
    found = util.semantic_search(encoder.encode(TEXTS[2], convert_to_tensor=True), vectors, top_k=1)
    assert found[0][0]["corpus_id"] == 2


def test_what_one_vector_cannot_hold_is_refused_or_cut(encoder: SentenceEncoder, trained: TextAutoencoder) -> None:
    long = " ".join(TEXTS * 10)
    with pytest.raises(ValueError, match=r"text 1 has \d+ tokens, and one vector holds 1 to \d+: .*truncate=True"):
        encoder.encode(["a", long])
    with pytest.raises(ValueError, match="text 0 has 0 tokens"):
        encoder.encode("")
    cutting = SentenceEncoder(trained, truncate=True)
    beginning = trained.tokenizer.encode(long)[: cutting.max_seq_length]
    np.testing.assert_allclose(cutting.encode(long), trained.encode_tokens([beginning]).vectors[0, 0].numpy())
    with pytest.raises(ValueError, match="prompt='query: ' has no meaning"):
        encoder.encode("a", prompt="query: ")
    with pytest.raises(ValueError, match="precision='int8' has no meaning"):
        encoder.encode("a", precision="int8")
    with pytest.raises(TypeError, match="wants a text"):
        encoder.encode()
    with pytest.raises(TypeError):
        encoder.encode([1])  # type: ignore[list-item]


def test_it_is_loaded_by_name() -> None:
    assert memlm.SentenceEncoder("english", device="cpu").max_seq_length == 128
