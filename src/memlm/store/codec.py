"""Verified writing: text → chunks → memories, rounded as they are kept → regenerated, compared, and patched."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.data.documents import split_bytes
from memlm.models.batch import batch_chunks
from memlm.store.chunk import StoredChunk, checksum, deflated, inflated, patch_of, patched, vectors_of
from memlm.store.packing import Bits, pack, require_bits, unpack
from memlm.store.tokenized import MIN_CHUNK, Span, Tokenized, encoded
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Memory

_LEAST_MARGIN = 1e-2
"""Nats by which the right token must lead: less might be lost to rounding on another machine, and is patched."""
_RAW_CHUNKS = 8
"""Raw text is kept in pieces of so many chunks' tokens, since longer ones compress better."""
_PIECE_BYTES = 1 << 20
"""Text is tokenized in pieces of at most so many bytes: the tokens of a huge one would need many times its memory."""


class _Tried(NamedTuple):
    """A span of tokens, its memory, and what the decoder made of it."""

    span: Span
    vector: bytes
    scale: float
    wrong: Bool[np.ndarray, " token"]
    unsure: Bool[np.ndarray, " token"]

    @property
    def fidelity(self) -> float:
        return 1 - float(self.wrong.mean())


@dataclass(frozen=True)
class Codec:
    """Text → chunks that give it back byte for byte.

    Each stretch is one memory of a whole chunk, if that gives back `target` of its tokens; else of halves, or quarters.
    What they miss is patched, or all of it kept as raw text, if that is smaller.

    Raises:
        ValueError: the model's chunks are shorter than `MIN_CHUNK`, `bits` are none there are, or `target` is no share.
    """

    model: TextAutoencoder
    bits: Bits = 8
    target: float = 0.9

    def __post_init__(self) -> None:
        if self.chunk_len < MIN_CHUNK:
            raise ValueError(
                f"chunks of {self.chunk_len} tokens may end inside a character; at least {MIN_CHUNK} do not"
            )
        require_bits(self.bits)
        require_target(self.target)

    @property
    def chunk_len(self) -> int:
        """Tokens of a full chunk."""
        return self.model.config.shape.chunk_len

    def write(
        self, text: str, advance: Callable[[int], None] | None = None, *, whole_chunks: bool = False
    ) -> Iterator[StoredChunk]:
        """The chunks of a text, in order, each whole characters; `advance` hears of bytes done.

        With `whole_chunks` the last one is left out, which more text might make fuller.

        Raises:
            ValueError: the text holds a lone surrogate.
        """
        pieces = list(split_bytes(io.BytesIO(encoded(text)), _PIECE_BYTES))
        for number, piece in enumerate(pieces, 1):
            unfinished = whole_chunks and number == len(pieces)
            tokenized = Tokenized.of(self.model.tokenizer, piece)
            if tokenized is None:
                yield from self._raw_text(piece, advance, unfinished)
                continue
            spans = tokenized.spans(0, len(tokenized.tokens), self.chunk_len)[: -1 if unfinished else None]
            for start in range(0, len(spans), self._batch):
                some = spans[start : start + self._batch]
                yield from self._keep(tokenized, self._ladder(tokenized, some))
                if advance:
                    advance(len(tokenized.text(some[0][0], some[-1][1])))

    def read(self, chunks: Sequence[StoredChunk]) -> list[bytes]:
        """The text of chunks, which is only as sure as their checksums."""
        tokens = iter(self._regenerated(chunks))
        return [
            inflated(chunk.payload) if chunk.vector is None else self._spelled(patched(next(tokens), chunk.payload))
            for chunk in chunks
        ]

    def read_vectors(self, chunks: Sequence[StoredChunk]) -> list[bytes]:
        """What the vectors alone give back, as `TextAutoencoder.regenerate`: nothing, of text that is kept raw."""
        lengths = [chunk.num_tokens for chunk in chunks if chunk.vector is not None]
        memory = Memory(
            vectors=self.vectors(chunks),
            num_tokens=torch.tensor(lengths, dtype=torch.int64),
            num_chunks=(len(lengths),),
            encoder=self.model.encoder_fingerprint,
        )
        rows = self.model.rows(memory)
        return [b"" if chunk.vector is None else self._spelled(next(rows).tokens) for chunk in chunks]

    def vectors(self, chunks: Sequence[StoredChunk]) -> Float[Tensor, "chunk slot memory_dim"]:
        """The memories of those chunks that have one."""
        shape = self.model.config.shape
        return vectors_of(chunks, self.bits, shape.num_slots, shape.memory_dim)

    # --- writing ---------------------------------------------------------------------------------------------------

    def _ladder(self, tokenized: Tokenized, spans: list[Span]) -> list[_Tried]:
        """Each stretch as the longest chunks that reach the target, else the shortest."""
        done: list[_Tried] = []
        for shorter in (self.chunk_len // 2, self.chunk_len // 4, 0):
            tried = [row for batch in self._batches(spans) for row in self._try(tokenized, batch)]
            poor = [row.fidelity < self.target and shorter >= MIN_CHUNK for row in tried]
            done += itertools.compress(tried, (not is_poor for is_poor in poor))
            spans = [part for row in itertools.compress(tried, poor) for part in tokenized.spans(*row.span, shorter)]
        return sorted(done, key=lambda row: row.span)

    @torch.no_grad()
    def _try(self, tokenized: Tokenized, spans: list[Span]) -> Iterator[_Tried]:
        """Encode one batch, round, regenerate and compare."""
        tokens, mask = (part.to(self.model.device) for part in tokenized.chunks(spans, self.chunk_len))
        memory = self.model.model.encoder(tokens, mask).cpu()
        packed = pack(memory.flatten(1), self.bits)
        logits, place = self._logits(unpack(packed, self.bits, self._dim).reshape(memory.shape)), tokens[..., None]
        right = logits.gather(-1, place)
        lead = (right - logits.scatter_(-1, place, -torch.inf).amax(dim=-1, keepdim=True))[..., 0].cpu().numpy()
        wrong, unsure = ~(lead > 0), ~(lead > _LEAST_MARGIN)  # NaN is both
        for row, span in enumerate(spans):
            vector, scale, real = packed.rows[row].tobytes(), float(packed.scales[row]), slice(span[1] - span[0])
            yield _Tried(span, vector, scale, wrong[row, real], unsure[row, real])

    def _keep(self, tokenized: Tokenized, tried: list[_Tried]) -> Iterator[StoredChunk]:
        """Patch each, or keep it raw where that is smaller, and neighbours that are raw together."""
        patches = [patch_of(tokenized.tokens[slice(*row.span)], np.flatnonzero(row.unsure)) for row in tried]
        raw = [
            len(patch) > 0 and len(patch) >= len(deflated(tokenized.text(*row.span)))
            for row, patch in zip(tried, patches, strict=True)
        ]
        for is_raw, group in itertools.groupby(range(len(tried)), key=lambda place: raw[place]):
            places = list(group)
            if is_raw:
                per_piece = _RAW_CHUNKS * self.chunk_len
                for span in tokenized.spans(tried[places[0]].span[0], tried[places[-1]].span[1], per_piece):
                    yield _raw(tokenized.text(*span), span[1] - span[0])
                continue
            for place in places:
                yield _with_vector(tried[place], patches[place], tokenized.text(*tried[place].span))

    def _raw_text(self, data: bytes, advance: Callable[[int], None] | None, unfinished: bool) -> Iterator[StoredChunk]:
        """All of it raw: these tokens do not give it back."""
        for piece in list(split_bytes(io.BytesIO(data), _RAW_CHUNKS * self.chunk_len))[: -1 if unfinished else None]:
            yield _raw(piece, len(self.model.tokenizer.encode(piece.decode())))
            if advance:
                advance(len(piece))

    # --- reading ---------------------------------------------------------------------------------------------------

    def _regenerated(self, chunks: Sequence[StoredChunk]) -> Iterator[NDArray[np.int64]]:
        """The tokens that each vector gives back."""
        lengths = [chunk.num_tokens for chunk in chunks if chunk.vector is not None]
        batches = torch.split(self.vectors(chunks), self._batch)
        rows = (row for vectors in batches for row in self._logits(vectors).argmax(dim=-1).cpu().numpy())
        return (row[:length] for row, length in zip(rows, lengths, strict=False))

    @torch.no_grad()
    def _logits(self, vectors: Tensor) -> Tensor:
        # How many tokens a chunk has is known, and so none of them is the end token.
        return self.model.model.decoder(vectors.to(self.model.device))[..., : self.model.config.vocab_size]

    def _spelled(self, tokens: Iterable[int]) -> bytes:
        table = self.model.tokenizer.token_bytes
        return b"".join(table[token] for token in tokens)

    # --- sizes -----------------------------------------------------------------------------------------------------

    @property
    def _dim(self) -> int:
        shape = self.model.config.shape
        return shape.num_slots * shape.memory_dim

    @property
    def _batch(self) -> int:
        return batch_chunks(self.chunk_len, self.model.config.vocab_size)

    def _batches(self, spans: list[Span]) -> Iterator[list[Span]]:
        return (spans[start : start + self._batch] for start in range(0, len(spans), self._batch))


def require_target(target: object) -> None:
    """Raise ValueError where it is no share of tokens."""
    if not isinstance(target, Real) or not 0 <= float(target) <= 1:
        raise ValueError(f"the target fidelity is a share of tokens, from 0 to 1, not {target!r}")


def _with_vector(tried: _Tried, patch: bytes, text: bytes) -> StoredChunk:
    num_tokens = tried.span[1] - tried.span[0]
    num_wrong = int(tried.wrong.sum())
    return StoredChunk(num_tokens, len(text), num_wrong, tried.vector, tried.scale, patch, checksum(text))


def _raw(text: bytes, num_tokens: int) -> StoredChunk:
    return StoredChunk(num_tokens, len(text), num_tokens, None, 0.0, deflated(text), checksum(text))
