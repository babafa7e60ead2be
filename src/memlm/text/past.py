"""A past text as a reader sees it: what memories give back, as tokens of the language model, each of a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from memlm.config import MAX_RATIO, PER_MEMORY, MemoryReaderConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.layout import Layout, laid_out, share_positions
from memlm.models.memory_reader import Groups, pad
from memlm.nn.pooling import MemoryVectors
from memlm.text.autoencoder import TextAutoencoder

Vectors = Float[Tensor, "memory vector dim"]
"""What is read of memories: their vectors, or the states that the parallel decoder makes of them."""


class Units(NamedTuple):
    """What is put in groups, in order."""

    tokens: NDArray[np.int64]
    """Of the language model; 0 for parts of memories."""
    chunk: NDArray[np.int64]
    """The memory that each comes from."""
    part: NDArray[np.int64]
    """Which of all memories' parts each is; -1 for a token."""


@dataclass(frozen=True, eq=False)
class Past:
    """The past of one text."""

    tokens: NDArray[np.int64]
    """[token], of the language model."""
    chunk: NDArray[np.int64]
    """[token], the memory that it comes from: that in which it begins."""
    vectors: Vectors

    def only(self, chunk: int) -> "Past":
        """One chunk of it."""
        here = self.chunk == chunk
        return Past(self.tokens[here], self.chunk[here] * 0, self.vectors[chunk : chunk + 1])

    def similarity(self, text: Sequence[int], surprisal: NDArray[np.float64]) -> NDArray[np.float64]:
        """How alike each chunk and a text are: the nats of the text's tokens that the chunk has too."""
        shared = np.unique(np.stack([self.chunk, self.tokens])[:, np.isin(self.tokens, text)], axis=1)
        return np.bincount(shared[0], surprisal[shared[1]], minlength=len(self.vectors)).astype(np.float64)

    def units(self, cfg: MemoryReaderConfig, expanded: Sequence[int] = ()) -> Units:
        """Its tokens; or, where a reader reads memories in parts, those, but the tokens of chunks that are expanded."""
        tokens = Units(self.tokens, self.chunk, np.full(len(self.tokens), -1))
        if cfg.source == "text":
            return tokens
        number = cfg.shape.chunk_len if cfg.unpools else self.vectors.shape[1]
        chunk = np.repeat(np.arange(len(self.vectors)), number)
        parts = Units(np.zeros_like(chunk), chunk, np.arange(len(chunk)))
        unread, read = ~np.isin(chunk, expanded), np.isin(self.chunk, expanded)
        both = Units(*(np.concatenate([a[unread], b[read]]) for a, b in zip(parts, tokens, strict=True)))
        order = np.argsort(both.chunk, kind="stable")
        return Units(*(each[order] for each in both))

    def layout(
        self,
        cfg: MemoryReaderConfig,
        surprisal: NDArray[np.float64],
        ratio: int,
        expanded: Sequence[int] = (),
        *,
        evenly: bool = False,
    ) -> Layout:
        """Where the units go at a ratio, the last tokens as well as those before where `evenly`; the tokens of expanded
        chunks have a position each, beside the others'.

        Raises:
            ValueError: there is no such ratio.
        """
        if not 0 <= ratio <= MAX_RATIO or ratio != int(ratio):
            raise ValueError(
                f"ratio must lie from 0 (one position for each memory) to {MAX_RATIO}, a whole number, not {ratio}"
            )
        units = self.units(cfg, expanded)
        exact = np.isin(units.chunk, expanded)
        group = np.zeros(len(exact), np.int64)
        # The rest between expanded chunks shares its positions over all of them.
        rest = ~exact
        if ratio == PER_MEMORY:
            group[rest] = units.chunk[rest]
        elif cfg.source == "text":
            positions = -(-int(rest.sum()) // ratio)
            recent_share = 0.0 if evenly else cfg.recent_share
            group[rest] = share_positions(surprisal[units.tokens[rest]], positions, recent_share).group
        else:
            # A vector that is not unpooled stands for more tokens than any ratio.
            whole = cfg.source == "vector" and not cfg.unpools
            group[rest] = units.part[rest] // (1 if whole else ratio)
        starts = np.ones(len(group), bool)
        starts[1:] = exact[1:] | exact[:-1] | (group[1:] != group[:-1])
        return laid_out(starts.cumsum() - 1)


def vectors_of(memory: MemoryVectors, encoder: TextAutoencoder, cfg: MemoryReaderConfig) -> Vectors:
    """What a reader reads of memories, on the CPU."""
    return encoder.states(memory) if cfg.source == "states" else memory.cpu()


def past_of(chunks: Sequence[Sequence[int]], vectors: Vectors, encoder: Tokenizer, model: Tokenizer) -> Past:
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
    units = [past.units(cfg, some) for past, some in zip(pasts, chosen, strict=True)]
    layouts = [
        past.layout(cfg, surprisal, ratio, some, evenly=evenly) for past, some in zip(pasts, chosen, strict=True)
    ]
    in_parts = cfg.source != "text"
    return Groups(
        pad([each.tokens.tolist() for each in units]),
        pad([layout.group.tolist() for layout in layouts], -1),
        pad([layout.slot.tolist() for layout in layouts]),
        pad([each.part.tolist() for each in units], -1) if in_parts else None,
        pad_sequence([past.vectors for past in pasts], batch_first=True) if in_parts else None,
    )
