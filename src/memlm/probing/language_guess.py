"""What a small reader makes of an embedding, as text that a language model reads before it writes its own.

Where embeddings say which token stands in which place, as memories do, a parallel reader sees that within a minute; a
language model that only has the vector would be very long in learning it, and copies what it can read as text.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from memlm.config import MemoryShape, ParallelReader, ReadingConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.information import unconditional_log_probs
from memlm.evaluation.metrics import score
from memlm.models.readers import build_reader
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.language_texts import LanguageTexts
from memlm.probing.texts import Splits
from memlm.probing.trained_reader import fit_reader
from memlm.probing.transform import Transform
from memlm.runtime.files import atomic_file
from memlm.text.model import default_device

_WORTH = 0.25
"""Share of tokens that a guess must get right, at its best place, beyond what it gets right of another text; else it is
not read. A last state says much of the last tokens, and little of those before."""


class Guesses:
    """A parallel reader of the embeddings, whose texts are given in the language model's tokens."""

    def __init__(
        self, codes: Float[Tensor, "type code"], chunks: Splits[Chunks], transform: Transform, texts: LanguageTexts
    ) -> None:
        """One that has learned nothing yet; of numbered chunks, whose tokens have these codes."""
        num_slots, dim = transform.shape
        chunk_len = chunks.train.chunk_len
        shape = MemoryShape(vocab_size=len(codes), chunk_len=chunk_len, num_slots=num_slots, memory_dim=dim)
        log_probs = unconditional_log_probs(chunks.train.tokens.ravel(), len(codes))
        self.reader = build_reader(ParallelReader(), shape, codes, torch.from_numpy(log_probs).float())
        self.transform, self.texts, self.num_types = transform, texts, len(codes)

    def learn(
        self, chunks: Chunks, vectors: Vectors, num_steps: int, seed: int, path: Path, *, title: str, quiet: bool
    ) -> None:
        """From pairs of texts and embeddings; or take what was learned from them before, and kept."""
        if not path.exists():

            def memory(rows: np.ndarray, step: int) -> MemoryVectors:
                return self.transform(vectors[rows], torch.Generator().manual_seed(seed * 1_000_003 + step))

            cfg = ReadingConfig(num_steps=num_steps)
            fit_reader(self.reader, chunks, cfg, seed, memory=memory, title=title, quiet=quiet)
            with atomic_file(path) as temporary:
                kept = self.reader.state_dict().items()
                save_file({name: tensor.cpu().contiguous() for name, tensor in kept}, temporary)
        self.reader.load_state_dict(load_file(path))
        self.reader.to(default_device())

    def are_worth_reading(self, chunks: Chunks, vectors: Vectors) -> bool:
        """Whether they say more of these texts than of others."""
        guessed = self._numbers(vectors)
        right, by_chance = (rows == chunks.tokens for rows in (guessed, np.roll(guessed, 1, axis=0)))
        return bool((right.mean(0) - by_chance.mean(0)).max() > _WORTH)

    def tokens(self, vectors: Vectors, num_tokens: int, empty: int) -> Int[np.ndarray, "chunk given"]:
        """So many of the language model's tokens for each embedding; `empty` ones come first."""
        written = [self.texts.encoder.decode(self.texts.types[row]) for row in self._numbers(vectors)]
        rows = [ids[:num_tokens] for ids in self.texts.language.encode_batch(written)]
        return np.stack([np.concatenate([np.full(num_tokens - len(ids), empty), ids]) for ids in rows])

    def _numbers(self, vectors: Vectors) -> Int[np.ndarray, "chunk token"]:
        nothing = np.zeros((len(vectors), self.reader.chunk_len), np.int64)  # the reader sees embeddings alone
        chunks = Chunks(nothing, nothing == 0, nothing[:, 0])
        return score(self.reader, chunks, self.num_types, memory=self.transform(vectors)).predicted
