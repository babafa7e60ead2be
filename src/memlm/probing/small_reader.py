"""A small reader of an encoder's embeddings, for any text: what the embedding gives back to whoever has only that."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from memlm.config import READERS, ProbeConfig, ReadingConfig
from memlm.data.cache import default_cache
from memlm.evaluation.information import unconditional_log_probs
from memlm.models.readers import ReaderModule
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.probe import EncoderProbe
from memlm.probing.results import View
from memlm.probing.specs import ReaderSpec
from memlm.probing.texts import ProbeTexts, documents_of
from memlm.probing.trained_reader import codes_of
from memlm.probing.transform import Transform


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """What a reader makes of a text's embedding."""

    original: str
    """As far as the reader reads."""
    given_back: str
    token_accuracy: float
    """The share of the original's tokens that stand where they were."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallReader:
    """A small reader, which has learned from the presidential addresses.

    ```python
    reader = SmallReader.learn(load_encoder("minilm"), 16)
    reader.read("rejoiced anew over the conviction which had always been most grateful to her").given_back
    ```
    """

    encoder: FrozenEncoder
    view: View
    chunk_len: int
    """Tokens that it reads: of the encoder, the first of a text."""
    module: ReaderModule
    transform: Transform

    @classmethod
    def learn(
        cls,
        encoder: FrozenEncoder,
        chunk_len: int,
        *,
        reading: ReadingConfig | None = None,
        cache: Path | None = None,
        quiet: bool = True,
    ) -> Self:
        """Let a reader learn, or take the one that has learned before (by `memlm probe` too, with the same budget).

        Raises:
            ValueError: the encoder cannot read so many tokens.
        """
        cfg = ProbeConfig(chunk_lens=(chunk_len,), reading=reading or ReadingConfig())
        texts = ProbeTexts(encoder.tokenizer, documents_of(None), cfg.reading.test_fraction)
        probe = EncoderProbe(encoder, texts, cfg, chunk_len, cache=cache or default_cache(), quiet=quiet)
        learned = probe.learned(ReaderSpec(probe.views[0], READERS["parallel"], seed=0))
        # It may choose from all tokens, not only from those that it has met.
        codes = codes_of(encoder.token_table)
        frequencies = unconditional_log_probs(probe.data.chunks.train.tokens.ravel(), len(codes))
        learned.module.head.choose_from(codes, torch.from_numpy(frequencies).float())
        return cls(
            encoder=encoder,
            view=probe.views[0],
            chunk_len=chunk_len,
            module=learned.module.eval(),
            transform=learned.transform,
        )

    @torch.no_grad()
    def read(self, text: str) -> ReadBack:
        """What the embedding of a text's first tokens gives back.

        Raises:
            ValueError: the text is shorter than what this reader reads, or no valid Unicode.
        """
        tokens = self.tokens(text)
        asked = torch.from_numpy(tokens)[None]
        (embedding,) = self.encoder.embed(asked, torch.ones_like(asked, dtype=torch.bool), [self.view])
        memory = self.transform(embedding.cpu().numpy())
        found = self.module(asked, torch.ones_like(asked, dtype=torch.bool), memory).logits[0].argmax(-1).numpy()
        return ReadBack(
            original=self.encoder.tokenizer.decode(tokens),
            given_back=self.encoder.tokenizer.decode(found),
            token_accuracy=float((found == tokens).mean()),
        )

    def tokens(self, text: str) -> NDArray[np.int64]:
        """The tokens that are read of a text, with the errors of `read`."""
        tokens = self.encoder.tokenizer.encode(text).astype(np.int64)[: self.chunk_len]
        if len(tokens) < self.chunk_len:
            raise ValueError(
                f"the text has {len(tokens)} tokens of {self.encoder.name}, and this reader reads {self.chunk_len}: "
                "give a longer text, or read fewer tokens"
            )
        return tokens
