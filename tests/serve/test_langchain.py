"""What other libraries' embeddings classes make of the server."""

import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from memlm import TextAutoencoder


def test_langchains_embeddings_work_through_it(address: str, model: TextAutoencoder) -> None:
    embeddings = OpenAIEmbeddings(
        model="tiny", base_url=f"{address}/v1", api_key=SecretStr("any"), check_embedding_ctx_length=False
    )
    texts = ["the memory", "a", "漢字 → whole"]
    expected = model.encode(texts, normalize=True, convert_to_numpy=True)[:, 0]
    np.testing.assert_allclose(embeddings.embed_documents(texts), expected, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(texts[0]), expected[0], atol=1e-6)
    with pytest.raises(Exception, match="holds at most 16"):
        embeddings.embed_query("a longer text " * 20)
