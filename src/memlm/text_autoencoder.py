"""A tokenizer and an autoencoder as one: text → memory → text. What users load, call and share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from memlm import checkpoint_folder
from memlm.config import AutoencoderConfig
from memlm.data.chunks import Chunks, cut
from memlm.data.corpus import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.metrics import Scores, batch_chunks, batches, measures, score
from memlm.models.autoencoder import Autoencoder
from memlm.progress import track
from memlm.results import Provenance, Result


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memories of some texts, and what is needed to read them back."""

    vectors: Float[Tensor, "chunk slot memory_dim"]
    num_tokens: Int[Tensor, " chunk"]
    """Real tokens in each chunk; only a text's last chunk may be short."""
    num_chunks: tuple[int, ...]
    """Chunks of each text."""
    encoder: str
    """Fingerprint of the encoder that made these vectors; no other's decoder can read them."""


class TextAutoencoder:
    """Text → memory → text, with one memory vector per chunk and slot.

    ```python
    import memlm

    model = memlm.load("english")
    memory = model.encode(["It is a truth universally acknowledged, ..."])
    model.regenerate(memory)
    ```
    """

    def __init__(
        self,
        model: Autoencoder,
        tokenizer: Tokenizer,
        unconditional: Float[Tensor, " vocab"],
        provenance: dict[str, Any],
    ) -> None:
        """`unconditional` are a reader's log-probabilities, in nats, without a memory (`unconditional_log_probs`)."""
        if tokenizer.vocab_size != model.config.shape.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} types, the model {model.config.shape.vocab_size}: "
                "they do not belong together"
            )
        table = (model.config.shape.vocab_size,)
        if unconditional.shape != table:
            raise ValueError(f"the unconditional reader's table is {list(unconditional.shape)}, not {list(table)}")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.unconditional, self.provenance = unconditional, provenance
        self.encoder_fingerprint = model.encoder.fingerprint(tokenizer.fingerprint)

    @property
    def config(self) -> AutoencoderConfig:
        """The model's configuration."""
        return self.model.config

    def encode(self, texts: Sequence[str]) -> Memory:
        """One memory for each chunk of each text; an empty text has none.

        Raises:
            ValueError: a text that is not valid Unicode (a lone surrogate), with its index.
        """
        split = self._tokenize(texts)
        chunks = cut(split, self.config.shape.chunk_len)
        parts = batches(chunks, self._device, self._batch_chunks)
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
        if memory.encoder != self.encoder_fingerprint:
            raise ValueError(
                f"this memory was made by encoder {memory.encoder}, not by this one ({self.encoder_fingerprint}); "
                "load the model that made it"
            )
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
        _refuse_one_string(texts)
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
            return score(self.model, chunks, self.config.shape.vocab_size, device=self._device, advance=advance)

    def unconditional_nats(self, chunks: Chunks) -> Float[np.ndarray, "chunk token"]:
        """What each token costs the reader that has no memory, in nats."""
        return -self.unconditional.numpy()[chunks.tokens]

    def to(self, device: torch.device | str) -> "TextAutoencoder":
        """Move the model to a device."""
        self.model.to(device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint folder (config, safetensors, tokenizer, provenance), all or nothing.

        Raises:
            OSError: the disk is full or not writable; what was in `folder` before still is.
        """
        tensors = {**self.model.state_dict(), checkpoint_folder.UNCONDITIONAL: self.unconditional}
        checkpoint_folder.save(Path(folder), self.config, tensors, self.tokenizer, self.provenance)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> "TextAutoencoder":
        """Load a checkpoint: a folder, a model that ships with memlm (`english`), or a Hugging Face hub name.

        Raises:
            ValueError: no such model, or a folder that is not a whole memlm checkpoint; says which part is wrong.
        """
        folder = checkpoint_folder.locate(name_or_path, revision)
        contents = checkpoint_folder.load(folder, "autoencoder")
        assert isinstance(contents.config, AutoencoderConfig)
        unconditional = contents.tensors.pop(checkpoint_folder.UNCONDITIONAL, None)
        if unconditional is None:
            raise ValueError(f"{folder} has no tensor {checkpoint_folder.UNCONDITIONAL!r}: not a memlm autoencoder")
        model = Autoencoder(contents.config)
        checkpoint_folder.load_weights(model, contents.tensors, folder)
        try:
            return cls(model, contents.tokenizer, unconditional, contents.provenance)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the checkpoint to the Hugging Face hub (options as for `HfApi.create_repo`); returns its address."""
        return checkpoint_folder.push(self.save_pretrained, repo_id, **options)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _batch_chunks(self) -> int:
        return batch_chunks(self.config.shape.chunk_len, self.config.shape.vocab_size)

    @torch.no_grad()
    def _encode_batch(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model.encoder(tokens, mask).cpu()

    def _decode_batch(self, vectors: Tensor) -> Tensor:
        return self.model.decoder(vectors.to(self._device)).argmax(dim=-1).cpu()

    def _tokenize(self, texts: Sequence[str]) -> TokenSplit:
        _refuse_one_string(texts)
        documents = (Document(f"text {i}", text, None) for i, text in enumerate(texts))
        return tokenize_documents(self.tokenizer, documents)


def _refuse_one_string(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, not one string; wrap it: [text]")
