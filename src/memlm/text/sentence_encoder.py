"""An autoencoder in the shape of sentence-transformers' models, for code that expects one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Regenerated
from memlm.text.model import as_texts

_WITHOUT_MEANING = {"precision": "float32", "output_value": "sentence_embedding"}
"""Options of `SentenceTransformer.encode` that have one value here; others must be None."""

Rows = Float[np.ndarray, "text dim"] | Float[Tensor, "text dim"]


class SentenceEncoder:
    """One vector a text, with the methods that users of `SentenceTransformer` call.

    ```python
    model = memlm.SentenceEncoder("english")
    vectors = model.encode(["Monday", "Call me Ishmael."])  # [text dim]
    model.regenerate(vectors)  # what no sentence encoder can
    ```

    The vectors hold the text: they are near each other where texts have the same words in the same places, not where
    they mean the same. A text that is longer than a chunk has several memories, and is refused, or cut with `truncate`.
    """

    similarity_fn_name = "cosine"

    def __init__(
        self, model: str | Path | TextAutoencoder = "english", *, truncate: bool = False, device: str | None = None
    ) -> None:
        """An autoencoder, or what `memlm.load` takes.

        Raises:
            ValueError: there is no such model; says what is wrong.
        """
        if not isinstance(model, TextAutoencoder):
            model = TextAutoencoder.from_pretrained(model, device=device)
        self.autoencoder, self.truncate = model.to(device or model.device), truncate

    def encode(
        self,
        sentences: str | Sequence[str] | None = None,
        *,
        inputs: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        **others: Any,
    ) -> Any:
        """Vectors [text dim] of texts, or [dim] of a string: an array, or a tensor if that is asked for.

        Options are those of `SentenceTransformer.encode`, where `inputs` is the newer name of `sentences`.

        Raises:
            ValueError: a text is empty, or longer than a chunk; or an option has no meaning here (a prompt would be
                held as a part of the text).
            TypeError: not strings.
        """
        for name, value in others.items():
            if value not in (None, _WITHOUT_MEANING.get(name)):
                raise ValueError(f"{name}={value!r} has no meaning for vectors that hold the text: leave it out")
        given = sentences if inputs is None else inputs
        if given is None:
            raise TypeError("encode wants a text, or a list of texts")
        texts = [given] if isinstance(given, str) else as_texts(given)
        tokens = [ids[: self.max_seq_length] if self.truncate else ids for ids in self.tokenizer.encode_batch(texts)]
        for place, ids in enumerate(tokens):
            if not 0 < len(ids) <= self.max_seq_length:
                raise ValueError(
                    f"text {place} has {len(ids)} tokens, and one vector holds 1 to {self.max_seq_length}: give "
                    "shorter texts, or truncate=True to lose their ends"
                )
        memory = self.autoencoder.to(device or self.device).encode_tokens(
            tokens, batch_size=batch_size, show_progress_bar=bool(show_progress_bar)
        )
        vectors = memory.vectors.flatten(1)
        vectors = F.normalize(vectors, dim=-1) if normalize_embeddings else vectors
        vectors = vectors[0] if isinstance(given, str) else vectors
        return vectors.numpy() if convert_to_numpy and not convert_to_tensor else vectors

    encode_query = encode_document = encode

    def regenerate(self, vectors: Rows) -> list[Regenerated]:
        """The texts of vectors; arguments and errors are those of `TextAutoencoder.regenerate`."""
        return self.autoencoder.regenerate(vectors)

    def similarity(self, one: Rows, other: Rows) -> Float[Tensor, "text other"]:
        """The cosine of each vector and each other one."""
        return _normalized(one) @ _normalized(other).T

    def similarity_pairwise(self, one: Rows, other: Rows) -> Float[Tensor, " text"]:
        """The cosine of each vector and the other one in its place."""
        return (_normalized(one) * _normalized(other)).sum(-1)

    def get_sentence_embedding_dimension(self) -> int:
        """Numbers of a vector."""
        config = self.autoencoder.config
        return config.shape.num_slots * config.vector_dim

    get_embedding_dimension = get_sentence_embedding_dimension

    @property
    def max_seq_length(self) -> int:
        """Tokens that a vector holds."""
        return self.autoencoder.config.shape.chunk_len

    @property
    def tokenizer(self) -> Any:
        """The autoencoder's."""
        return self.autoencoder.tokenizer

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.autoencoder.device

    def to(self, device: torch.device | str) -> Self:
        """Compute there from now on."""
        self.autoencoder.to(device)
        return self


def _normalized(vectors: Rows) -> Float[Tensor, "text dim"]:
    return F.normalize(rows[None] if (rows := torch.as_tensor(vectors)).ndim == 1 else rows, dim=-1)
