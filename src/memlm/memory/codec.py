"""Verified writing: text → chunks → memories, rounded as they are kept → regenerated, compared, and patched."""

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.data.corpus import cut
from memlm.evaluation.metrics import batch_chunks
from memlm.memory.kept import Kept, deflated, digest, inflated, patch_of, patched
from memlm.memory.packing import Bits, Packed, pack, unpack
from memlm.text_autoencoder import TextAutoencoder

MIN_CHUNK = 4
"""No character takes more byte-level tokens; a shorter chunk might have to end inside of one."""
_LEAST_MARGIN = 1e-2
"""Nats by which the right token must lead: less might be lost to rounding on another machine, and is patched."""
_RAW_CHUNKS = 8
"""Raw text is kept in pieces of so many chunks' tokens, since longer ones compress better."""

Span = tuple[int, int]
"""First token, and the one after the last."""


class _Tried(NamedTuple):
    """A span of tokens, its memory, and what the decoder made of it."""

    span: Span
    vector: NDArray[np.generic]
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
        ValueError: the model's chunks are shorter than `MIN_CHUNK`, or `target` is no share.
    """

    model: TextAutoencoder
    bits: Bits = 8
    target: float = 0.9

    def __post_init__(self) -> None:
        if self._chunk_len < MIN_CHUNK:
            raise ValueError(
                f"chunks of {self._chunk_len} tokens may end inside a character; at least {MIN_CHUNK} do not"
            )
        if not 0 <= self.target <= 1:
            raise ValueError(f"the target fidelity is a share of tokens, from 0 to 1, not {self.target}")

    def write(self, text: str, advance: Callable[[int], None] | None = None) -> Iterator[Kept]:
        """The chunks of a text, in order, each whole characters; `advance` hears of bytes done.

        Raises:
            ValueError: the text holds a lone surrogate.
        """
        tokenized = _Tokenized.of(self.model, text)
        if tokenized is None:
            yield from self._raw_text(text, advance)
            return
        spans = tokenized.spans(0, len(tokenized.tokens), self._chunk_len)
        for start in range(0, len(spans), self._batch):
            some = spans[start : start + self._batch]
            yield from self._keep(tokenized, self._ladder(tokenized, some))
            if advance:
                advance(len(tokenized.text(some[0][0], some[-1][1])))

    def read(self, kept: Sequence[Kept]) -> list[bytes]:
        """The text of chunks, which is only as sure as their checksums."""
        tokens = iter(self._regenerated(kept))
        return [
            inflated(chunk.payload) if chunk.vector is None else self._spelled(patched(next(tokens), chunk.payload))
            for chunk in kept
        ]

    def read_vectors(self, kept: Sequence[Kept]) -> list[bytes]:
        """What the vectors alone give back: nothing, of text that is kept raw."""
        tokens = iter(self._regenerated(kept))
        return [b"" if chunk.vector is None else self._spelled(next(tokens)) for chunk in kept]

    def vectors(self, kept: Sequence[Kept]) -> Float[Tensor, "chunk slot memory_dim"]:
        """The memories of those chunks that have one."""
        shape = self.model.config.shape
        rows = [chunk.vector for chunk in kept if chunk.vector is not None]
        scales = [chunk.scale for chunk in kept if chunk.vector is not None]
        if not rows:
            return torch.zeros(0, shape.num_slots, shape.memory_dim)
        packed = Packed(np.stack(rows), np.array(scales, np.float32))
        return unpack(packed, self.bits, self._dim).reshape(len(rows), shape.num_slots, shape.memory_dim)

    # --- writing ---------------------------------------------------------------------------------------------------

    def _ladder(self, tokenized: "_Tokenized", spans: list[Span]) -> list[_Tried]:
        """Each stretch as the longest chunks that reach the target, else the shortest."""
        done: list[_Tried] = []
        for shorter in (self._chunk_len // 2, self._chunk_len // 4, 0):
            tried = [row for batch in self._batches(spans) for row in self._try(tokenized, batch)]
            poor = [row.fidelity < self.target and shorter >= MIN_CHUNK for row in tried]
            done += itertools.compress(tried, (not is_poor for is_poor in poor))
            spans = [part for row in itertools.compress(tried, poor) for part in tokenized.spans(*row.span, shorter)]
        return sorted(done, key=lambda row: row.span)

    @torch.no_grad()
    def _try(self, tokenized: "_Tokenized", spans: list[Span]) -> Iterator[_Tried]:
        """Encode one batch, round, regenerate and compare."""
        tokens, mask = tokenized.chunks(spans, self._chunk_len)
        device = self.model.device
        memory = self.model.model.encoder(tokens.to(device), mask.to(device)).cpu()
        packed = pack(memory.flatten(1), self.bits)
        logits = self._logits(unpack(packed, self.bits, self._dim).reshape(memory.shape)).cpu()
        right = logits.gather(-1, tokens[..., None])
        rest = logits.scatter(-1, tokens[..., None], -torch.inf).amax(dim=-1, keepdim=True)
        unsure = ~(right - rest > _LEAST_MARGIN)[..., 0].numpy()  # NaN is unsure as well
        wrong = (logits.argmax(dim=-1) != tokens).numpy()
        for row, span in enumerate(spans):
            length = span[1] - span[0]
            yield _Tried(
                span, packed.rows[row], float(packed.scales[row]), wrong[row, :length], (unsure | wrong)[row, :length]
            )

    def _keep(self, tokenized: "_Tokenized", tried: list[_Tried]) -> Iterator[Kept]:
        """Patch each, or keep it raw where that is smaller, and neighbours that are raw together."""
        patches = [patch_of(tokenized.tokens[slice(*row.span)], np.flatnonzero(row.unsure)) for row in tried]
        raw = [
            len(patch) > 0 and len(patch) >= len(deflated(tokenized.text(*row.span)))
            for row, patch in zip(tried, patches, strict=True)
        ]
        for is_raw, group in itertools.groupby(range(len(tried)), key=lambda place: raw[place]):
            places = list(group)
            if is_raw:
                per_piece = _RAW_CHUNKS * self._chunk_len
                for span in tokenized.spans(tried[places[0]].span[0], tried[places[-1]].span[1], per_piece):
                    yield _raw(tokenized.text(*span), span[1] - span[0])
                continue
            for place in places:
                yield _with_vector(tried[place], patches[place], tokenized.text(*tried[place].span))

    def _raw_text(self, text: str, advance: Callable[[int], None] | None) -> Iterator[Kept]:
        """All of it raw: this tokenizer does not give it back."""
        for piece in cut(io.BytesIO(text.encode()), _RAW_CHUNKS * self._chunk_len):
            yield _raw(piece, len(self.model.tokenizer.encode(piece.decode())))
            if advance:
                advance(len(piece))

    # --- reading ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _regenerated(self, kept: Sequence[Kept]) -> Iterator[NDArray[np.int64]]:
        """The tokens that each vector gives back."""
        lengths = [chunk.num_tokens for chunk in kept if chunk.vector is not None]
        batches = torch.split(self.vectors(kept), self._batch)
        rows = (row for vectors in batches for row in self._logits(vectors).argmax(dim=-1).cpu().numpy())
        return (row[:length] for row, length in zip(rows, lengths, strict=False))

    def _logits(self, vectors: Tensor) -> Tensor:
        return self.model.model.decoder(vectors.to(self.model.device))

    def _spelled(self, tokens: NDArray[np.int64]) -> bytes:
        table = self.model.tokenizer.token_bytes
        return b"".join(table[token] for token in tokens.tolist())

    # --- sizes -----------------------------------------------------------------------------------------------------

    @property
    def _chunk_len(self) -> int:
        return self.model.config.shape.chunk_len

    @property
    def _dim(self) -> int:
        shape = self.model.config.shape
        return shape.num_slots * shape.memory_dim

    @property
    def _batch(self) -> int:
        return batch_chunks(self._chunk_len, self.model.config.vocab_size)

    def _batches(self, spans: list[Span]) -> Iterator[list[Span]]:
        return (spans[start : start + self._batch] for start in range(0, len(spans), self._batch))


class _Tokenized(NamedTuple):
    """A text's tokens, and where its bytes and its characters begin among them."""

    data: bytes
    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    """[token + 1], in bytes."""
    whole: Bool[np.ndarray, " token_plus_1"]
    """Whether a character begins there."""

    @classmethod
    def of(cls, model: TextAutoencoder, text: str) -> "_Tokenized | None":
        """None, where the tokens do not spell the text."""
        tokenizer = model.tokenizer
        try:
            data = text.encode()
        except UnicodeEncodeError:
            tokenizer.encode(text)  # refuses it with a better message
            raise
        # In pieces, for all cores, and so that a line of megabytes is no single word.
        pieces = [piece.decode() for piece in cut(io.BytesIO(data))]
        tokens = np.concatenate([np.zeros(0, np.int32), *tokenizer.encode_batch(pieces)]).astype(np.int64)
        spelled = [tokenizer.token_bytes[token] for token in tokens.tolist()]
        sizes = np.array([len(token) for token in spelled], dtype=np.int64)
        if b"".join(spelled) != data or not sizes.all():
            return None
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        # A byte 0b10xxxxxx goes on with a character; at the very end, one would begin.
        begins = (np.frombuffer(data + b"\0", np.uint8) & 0xC0) != 0x80
        return cls(data, tokens, offsets, begins[offsets])

    def text(self, start: int, stop: int) -> bytes:
        """The bytes of some tokens."""
        return self.data[self.offsets[start] : self.offsets[stop]]

    def spans(self, start: int, stop: int, length: int) -> list[Span]:
        """Cut tokens into spans of at most `length`, each whole characters."""
        spans = []
        while start < stop:
            end = min(start + length, stop)
            while not self.whole[end]:
                end -= 1
            spans.append((start, end))
            start = end
        return spans

    def chunks(self, spans: list[Span], chunk_len: int) -> tuple[Tensor, Tensor]:
        """Padded tokens [chunk token], and their mask."""
        starts, stops = np.array(spans).T
        index = starts[:, None] + np.arange(chunk_len)
        mask = index < stops[:, None]
        tokens = np.where(mask, self.tokens[np.minimum(index, len(self.tokens) - 1)], 0)
        return torch.from_numpy(tokens), torch.from_numpy(mask)


def _with_vector(tried: _Tried, patch: bytes, text: bytes) -> Kept:
    num_tokens = tried.span[1] - tried.span[0]
    num_wrong = int(tried.wrong.sum())
    return Kept(num_tokens, len(text), num_wrong, tried.vector, tried.scale, patch, digest(text))


def _raw(text: bytes, num_tokens: int) -> Kept:
    return Kept(num_tokens, len(text), num_tokens, None, 0.0, deflated(text), digest(text))
