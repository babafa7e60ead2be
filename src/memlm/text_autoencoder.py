"""A tokenizer and an autoencoder as one: text → memory → text. What users load, call and share."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import AutoencoderConfig
from memlm.data.chunks import Chunks, cut
from memlm.data.corpus import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.metrics import Scores, batch_chunks, batches, measures, score
from memlm.models.autoencoder import Autoencoder
from memlm.progress import track
from memlm.results import Provenance, Result
from memlm.text_model import Memory, TextModel, check_table, refuse_one_string, require_own


class TextAutoencoder(TextModel[Autoencoder, AutoencoderConfig]):
    """Text → memory → text, with one memory vector per chunk and slot.

    ```python
    import memlm

    model = memlm.load("english")
    memory = model.encode(["It is a truth universally acknowledged, ..."])
    model.regenerate(memory)
    ```
    """

    kind = "autoencoder"
    model_class = Autoencoder
    tables = ("unconditional",)

    def __init__(
        self,
        model: Autoencoder,
        tokenizer: Tokenizer,
        unconditional: Float[Tensor, " vocab"],
        provenance: dict[str, Any],
    ) -> None:
        """`unconditional` are a reader's log-probabilities, in nats, without a memory (`unconditional_log_probs`)."""
        super().__init__(model, tokenizer, provenance)
        self.unconditional = check_table(unconditional, self.config.vocab_size)
        self.encoder_fingerprint = model.encoder.fingerprint(tokenizer.fingerprint)

    def encode(self, texts: Sequence[str]) -> Memory:
        """One memory for each chunk of each text; an empty text has none.

        Raises:
            ValueError: a text that is not valid Unicode (a lone surrogate), with its index.
        """
        split = self._tokenize(texts)
        chunks = cut(split, self.config.shape.chunk_len)
        parts = batches(chunks, self.device, self._batch_chunks)
        vectors = [self._encode_batch(batch.tokens, batch.mask) for batch in parts]
        shape = self.config.shape
        empty = torch.zeros(0, shape.num_slots, shape.memory_dim)
        return Memory(
            vectors=torch.cat([empty, *vectors]),
            num_tokens=torch.from_numpy(chunks.mask.sum(axis=1)),
            num_chunks=tuple(np.bincount(chunks.document, minlength=len(texts)).tolist()),
            encoder=self.encoder_fingerprint,
        )

    @torch.no_grad()
    def regenerate(self, memory: Memory) -> list[str]:
        """The texts that the memories give back: the decoder's most likely token at each position.

        Raises:
            ValueError: the memory was made by another encoder.
        """
        require_own(memory, self.encoder_fingerprint)
        tokens = torch.cat([self._decode_batch(vectors) for vectors in torch.split(memory.vectors, self._batch_chunks)])
        chunks = iter([row[:count].tolist() for row, count in zip(tokens, memory.num_tokens, strict=True)])
        per_text = (itertools.islice(chunks, count) for count in memory.num_chunks)
        return [self.tokenizer.decode(itertools.chain.from_iterable(ids)) for ids in per_text]

    def evaluate(self, texts: Sequence[str], *, name: str = "texts", quiet: bool = True) -> Result:
        """Measure how much of these texts their memories give back (`evaluation.metrics.measures`).

        Each text is a document: a unit of the bootstrap.

        Raises:
            ValueError: no text, or none with anything but white space in it.
        """
        refuse_one_string(texts)
        if not any(text.strip() for text in texts):
            raise ValueError("nothing to evaluate: the text is empty or all white space")
        return self.evaluate_split(self._tokenize([text for text in texts if text]), name=name, quiet=quiet)

    def evaluate_split(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """`evaluate`, for documents already tokenized by this model's tokenizer."""
        scores = self.score(cut(split, self.config.shape.chunk_len), name=name, quiet=quiet)
        shape = self.config.shape
        values, intervals = measures(
            scores,
            self.unconditional_nats(scores.chunks),
            np.asarray(split.document_bytes),
            vocab_size=shape.vocab_size,
            memory_dims=shape.num_slots * shape.memory_dim,
        )
        values |= {"chunk_len": shape.chunk_len, "memory_dim": shape.memory_dim, "num_slots": shape.num_slots}
        made_by = Provenance.here(model=self.provenance, encoder=self.encoder_fingerprint)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)

    def score(self, chunks: Chunks, *, name: str = "", quiet: bool = True) -> Scores:
        """Regenerate chunks and score every token."""
        with track(f"Regenerating {name}", total=int(chunks.mask.sum()), unit="tokens", quiet=quiet) as advance:
            return score(self.model, chunks, self.config.shape.vocab_size, device=self.device, advance=advance)

    def unconditional_nats(self, chunks: Chunks) -> Float[np.ndarray, "chunk token"]:
        """What each token costs the reader that has no memory, in nats."""
        return -self.unconditional.numpy()[chunks.tokens]

    @property
    def _batch_chunks(self) -> int:
        return batch_chunks(self.config.shape.chunk_len, self.config.shape.vocab_size)

    @torch.no_grad()
    def _encode_batch(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model.encoder(tokens, mask).cpu()

    def _decode_batch(self, vectors: Tensor) -> Tensor:
        return self.model.decoder(vectors.to(self.device)).argmax(dim=-1).cpu()

    def _tokenize(self, texts: Sequence[str]) -> TokenSplit:
        refuse_one_string(texts)
        documents = (Document(f"text {i}", text, None) for i, text in enumerate(texts))
        return tokenize_documents(self.tokenizer, documents)
