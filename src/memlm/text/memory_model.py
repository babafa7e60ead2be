"""A memory model with its tokenizer: text → memories; memories and a prompt → more text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from memlm.config import MemoryModelConfig
from memlm.data.chunks import all_windows, split_into_chunks
from memlm.data.token_store import TokenSplit
from memlm.evaluation.checked import exactness, fill_pieces
from memlm.evaluation.metrics import score
from memlm.evaluation.prediction import predict, prediction_measures
from memlm.models.generation import generate
from memlm.models.memory_model import MemoryModel, Regenerator
from memlm.runtime.progress import track
from memlm.runtime.results import Result
from memlm.text.memory import Memory
from memlm.text.model import MemoryTextModel, as_texts

WINDOW_CHUNKS = 4
"""Chunks of an evaluation window, unless the model's training had others."""


class TextMemoryModel(MemoryTextModel[MemoryModel, MemoryModelConfig]):
    """Reads past text as one memory per chunk, and continues it.

    ```python
    model = TextMemoryModel.from_pretrained("runs/memory/model")
    model.generate("Fellow citizens", past=address, max_new_tokens=100, do_sample=True)
    ```
    """

    config_class = MemoryModelConfig

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        *,
        past: str | Memory = "",
        max_new_tokens: int = 100,
        pointed_memories: int | None = None,
        streamer: Any = None,
        **options: Any,
    ) -> str:
        """Continue a prompt, with the text before it as memories.

        Generated chunks become memories too, so that the length is not limited.

        Args:
            prompt: text to continue; its whole chunks become memories as well.
            past: text before it; or its memories (`MemoryFile.memories`, `TextAutoencoder.encode`), made by the encoder
                that this model was trained with.
            max_new_tokens: how many tokens to generate.
            pointed_memories: how many memories a pointer looks at, the latest; by default those that the decoder reads.
                A pointer needs no positions, and finds facts in many more than it was trained on (`docs/results.md`).
            streamer: a transformers streamer, which receives each token.
            options: of transformers' `generate` (do_sample, temperature, top_p, eos_token_id, stopping_criteria, ...);
                those that count tokens or look back see the current chunk only.

        Raises:
            ValueError: `max_new_tokens` is not positive; another encoder made the memories; `pointed_memories` are
                fewer than the decoder reads, or the model has no pointer.
        """
        made, before = (past, "") if isinstance(past, Memory) else (None, past)
        if made is not None:
            made = self.own(made)
        tokens = torch.from_numpy(np.concatenate([self.tokenizer.encode(text) for text in (before, prompt)])).long()
        earlier = None if made is None else (made.vectors, made.num_tokens)
        options |= {"pointed_memories": pointed_memories, "streamer": streamer}
        written = generate(self.model, tokens, earlier, max_new_tokens=max_new_tokens, **options)
        return self.tokenizer.decode(written.tolist())

    def evaluate(self, texts: Sequence[str], *, name: str = "texts", quiet: bool = True) -> Result:
        """Measure the cross-entropy of next tokens given the memories of earlier chunks, and regeneration.

        Each text is a document: a unit of the bootstrap.

        Raises:
            ValueError: no text is longer than a chunk.
        """
        split = self._tokenize(text for text in as_texts(texts) if text)
        return self.evaluate_split(split, name=name, quiet=quiet)

    def evaluate_split(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """`evaluate`, for documents already tokenized by this model's tokenizer."""
        shape = self.config.shape
        longest = int(np.diff(split.document_starts).max(initial=0))
        if longest <= shape.chunk_len:
            raise ValueError(f"no text is longer than a chunk of {shape.chunk_len} tokens; the longest has {longest}")
        recipe = self.provenance.get("recipe", {})
        # A model that was trained before recipes had stages has its windows' length in the recipe itself.
        num_chunks = recipe.get("windows", {}).get("num_chunks") or recipe.get("window_chunks", WINDOW_CHUNKS)
        windows = all_windows(split_into_chunks(split, shape.chunk_len), num_chunks)
        total = int(windows.mask.sum())
        with track(f"Predicting {name}", total=total, unit="tokens", quiet=quiet) as advance:
            prediction = predict(self.model, windows, shape.vocab_size, advance=advance)
        values, intervals = prediction_measures(prediction)
        if self.model.encoder is not None:
            values["retention"] = self.evaluate_retention(split, name=name, quiet=quiet).to_dict()
        values |= {"window_chunks": num_chunks, "decoder_positions_per_chunk": self.model.decoder_positions_per_chunk}
        return self._result(name, values, intervals)

    def evaluate_retention(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """Measure how much of each chunk the decoder regenerates from its memory, if it is trained to."""
        shape, regenerator = self.config.shape, Regenerator(self.model)
        values, intervals = self._regeneration(regenerator, split, name=name, quiet=quiet)
        correct = {
            fill: score(regenerator, some, shape.vocab_size).correct
            for fill, some in fill_pieces(split, shape.chunk_len).items()
        }
        values |= exactness({fill: np.all(some, axis=1) for fill, some in correct.items()})
        return Result(name=name, measures=values, intervals=intervals)
