"""Verified writing: text → chunks → memories, rounded as they are stored → what they miss, as patches; and reading."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import NamedTuple, Self, cast

import torch

from memlm.data.chunks import Chunks, concat_chunks
from memlm.data.documents import split_bytes, utf8
from memlm.models.batch import Batch, batch_chunks
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.cpu import precision_on
from memlm.runtime.untrusted import inflated
from memlm.store.chunk import About, Coding, StoredChunk, deflated
from memlm.store.packing import BITS, Bits, Packed, pack, unpack
from memlm.store.patches import Patch, Patches, patches_of
from memlm.store.tokenized import MIN_CHUNK, NOTHING, Span, Tokenized
from memlm.text.autoencoder import TextAutoencoder

DEFAULT_BITS: Bits = 8
DEFAULT_TARGET = 0.9
RAW_CHUNKS = 8
"""Raw text is stored in pieces of so many chunks' tokens, since longer ones compress better."""
_HARDLY_SMALLER = 0.9
"""A chunk that takes more of its text's bytes is raw: what its model cannot expect, such as random characters, is
smaller together with its neighbours."""
_MOST_RAW = 1 << 20
"""Bytes of such a piece, unless tokens are very long."""
_SIDE_BY_SIDE = 256
"""Chunks that are worked on together."""
_PIECE_BYTES = 1 << 20
"""Text is tokenized in pieces of at most so many bytes: the tokens of a huge one would need many times its memory."""

_BLOCK_BYTES = 1 << 16


class _Tried(NamedTuple):
    """A span of tokens as a memory."""

    span: Span
    text: bytes
    vector: bytes
    scale: float
    patch: Patch

    @property
    def num_tokens(self) -> int:
        """Of the span."""
        return self.span[1] - self.span[0]

    @property
    def fidelity(self) -> float:
        """The share of them that the vector gives back."""
        return 1 - self.patch.num_wrong / self.num_tokens


class _Stretch(NamedTuple):
    """A part of a text that is worked on at once."""

    number: int
    """Of the text."""
    tokenized: Tokenized = NOTHING
    spans: Sequence[Span] = ()
    raw: Sequence[StoredChunk] = ()
    """What its tokens do not give back."""


@dataclass(frozen=True)
class Codec:
    """Text → chunks that give it back byte for byte.

    Each stretch is one memory of a whole chunk, if that gives back `target` of its tokens; else of halves, or quarters.
    What they miss is patched, or all of it stored as raw text, if that is smaller than the patch. Without a target only
    bytes count: chunks are whole, and raw where that is smaller than vector and patch together, or these hardly smaller
    than the text.

    Raises:
        ValueError: the model's chunks are shorter than `MIN_CHUNK`; there are no such `bits`; `target` is not a share.
    """

    model: TextAutoencoder
    bits: Bits = DEFAULT_BITS
    target: float | None = DEFAULT_TARGET

    @classmethod
    def of(cls, model: TextAutoencoder, bits: Bits | None = None, target: float | None = None) -> Self:
        """With the bits that a model was trained for, and then without a target; else with 8, and 0.9."""
        trained = model.config.shape.num_bits
        fits = trained is not None and trained in BITS
        if bits is None:
            bits = cast(Bits, trained) if fits else DEFAULT_BITS
        if target is None and bits != trained:
            target = DEFAULT_TARGET
        return cls(model, bits, target)

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
            scaled=self.bits != shape.num_bits or model.config.search_dim > 0,
        )

    def write(
        self, text: str | Iterator[str], advance: Callable[[int], None] | None = None, *, whole_chunks: bool = False
    ) -> Iterator[StoredChunk]:
        """The chunks of a text, in order, each whole characters; `advance` is called with bytes done.

        Of a text that is given in pieces, no more is held at once than is worked on. With `whole_chunks` the last chunk
        is left out, which more text might make fuller.

        Raises:
            ValueError: the text holds a lone surrogate.
            TypeError: a piece is not a string.
        """
        for _, chunks in self.write_all([text], advance, whole_chunks=whole_chunks):
            yield from chunks

    def write_all(
        self,
        texts: Iterable[str | Iterator[str]],
        advance: Callable[[int], None] | None = None,
        *,
        whole_chunks: bool = False,
    ) -> Iterator[tuple[int, list[StoredChunk]]]:
        """The chunks of several texts, in order, with the number of their text, of which each comes at least once.

        Many short texts are worked on together. Otherwise as `write`.
        """
        waiting, num_spans = list[_Stretch](), 0
        for number, text in enumerate(texts):
            for stretch in self._stretches(number, text, whole_chunks):
                waiting.append(stretch)
                num_spans += len(stretch.spans)
                if num_spans >= _SIDE_BY_SIDE:
                    yield from self._stored(waiting, advance)
                    waiting, num_spans = [], 0
        yield from self._stored(waiting, advance)

    def read(self, chunks: Sequence[StoredChunk]) -> list[bytes | None]:
        """The text of chunks; None where it is not proven to be what was written."""
        texts: list[bytes | None] = [self._raw_text(chunk) if chunk.vector is None else None for chunk in chunks]
        fits = [0 <= chunk.num_tokens <= self.chunk_len for chunk in chunks]
        for patches in self._patches:
            numbers = [number for number, chunk in enumerate(chunks) if fits[number] and chunk.coding == patches.coding]
            for start in range(0, len(numbers), _SIDE_BY_SIDE):
                batch = numbers[start : start + _SIDE_BY_SIDE]
                some = [chunks[number] for number in batch]
                found = patches.read(
                    self.about.memory(some).vectors,
                    [chunk.payload for chunk in some],
                    [chunk.num_tokens for chunk in some],
                )
                for number, text in zip(batch, found, strict=True):
                    texts[number] = text
        return texts

    def _raw_text(self, chunk: StoredChunk) -> bytes | None:
        """Of a raw chunk."""
        try:
            text = inflated(chunk.payload, min(chunk.num_bytes, max(_MOST_RAW, RAW_CHUNKS * self._full_bytes)))
        except ValueError:
            return None
        return text if len(text) == chunk.num_bytes else None

    @cached_property
    def _full_bytes(self) -> int:
        """At most of a full chunk's text."""
        return self.chunk_len * max(map(len, self.model.tokenizer.token_bytes))

    def read_vectors(self, chunks: Sequence[StoredChunk]) -> list[bytes]:
        """What the vectors alone give back, as `TextAutoencoder.regenerate`; nothing, of text that is stored raw."""
        rows, table = self.model.rows(self.about.memory(chunks)), self.model.tokenizer.token_bytes
        return [
            b"" if chunk.vector is None else b"".join(table[token] for token in next(rows).tokens) for chunk in chunks
        ]

    @torch.no_grad()
    def sent(self, chunks: Chunks) -> Iterator[tuple[Batch, Packed, MemoryVectors]]:
        """Chunks, batch by batch: their memories as they are packed, and unpacked again."""
        batch_size = batch_chunks(self.chunk_len, self.model.config.vocab_size)
        # To eight bits or fewer they are rounded by more than products in bf16 move them; but a model's own rounding
        # would tip over.
        coarse = self.bits <= 8 and self.model.config.shape.num_bits is None
        half = coarse and precision_on(self.model.device) == "bf16"
        for batch, memory in self.model.encoded(chunks, batch_size=batch_size, half=half):
            packed = pack(memory.cpu().flatten(1), self.bits, scaled=self.about.scaled)
            yield batch, packed, unpack(packed, self.bits, memory[0].numel()).reshape(memory.shape)

    # --- writing ---------------------------------------------------------------------------------------------------

    def _stretches(self, number: int, text: str | Iterator[str], whole_chunks: bool) -> Iterator[_Stretch]:
        """A text in stretches to be worked on."""
        pieces = split_bytes(_blocks(text), _PIECE_BYTES)
        after = next(pieces, None)
        if after is None:
            yield _Stretch(number)
        while after is not None:
            piece, after = after, next(pieces, None)
            end = -1 if whole_chunks and after is None else None
            tokenized = Tokenized.of(self.model.tokenizer, piece)
            if tokenized is None:  # these tokens do not give it back: all of it raw
                per_piece = RAW_CHUNKS * self.chunk_len
                yield _Stretch(number, raw=[self._raw(part) for part in list(split_bytes([piece], per_piece))[:end]])
                continue
            spans = tokenized.spans(0, len(tokenized.tokens), self.chunk_len)[:end]
            for start in range(0, len(spans), _SIDE_BY_SIDE):
                yield _Stretch(number, tokenized, spans[start : start + _SIDE_BY_SIDE])

    def _stored(
        self, stretches: Sequence[_Stretch], advance: Callable[[int], None] | None
    ) -> Iterator[tuple[int, list[StoredChunk]]]:
        for stretch, tried in zip(stretches, self._shortened(stretches), strict=True):
            chunks = [*stretch.raw, *self._smallest(stretch.tokenized, tried)]
            yield stretch.number, chunks
            if advance:
                advance(sum(chunk.num_bytes for chunk in chunks))

    def _shortened(self, stretches: Sequence[_Stretch]) -> list[list[_Tried]]:
        """Of each stretch, its spans as the longest chunks that reach the target, else the shortest."""
        done: list[list[_Tried]] = [[] for _ in stretches]
        left = [(place, span) for place, stretch in enumerate(stretches) for span in stretch.spans]
        for shorter in (self.chunk_len // 2, self.chunk_len // 4, 0):
            tried = [*zip(left, self._try([(stretches[place].tokenized, span) for place, span in left]), strict=True)]
            left = []
            for (place, span), row in tried:
                if shorter >= MIN_CHUNK and self.target is not None and row.fidelity < self.target:
                    left += [(place, part) for part in stretches[place].tokenized.spans(*span, shorter)]
                else:
                    done[place].append(row)
        return [sorted(rows, key=lambda row: row.span) for rows in done]

    def _try(self, spans: Sequence[tuple[Tokenized, Span]]) -> Iterator[_Tried]:
        """Make memories, and see what they miss."""
        if not spans:
            return
        chunks = concat_chunks([tokenized.chunks([span], self.chunk_len) for tokenized, span in spans])
        _, packed, memory = zip(*self.sent(chunks), strict=True)
        texts = [tokenized.text(*span) for tokenized, span in spans]
        patches = self._patches[0].write(torch.cat(memory), Batch.of(chunks), texts)
        vectors = (pair for some in packed for pair in zip(some.rows, some.scales, strict=True))
        for (_, span), text, (row, scale), patch in zip(spans, texts, vectors, patches, strict=True):
            yield _Tried(span, text, row.tobytes(), float(scale), patch)

    def _smallest(self, tokenized: Tokenized, tried: list[_Tried]) -> Iterator[StoredChunk]:
        """Each with its patch, or raw where that is smaller; neighbours that are raw are stored together."""
        for is_raw, group in itertools.groupby(tried, key=self._is_raw):
            rows = list(group)
            if is_raw:
                first, last = rows[0].span, rows[-1].span
                for start, stop in tokenized.spans(first[0], last[1], RAW_CHUNKS * self.chunk_len):
                    yield self._raw(tokenized.text(start, stop), stop - start)
                continue
            for row in rows:
                payload, _, num_wrong = row.patch
                numbers = row.num_tokens, len(row.text), num_wrong, self._patches[0].coding
                yield StoredChunk(*numbers, row.vector, row.scale, payload)

    def _is_raw(self, tried: _Tried) -> bool:
        patch = tried.patch
        if self.target is None:
            size = self.about.vector_bytes + len(patch.payload)
            return size >= min(len(deflated(tried.text)), _HARDLY_SMALLER * len(tried.text))
        return patch.num_bytes > 0 and patch.num_bytes >= len(deflated(tried.text))

    def _raw(self, text: bytes, num_tokens: int | None = None) -> StoredChunk:
        if num_tokens is None:
            num_tokens = len(self.model.tokenizer.encode(text.decode()))
        return StoredChunk(num_tokens, len(text), num_tokens, Coding.RAW, None, 1.0, deflated(text))

    @cached_property
    def _patches(self) -> list[Patches]:
        """How patches are written, and then others that are read."""
        return patches_of(self.model)


def _blocks(text: str | Iterator[str]) -> Iterator[bytes]:
    """In UTF-8; small pieces, such as lines, are joined."""
    if isinstance(text, str):
        yield utf8(text)
        return
    held = bytearray()
    for piece in text:
        if not isinstance(piece, str):
            raise TypeError(
                f"the pieces of a text are strings, not {piece!r:.40}; open a file without 'b', or decode it"
            )
        held += utf8(piece)
        if len(held) >= _BLOCK_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def require_options(bits: object, target: object) -> None:
    """Raise ValueError where vectors cannot be stored in so many bits, or the target is not a share of tokens."""
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"bits of a dimension are one of {', '.join(map(str, BITS))}, not {bits!r}")
    if target is not None and not (isinstance(target, Real) and 0 <= float(target) <= 1):
        raise ValueError(f"the target fidelity is a share of tokens, from 0 to 1, not {target!r}")
