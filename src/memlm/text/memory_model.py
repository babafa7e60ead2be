"""A tokenizer and a memory model as one: text → memories; memories and a prompt → more text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import MemoryModelConfig
from memlm.data.chunks import split_into_chunks
from memlm.data.corpus import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.data.windows import all_windows
from memlm.evaluation.checked import exactness, fill_pieces
from memlm.evaluation.metrics import measures, score
from memlm.evaluation.prediction import predict, prediction_measures
from memlm.models.generation import generate
from memlm.models.memory_model import MemoryModel, Regenerator
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance, Result
from memlm.text.memory import Memory
from memlm.text.model import TextModel, as_texts, check_table, require_own

WINDOW_CHUNKS = 4
"""Chunks of an evaluation window, unless the model's training had others."""


class TextMemoryModel(TextModel[MemoryModel, MemoryModelConfig]):
    """Reads past text as one memory a chunk, and goes on from there.

    ```python
    model = TextMemoryModel.from_pretrained("runs/memory/model")
    model.generate("Fellow citizens", past=address, max_new_tokens=100, do_sample=True)
    ```
    """

    kind = "memory_model"
    model_class = MemoryModel
    tables = ("unconditional",)

    def __init__(
        self,
        model: MemoryModel,
        tokenizer: Tokenizer,
        unconditional: Float[Tensor, " vocab"],
        provenance: dict[str, Any],
    ) -> None:
        """`unconditional` are a reader's log-probabilities, in nats, without a memory (`unconditional_log_probs`)."""
        super().__init__(model, tokenizer, provenance)
        self.unconditional = check_table(unconditional, self.config.vocab_size)

    @property
    def encoder_fingerprint(self) -> str:
        """A short hash of the encoder's weights and configuration; empty without one."""
        return self.model.encoder.fingerprint(self.tokenizer.fingerprint) if self.model.encoder else ""

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        *,
        past: str | Memory = "",
        max_new_tokens: int = 100,
        streamer: Any = None,
        **options: Any,
    ) -> str:
        """Go on from a prompt, with the text before it as memories.

        What is written becomes memories too, chunk by chunk, so that there is no end to how much may be.

        Args:
            prompt: text to go on from; its whole chunks become memories as well.
            past: text before it; or its memories (`MemoryFile.memories`, `TextAutoencoder.encode`), if the encoder that
                this model was trained with made them.
            max_new_tokens: how many tokens to write.
            streamer: a transformers streamer, which hears of every token as it is written.
            options: as transformers' `generate` takes them (do_sample, temperature, top_p, eos_token_id,
                stopping_criteria, ...); what counts tokens or looks back knows the current chunk alone.

        Raises:
            ValueError: `max_new_tokens` is not positive; another encoder made the memories.
        """
        made, before = (past, "") if isinstance(past, Memory) else (None, past)
        if made is not None:
            require_own(made, self.encoder_fingerprint)
        tokens = torch.from_numpy(np.concatenate([self.tokenizer.encode(text) for text in (before, prompt)])).long()
        earlier = None if made is None else (made.vectors, made.num_tokens)
        written = generate(self.model, tokens, earlier, max_new_tokens=max_new_tokens, streamer=streamer, **options)
        return self.tokenizer.decode(written.tolist())

    def evaluate(self, texts: Sequence[str], *, name: str = "texts", quiet: bool = True) -> Result:
        """Measure what next tokens cost, given the memories of the text before, and what memories give back.

        Each text is a document: a unit of the bootstrap.

        Raises:
            ValueError: no text is longer than a chunk.
        """
        documents = (Document(f"text {i}", text, None) for i, text in enumerate(as_texts(texts)) if text)
        return self.evaluate_split(tokenize_documents(self.tokenizer, documents), name=name, quiet=quiet)

    def evaluate_split(
        self, split: TokenSplit, *, name: str, window_chunks: int | None = None, quiet: bool = True
    ) -> Result:
        """`evaluate`, for documents already tokenized by this model's tokenizer."""
        shape = self.config.shape
        longest = int(np.diff(split.document_starts).max(initial=0))
        if longest <= shape.chunk_len:
            raise ValueError(f"no text is longer than a chunk of {shape.chunk_len} tokens; the longest has {longest}")
        recipe = self.provenance.get("recipe", {})
        num_chunks = window_chunks or recipe.get("window_chunks", WINDOW_CHUNKS)
        windows = all_windows(split_into_chunks(split, shape.chunk_len), num_chunks)
        total = int(windows.mask.sum())
        with track(f"Predicting {name}", total=total, unit="tokens", quiet=quiet) as advance:
            prediction = predict(self.model, windows, shape.vocab_size, device=self.device, advance=advance)
        values, intervals = prediction_measures(prediction)
        if self.model.encoder is not None:
            values["retention"] = self.evaluate_retention(split, name=name, quiet=quiet).to_dict()
        values |= {
            "chunk_len": shape.chunk_len,
            "memory_dim": shape.memory_dim,
            "num_slots": shape.num_slots,
            "window_chunks": num_chunks,
            "decoder_positions_per_chunk": self.model.decoder_positions_per_chunk,
        }
        made_by = Provenance.here(model=self.provenance, encoder=self.encoder_fingerprint)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)

    def evaluate_retention(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """How much of each chunk the decoder regenerates from its memory; one not trained to will do badly."""
        shape, chunks = self.config.shape, split_into_chunks(split, self.config.shape.chunk_len)
        total = int(chunks.mask.sum())
        regenerator = Regenerator(self.model)
        with track(f"Regenerating {name}", total=total, unit="tokens", quiet=quiet) as advance:
            scores = score(regenerator, chunks, shape.vocab_size, device=self.device, advance=advance)
        pieces = fill_pieces(split, shape.chunk_len)
        by_fill = {
            fill: score(regenerator, some, shape.vocab_size, device=self.device) for fill, some in pieces.items()
        }
        values, intervals = measures(
            scores,
            -self.unconditional.numpy()[chunks.tokens],
            np.asarray(split.document_bytes),
            vocab_size=shape.vocab_size,
            memory_dims=shape.num_slots * shape.memory_dim,
        )
        values |= exactness({fill: np.all(found.correct, axis=1) for fill, found in by_fill.items()})
        return Result(name=name, measures=values, intervals=intervals)
