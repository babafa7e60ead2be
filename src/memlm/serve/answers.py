"""What is answered, as what JSON can hold."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memlm.serve.model import ServedModel
from memlm.text.memory import Memory, Regenerated

Answer = dict[str, Any]


def embeddings(served: ServedModel, memory: Memory, num_tokens: int, form: Literal["float", "base64"]) -> Answer:
    """One vector of length 1 for each text, as OpenAI's embeddings have; each text is one chunk."""
    vectors = memory.numpy().reshape(len(memory), served.dimensions)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(row) if form == "base64" else row.tolist()}
        for index, row in enumerate(vectors)
    ]
    return _listed(served, data, num_tokens)


def memories(served: ServedModel, memory: Memory, num_tokens: int) -> Answer:
    """The memories of each text; what `/v1/memories/regenerate` takes."""
    data = []
    for index, each in enumerate(memory):
        verified = {} if each.exact is None else {"exact": each.exact.tolist()}
        known = {"object": "memory", "index": index, "shape": [*each.vectors.shape]}
        data.append(known | {"vectors": _base64(each.numpy()), "num_tokens": each.num_tokens.tolist()} | verified)
    return {"encoder": memory.encoder} | _listed(served, data, num_tokens)


def texts(served: ServedModel, regenerated: Sequence[Regenerated], num_tokens: int) -> Answer:
    """Each text, with the spans of characters that may be wrong."""
    data = [
        {"object": "text", "index": index, "text": str(text), "unsure": text.unsure, "proven": text.proven}
        for index, text in enumerate(regenerated)
    ]
    return _listed(served, data, num_tokens)


def _listed(served: ServedModel, data: Sequence[Answer], num_tokens: int) -> Answer:
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return {"object": "list", "model": served.name, "data": data, "usage": usage}


def _base64(vectors: NDArray[np.float32]) -> str:
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()
