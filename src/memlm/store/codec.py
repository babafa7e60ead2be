"""Verified writing: text → chunks → memories, rounded as they are stored → regenerated, compared, and patched."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.data.chunks import Chunks
from memlm.data.documents import split_bytes, utf8
from memlm.data.tokenizer import Tokenizer
from memlm.models.batch import Batch, batch_chunks
from memlm.store.chunk import About, StoredChunk, checksum, deflated, inflated, patch_of, patched
from memlm.store.packing import BITS, Bits, Packed, pack, unpack
from memlm.text.autoencoder import TextAutoencoder

MIN_CHUNK = 4
"""Tokens within which a character ends, since none takes more bytes: a shorter chunk might have to end inside of one.
Tokenizers whose tokens reach from one character into the next may need more; then the text is stored raw."""

Span = tuple[int, int]
"""First token, and the one after the last."""

_LEAST_MARGIN = 1e-2
"""Nats by which the right token must lead: less might be lost to rounding on another machine, and is patched."""
RAW_CHUNKS = 8
"""Raw text is stored in pieces of so many chunks' tokens, since longer ones compress better."""
_PIECE_BYTES = 1 << 20
"""Text is tokenized in pieces of at most so many bytes: the tokens of a huge one would need many times its memory."""


class Tokenized(NamedTuple):
    """A text's tokens, and where its bytes and its characters begin among them."""

    data: bytes
    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    """[token + 1], in bytes."""
    whole: Bool[np.ndarray, " token_plus_1"]
    """Whether a character begins there."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, data: bytes) -> Self | None:
        """None, where the tokens do not spell the text, or too many in a row end inside of characters."""
        # In pieces, for all cores, and so that a line of megabytes is no single word.
        pieces = [piece.decode() for piece in split_bytes([data])]
        tokens = np.concatenate([np.zeros(0, np.int32), *tokenizer.encode_batch(pieces)]).astype(np.int64)
        spelled = [tokenizer.token_bytes[token] for token in tokens.tolist()]
        sizes = np.array([len(token) for token in spelled], dtype=np.int64)
        if b"".join(spelled) != data or not sizes.all():
            return None
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        # A byte 0b10xxxxxx goes on with a character; at the very end, one would begin.
        begins = (np.frombuffer(data + b"\0", np.uint8) & 0xC0) != 0x80
        whole = begins[offsets]
        if np.diff(np.flatnonzero(whole)).max(initial=0) > MIN_CHUNK:
            return None
        return cls(data, tokens, offsets, whole)

    def text(self, start: int, stop: int) -> bytes:
        """The bytes of some tokens."""
        return self.data[self.offsets[start] : self.offsets[stop]]

    def spans(self, start: int, stop: int, length: int) -> list[Span]:
        """Split tokens into spans of at most `length`, each whole characters."""
        spans = []
        while start < stop:
            end = min(start + length, stop)
            while not self.whole[end]:
                end -= 1
            spans.append((start, end))
            start = end
        return spans

    def chunks(self, spans: Sequence[Span], chunk_len: int) -> Chunks:
        """Spans, padded."""
        starts, stops = np.array(spans).T
        index = starts[:, None] + np.arange(chunk_len)
        mask = index < stops[:, None]
        tokens = np.where(mask, self.tokens[np.minimum(index, len(self.tokens) - 1)], 0)
        return Chunks(tokens, mask, np.zeros(len(spans), np.int64))


class _Tried(NamedTuple):
    """A span of tokens, its memory, and what the decoder made of it."""

    span: Span
    vector: bytes
    scale: float
    wrong: Bool[np.ndarray, " token"]
    unsure: Bool[np.ndarray, " token"]


@dataclass(frozen=True)
class Codec:
    """Text → chunks that give it back byte for byte.

    Each stretch is one memory of a whole chunk, if that gives back `target` of its tokens; else of halves, or quarters.
    What they miss is patched, or all of it stored as raw text, if that is smaller.

    Raises:
        ValueError: the model's chunks are shorter than `MIN_CHUNK`; there are no such `bits`; `target` is not a share.
    """

    model: TextAutoencoder
    bits: Bits = 8
    target: float = 0.9

    def __post_init__(self) -> None:
        if self.chunk_len < MIN_CHUNK:
            raise ValueError(
                f"chunks of {self.chunk_len} tokens may end inside a character; at least {MIN_CHUNK} do not"
            )
        require_options(self.bits, self.target)

    @property
    def chunk_len(self) -> int:
        """Tokens of a full chunk."""
        return self.model.config.shape.chunk_len

    @cached_property
    def about(self) -> About:
        """What is said of the chunks in a file."""
        model, shape = self.model, self.model.config.shape
        return About(
            encoder=model.source,
            fingerprint=model.encoder_fingerprint,
            bits=self.bits,
            num_slots=shape.num_slots,
            memory_dim=model.config.vector_dim,
            search_dim=model.config.search_dim,
        )

    def write(
        self, text: str, advance: Callable[[int], None] | None = None, *, whole_chunks: bool = False
    ) -> Iterator[StoredChunk]:
        """The chunks of a text, in order, each whole characters; `advance` is called with bytes done.

        With `whole_chunks` the last one is left out, which more text might make fuller.

        Raises:
            ValueError: the text holds a lone surrogate.
        """
        batches: Iterator[list[StoredChunk]]
        pieces = list(split_bytes([utf8(text)], _PIECE_BYTES))
        for number, piece in enumerate(pieces, 1):
            end = -1 if whole_chunks and number == len(pieces) else None
            tokenized = Tokenized.of(self.model.tokenizer, piece)
            if tokenized is None:  # these tokens do not give it back: all of it raw
                per_piece = RAW_CHUNKS * self.chunk_len
                batches = ([self._raw(part)] for part in list(split_bytes([piece], per_piece))[:end])
            else:
                batches = self._stored(tokenized, tokenized.spans(0, len(tokenized.tokens), self.chunk_len)[:end])
            for chunks in batches:
                yield from chunks
                if advance:
                    advance(sum(chunk.num_bytes for chunk in chunks))

    def read(self, chunks: Sequence[StoredChunk]) -> list[bytes]:
        """The text of chunks, which is only as sure as their checksums."""
        batches = torch.split(self.about.memory(chunks).vectors, self._batch)
        rows = (row for vectors in batches for row in self._logits(vectors).argmax(dim=-1).cpu().numpy())
        return [
            inflated(chunk.payload)
            if chunk.vector is None
            else self._spelled(patched(next(rows)[: chunk.num_tokens], chunk.payload))
            for chunk in chunks
        ]

    def read_vectors(self, chunks: Sequence[StoredChunk]) -> list[bytes]:
        """What the vectors alone give back, as `TextAutoencoder.regenerate`; nothing, of text that is stored raw."""
        rows = self.model.rows(self.about.memory(chunks))
        return [b"" if chunk.vector is None else self._spelled(next(rows).tokens) for chunk in chunks]

    @torch.no_grad()
    def sent(self, chunks: Chunks) -> Iterator[tuple[Batch, Packed, Float[Tensor, "chunk token vocab"]]]:
        """Chunks, batch by batch: their memories, rounded as they are stored, and what the decoder makes of those."""
        for batch, memory in self.model.encoded(chunks, batch_size=self._batch):
            packed = pack(memory.cpu().flatten(1), self.bits)
            rounded = unpack(packed, self.bits, memory[0].numel()).reshape(memory.shape)
            yield batch, packed, self._logits(rounded)

    # --- writing ---------------------------------------------------------------------------------------------------

    def _stored(self, tokenized: Tokenized, spans: Sequence[Span]) -> Iterator[list[StoredChunk]]:
        for start in range(0, len(spans), self._batch):
            yield [*self._patched(tokenized, self._shortened(tokenized, spans[start : start + self._batch]))]

    def _shortened(self, tokenized: Tokenized, spans: Sequence[Span]) -> list[_Tried]:
        """Each span as the longest chunks that reach the target, else the shortest."""
        done: list[_Tried] = []
        for shorter in (self.chunk_len // 2, self.chunk_len // 4, 0):
            tried = [*self._try(tokenized, spans)] if spans else []
            poor = [shorter >= MIN_CHUNK and 1 - float(row.wrong.mean()) < self.target for row in tried]
            done += itertools.compress(tried, (not is_poor for is_poor in poor))
            spans = [part for row in itertools.compress(tried, poor) for part in tokenized.spans(*row.span, shorter)]
        return sorted(done, key=lambda row: row.span)

    def _try(self, tokenized: Tokenized, spans: Sequence[Span]) -> Iterator[_Tried]:
        """Compare with what comes back."""
        chunks, left = tokenized.chunks(spans, self.chunk_len), iter(spans)
        for batch, packed, logits in self.sent(chunks):
            place = batch.tokens[..., None]
            right = logits.gather(-1, place)
            lead = (right - logits.scatter_(-1, place, -torch.inf).amax(dim=-1, keepdim=True))[..., 0].cpu().numpy()
            wrong, unsure = ~(lead > 0), ~(lead > _LEAST_MARGIN)  # NaN is both
            for row, span in zip(range(len(logits)), left, strict=False):
                vector, scale, real = packed.rows[row].tobytes(), float(packed.scales[row]), slice(span[1] - span[0])
                yield _Tried(span, vector, scale, wrong[row, real], unsure[row, real])

    def _patched(self, tokenized: Tokenized, tried: list[_Tried]) -> Iterator[StoredChunk]:
        """Each with its patch, or raw where that is smaller; neighbours that are raw are stored together."""
        texts = [tokenized.text(*row.span) for row in tried]
        patches = [patch_of(tokenized.tokens[slice(*row.span)], np.flatnonzero(row.unsure)) for row in tried]
        pairs = zip(patches, texts, strict=True)
        raw = [len(patch) > 0 and len(patch) >= len(deflated(text)) for patch, text in pairs]
        for is_raw, group in itertools.groupby(zip(tried, patches, texts, raw, strict=True), key=lambda row: row[3]):
            rows = list(group)
            if is_raw:
                first, last = rows[0][0].span, rows[-1][0].span
                for start, stop in tokenized.spans(first[0], last[1], RAW_CHUNKS * self.chunk_len):
                    yield self._raw(tokenized.text(start, stop), stop - start)
                continue
            for (span, vector, scale, wrong, _), patch, text, _ in rows:
                num_tokens, num_wrong = span[1] - span[0], int(wrong.sum())
                yield StoredChunk(num_tokens, len(text), num_wrong, vector, scale, patch, checksum(text))

    def _raw(self, text: bytes, num_tokens: int | None = None) -> StoredChunk:
        if num_tokens is None:
            num_tokens = len(self.model.tokenizer.encode(text.decode()))
        return StoredChunk(num_tokens, len(text), num_tokens, None, 0.0, deflated(text), checksum(text))

    # --- decoding --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _logits(self, vectors: Tensor) -> Float[Tensor, "chunk token vocab"]:
        # How many tokens a chunk has is known, and so none of them is the end token.
        return self.model.model.decoder(vectors.to(self.model.device))[..., : self.model.config.vocab_size]

    def _spelled(self, tokens: Iterable[int]) -> bytes:
        table = self.model.tokenizer.token_bytes
        return b"".join(table[token] for token in tokens)

    @property
    def _batch(self) -> int:
        return batch_chunks(self.chunk_len, self.model.config.vocab_size)


def require_options(bits: object, target: object) -> None:
    """Raise ValueError where vectors cannot be stored in so many bits, or the target is not a share of tokens."""
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"bits of a dimension are one of {', '.join(map(str, BITS))}, not {bits!r}")
    if not isinstance(target, Real) or not 0 <= float(target) <= 1:
        raise ValueError(f"the target fidelity is a share of tokens, from 0 to 1, not {target!r}")
