"""Synthetic sources of tokens, whose entropy is known."""

import numpy as np

from memlm.data.token_store import TokenSplit
from memlm.data.tokenizer import Tokenizer


def uniform_tokens(
    tokenizer: Tokenizer, *, num_documents: int = 16, document_tokens: int = 1024, seed: int = 0
) -> TokenSplit:
    """Independent, uniformly random tokens: ln V nats each, and no statistics of any language to lean on.

    Their bytes are those of the decoded text, in which bytes that are no UTF-8 have become U+FFFD.
    """
    shape = (num_documents, document_tokens)
    tokens = np.random.default_rng(seed).integers(tokenizer.vocab_size, size=shape)
    sizes = [len(tokenizer.decode(row).encode()) for row in tokens]
    return TokenSplit(
        tokens=tokens.astype(np.uint32).ravel(),
        document_starts=np.arange(num_documents + 1, dtype=np.int64) * document_tokens,
        document_bytes=np.array(sizes, dtype=np.int64),
        document_names=[f"random {number}" for number in range(num_documents)],
    )
