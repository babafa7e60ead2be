"""A past text as a reader sees it: what memories give back, as tokens of the language model, each of a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from memlm.config import AS_TOKENS, MAX_RATIO, PER_MEMORY, MemoryReaderConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.layout import Layout, laid_out, share_positions
from memlm.models.memory_reader import Groups, pad
from memlm.nn.pooling import MemoryVectors


@dataclass(frozen=True, eq=False)
class Past:
    """The past of one text."""

    tokens: NDArray[np.int64]
    """[token], of the language model."""
    chunk: NDArray[np.int64]
    """[token], the memory that it comes from: that in which it begins."""
    vectors: MemoryVectors
    """[memory slot memory_dim]"""

    def only(self, chunk: int) -> "Past":
        """One chunk of it."""
        here = self.chunk == chunk
        return Past(self.tokens[here], self.chunk[here] * 0, self.vectors[chunk : chunk + 1])

    def similarity(self, text: Sequence[int], surprisal: NDArray[np.float64]) -> NDArray[np.float64]:
        """How alike each chunk and a text are: the nats of the text's tokens that the chunk has too."""
        shared = np.unique(np.stack([self.chunk, self.tokens])[:, np.isin(self.tokens, text)], axis=1)
        return np.bincount(shared[0], surprisal[shared[1]], minlength=len(self.vectors)).astype(np.float64)

    def layout(
        self,
        cfg: MemoryReaderConfig,
        surprisal: NDArray[np.float64],
        ratio: int,
        expanded: Sequence[int] = (),
        *,
        evenly: bool = False,
    ) -> Layout:
        """Where the tokens go at a ratio, the last ones as well as those before where `evenly`; the tokens of expanded
        chunks have a position each, beside the others'.

        Raises:
            ValueError: there is no such ratio.
        """
        if not 0 <= ratio <= MAX_RATIO:
            raise ValueError(f"ratio must lie from 0 (one position for each memory) to {MAX_RATIO}, not {ratio}")
        if cfg.source == "vector":
            chunk_len, number = cfg.shape.chunk_len, len(self.vectors)
            share = chunk_len if ratio == PER_MEMORY else ratio
            return laid_out(np.arange(number * chunk_len) // share)
        if ratio == AS_TOKENS:
            return laid_out(np.arange(len(self.tokens)))
        exact = np.isin(self.chunk, expanded)
        group = np.zeros(len(self.tokens), np.int64)
        # The rest between expanded chunks shares its positions over all of them.
        rest = ~exact
        if ratio == PER_MEMORY:
            group[rest] = self.chunk[rest]
        else:
            positions = -(-int(rest.sum()) // ratio)
            recent_share = 0.0 if evenly else cfg.recent_share
            group[rest] = share_positions(surprisal[self.tokens[rest]], positions, recent_share).group
        starts = np.ones(len(group), bool)
        starts[1:] = exact[1:] | exact[:-1] | (group[1:] != group[:-1])
        return laid_out(starts.cumsum() - 1)


def past_of(chunks: Sequence[Sequence[int]], vectors: MemoryVectors, encoder: Tokenizer, model: Tokenizer) -> Past:
    """The past of the tokens that an encoder's memories give back, chunk by chunk."""
    texts = encoder.decode_pieces(chunks)
    tokens, begins = model.encode_placed("".join(texts))
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    chunk = np.searchsorted(ends, begins, side="right").clip(max=max(len(texts) - 1, 0))
    return Past(tokens, chunk, vectors)


def as_tokens(pasts: Sequence[Past]) -> Groups:
    """Pasts as rows of a batch, a position for each token, whatever a reader's source is."""
    tokens = [past.tokens.tolist() for past in pasts]
    group = pad([range(len(row)) for row in tokens], -1)
    return Groups(pad(tokens), group, torch.zeros_like(group))


def groups_of(
    pasts: Sequence[Past],
    cfg: MemoryReaderConfig,
    surprisal: NDArray[np.float64],
    ratio: int | None,
    expanded: Sequence[Sequence[int]] = (),
    *,
    evenly: bool = False,
) -> Groups:
    """Pasts as rows of a batch, at one ratio, with the chunks of each that are expanded (see `Past.layout`); None
    leaves the pasts out."""
    if ratio is None:
        return Groups.none(len(pasts))
    chosen = expanded or [()] * len(pasts)
    layouts = [
        past.layout(cfg, surprisal, ratio, some, evenly=evenly) for past, some in zip(pasts, chosen, strict=True)
    ]
    bare = cfg.source == "vector"
    tokens = [layout.group * 0 if bare else past.tokens for past, layout in zip(pasts, layouts, strict=True)]
    return Groups(
        pad([row.tolist() for row in tokens]),
        pad([layout.group.tolist() for layout in layouts], -1),
        pad([layout.slot.tolist() for layout in layouts]),
        pad_sequence([past.vectors for past in pasts], batch_first=True) if bare else None,
    )
