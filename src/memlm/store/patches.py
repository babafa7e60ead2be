"""Patches: what has to be stored beside a vector so that the exact text comes back, and is proven to be it."""

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from memlm.models.batch import Batch, batch_chunks
from memlm.models.context import ContextHead
from memlm.models.exact import has_exact_form
from memlm.models.exact_fused import FusedDecoder
from memlm.nn.argmax import argmax
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.untrusted import inflated
from memlm.store.chunk import Coding, checksum, deflated
from memlm.store.intervals import Divided
from memlm.store.range_coder import STATE_BYTES, Codes, coded
from memlm.text.autoencoder import TextAutoencoder

_LEAST_MARGIN = 1e-2
"""Nats by which the right token must lead: less might be lost to rounding on another machine, and is patched."""
_PROOF_BYTES = 8
"""Of the text's checksum, with which a payload of placed tokens begins."""

Tokens = NDArray[np.int64]
"""[token]"""
States = Float[Tensor, "chunk token dim"]


class Patch(NamedTuple):
    """Of one chunk."""

    payload: bytes
    num_bytes: int
    """Of it, those that are not there to prove the text."""
    num_wrong: int
    """Tokens that the vector alone does not give back."""


class Patches(Protocol):
    """A way to write patches, and to read text by them."""

    coding: Coding

    def write(self, memory: MemoryVectors, batch: Batch, texts: Sequence[bytes]) -> Iterator[Patch]:
        """For each chunk, its memory (as it is stored), its tokens and its text."""

    def read(self, memory: MemoryVectors, payloads: Sequence[bytes], lengths: Sequence[int]) -> Iterator[bytes | None]:
        """The texts of chunks of so many tokens; None where it is not proven to be what was written."""


def patches_of(model: TextAutoencoder) -> list[Patches]:
    """How a model's patches are written; and others that it can read."""
    if not has_exact_form(model.config):
        return [PlacedPatches(model)]
    contexts = (True, False) if model.config.context else (False,)
    return [*(CodedPatches(model, in_context=in_context) for in_context in contexts), PlacedPatches(model)]


class CodedPatches:
    """All tokens of a chunk, by a range coder with the decoder's own probabilities: what it expects costs nearly
    nothing, and an almost right memory little. The arithmetic is exact (`models.exact`)."""

    def __init__(self, model: TextAutoencoder, *, in_context: bool) -> None:
        self.coding = Coding.IN_CONTEXT if in_context else Coding.CODED
        self._spelling = model.tokenizer.token_bytes
        self._model, self._in_context = model.model, in_context

    @cached_property
    def _decoder(self) -> FusedDecoder:
        return FusedDecoder(self._model, in_context=self._in_context)

    @cached_property
    def _divided(self) -> Divided:
        return Divided(self._decoder, self._model.decoder.shape.vocab_size)

    @torch.no_grad()
    def write(self, memory: MemoryVectors, batch: Batch, texts: Sequence[bytes]) -> Iterator[Patch]:
        """See `Patches`."""
        lengths = batch.mask.sum(dim=1).tolist()
        found = torch.cat([*self._decoder.batches(memory, partial(self._intervals, batch))], dim=1)
        starts, sizes, wrong = found.cpu().numpy()
        codes = coded([*map(checksum, texts)], lengths, starts, sizes, compiled=self._decoder.fuses)
        for code, some in zip(codes, np.split(wrong, np.cumsum(lengths)[:-1]), strict=True):
            yield Patch(code, len(code) - STATE_BYTES, int(some.sum()))

    @torch.no_grad()
    def read(self, memory: MemoryVectors, payloads: Sequence[bytes], lengths: Sequence[int]) -> Iterator[bytes | None]:
        """See `Patches`."""
        context, codes = self._decoder.context, Codes(payloads, compiled=self._decoder.fuses)
        read = self._read_alone if context is None else partial(self._read_in_context, context)
        for number, tokens in enumerate(read(memory, codes, lengths)):
            text = b"".join(map(self._spelling.__getitem__, tokens))
            yield text if codes.ends_with(number, checksum(text)) else None

    def _read_alone(self, memory: MemoryVectors, codes: Codes, lengths: Sequence[int]) -> Iterator[list[int]]:
        """The tokens of each chunk, none of which changes what is expected of others."""
        return itertools.chain.from_iterable(self._decoder.batches(memory, partial(self._tokens, codes, lengths)))

    def _tokens(self, codes: Codes, lengths: Sequence[int], states: States, chunks: slice) -> list[list[int]]:
        """Those of some chunks."""
        some = lengths[chunks]
        which = np.repeat(np.arange(len(lengths))[chunks], some)
        places = torch.cat([each[:length] for each, length in zip(states, some, strict=True)])
        each = self._decoder.each_ranked(places)
        found = np.concatenate([codes.tokens(which[rows], self._divided.expected(ranked)) for rows, ranked in each])
        return [tokens.tolist() for tokens in np.split(found, np.cumsum(some)[:-1])]

    def _read_in_context(
        self, context: ContextHead, memory: MemoryVectors, codes: Codes, lengths: Sequence[int]
    ) -> list[list[int]]:
        """The tokens of each chunk, all chunks side by side, since the tokens before change what is expected."""
        states = self._decoder.states(memory)
        stops, longest, number = np.array(lengths), max(lengths, default=0), context.num_tokens
        # Of each chunk the last token first, and what stands before its first.
        tokens = np.full((len(lengths), longest + number), context.none)
        for place in range(longest):
            left, at = (stops > place).nonzero()[0], longest - place
            before = torch.from_numpy(tokens[left, at : at + number]).to(states.device)
            expected = self._divided.expected(self._decoder.ranked(states[left, place], before))
            tokens[left, at - 1] = codes.tokens(left, expected)
        return [row[longest - length : longest][::-1].tolist() for row, length in zip(tokens, lengths, strict=True)]

    def _intervals(self, batch: Batch, states: States, chunks: slice) -> Int[Tensor, "3 row"]:
        """Of each token of some chunks: where its interval begins, how wide it is, and whether the vector alone speaks
        for another."""
        decoder, (tokens, mask, _) = self._decoder, batch.rows(chunks, states.device)
        before = None if decoder.context is None else decoder.context.before(tokens)[mask]
        states, tokens, found = states[mask], tokens[mask], []
        for rows, ranked in decoder.each_ranked(states, before):
            alone = ranked if before is None else decoder.ranked(states[rows])
            found.append(torch.stack([*self._divided.of_tokens(ranked, tokens[rows]), alone.best != tokens[rows]]))
        return torch.cat(found, dim=1)


class PlacedPatches:
    """The tokens at places where the decoder's likeliest is another, or leads by too little, and the text's checksum:
    for models without an exact form, whose arithmetic differs a little from machine to machine, and in older files."""

    coding = Coding.PLACED

    def __init__(self, model: TextAutoencoder) -> None:
        self._spelling, self._model = model.tokenizer.token_bytes, model

    @torch.no_grad()
    def write(self, memory: MemoryVectors, batch: Batch, texts: Sequence[bytes]) -> Iterator[Patch]:
        """See `Patches`."""
        logits, tokens = self._model.token_logits(memory), batch.tokens.to(self._model.device)
        place = tokens[..., None]
        right = logits.gather(-1, place)
        lead = (right - logits.scatter_(-1, place, -torch.inf).amax(dim=-1, keepdim=True))[..., 0].cpu().numpy()
        lengths = batch.mask.sum(dim=1).tolist()
        for text, length, row, ids in zip(texts, lengths, lead, batch.tokens.cpu().numpy(), strict=True):
            ahead = row[:length]
            patch = patch_of(ids[:length], np.flatnonzero(~(ahead > _LEAST_MARGIN)))  # of NaN, too
            yield Patch(checksum(text) + patch, len(patch), int((~(ahead > 0)).sum()))

    @torch.no_grad()
    def read(self, memory: MemoryVectors, payloads: Sequence[bytes], lengths: Sequence[int]) -> Iterator[bytes | None]:
        """See `Patches`."""
        few = batch_chunks(self._model.config.shape.chunk_len, self._model.config.vocab_size)
        rows = [
            row for some in torch.split(memory, few) for row in argmax(self._model.token_logits(some)).cpu().numpy()
        ]
        for row, payload, length in zip(rows, payloads, lengths, strict=True):
            proof, patch = payload[:_PROOF_BYTES], payload[_PROOF_BYTES:]
            try:
                text = b"".join(self._spelling[token] for token in patched(row[:length], patch))
            except (ValueError, IndexError):  # no patch of ours
                yield None
                continue
            yield text if checksum(text) == proof else None


def patch_of(tokens: NDArray[np.int64], places: NDArray[np.int64]) -> bytes:
    """The tokens [token] of a chunk at some places, in rising order: two widths, steps between places, tokens."""
    if not len(places):
        return b""
    columns = np.diff(places, prepend=0), tokens[places]
    widths = [next(width for width in (1, 2, 4) if int(column.max()) < 256**width) for column in columns]
    narrow = (column.astype(f"<u{width}").tobytes() for column, width in zip(columns, widths, strict=True))
    return deflated(bytes(widths) + b"".join(narrow))


def patched(tokens: NDArray[np.int64], patch: bytes) -> NDArray[np.int64]:
    """Regenerated tokens [token] corrected by a patch.

    Raises:
        ValueError, IndexError: it is no patch of so many tokens.
    """
    if not patch:
        return tokens
    data = inflated(patch, 2 + 8 * len(tokens))
    if len(data) < 2 or {*data[:2]} - {1, 2, 4}:
        raise ValueError("widths are 1, 2 or 4 bytes")
    count = (len(data) - 2) // (data[0] + data[1])
    steps = np.frombuffer(data, f"<u{data[0]}", count, 2)
    tokens = tokens.copy()
    tokens[np.cumsum(steps)] = np.frombuffer(data, f"<u{data[1]}", count, 2 + steps.nbytes)
    return tokens
