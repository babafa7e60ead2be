"""Patches: what has to be stored beside a vector so that the exact text comes back, and is proven to be it."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from memlm.models.batch import Batch, batch_chunks
from memlm.models.context import TokensBefore
from memlm.models.exact import ExactDecoder, has_exact_form
from memlm.nn.argmax import argmax
from memlm.nn.pooling import MemoryVectors
from memlm.store.chunk import Coding, checksum, deflated, inflated
from memlm.store.intervals import Divided
from memlm.store.range_coder import STATE_BYTES, RangeDecoder, are_codes_of, coded, num_going_on
from memlm.text.autoencoder import TextAutoencoder

_LEAST_MARGIN = 1e-2
"""Nats by which the right token must lead: less might be lost to rounding on another machine, and is patched."""
_PROOF_BYTES = 8
"""Of the text's checksum, with which a payload of placed tokens begins."""
_ROWS = 256
"""Tokens whose probabilities are made at once: so many stay in a processor's cache."""

Tokens = NDArray[np.int64]
"""[token]"""


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
    def _decoder(self) -> ExactDecoder:
        return ExactDecoder(self._model, in_context=self._in_context)

    @cached_property
    def _divided(self) -> Divided:
        return Divided(self._decoder, self._model.decoder.shape.vocab_size)

    @torch.no_grad()
    def write(self, memory: MemoryVectors, batch: Batch, texts: Sequence[bytes]) -> Iterator[Patch]:
        """See `Patches`."""
        lengths = batch.mask.sum(dim=1)
        order = lengths.argsort(descending=True, stable=True)
        starts, sizes, wrong = self._intervals(self._decoder.states(memory[order]), batch.rows(order))
        longest, checks = lengths[order].tolist(), [checksum(texts[row]) for row in order.tolist()]
        codes = coded(checks, starts, sizes, longest)
        assert are_codes_of(codes, checks, starts, sizes, longest), "what is written can be read"
        for row in order.argsort().tolist():
            yield Patch(codes[row], len(codes[row]) - STATE_BYTES, int(wrong[row].sum()))

    @torch.no_grad()
    def read(self, memory: MemoryVectors, payloads: Sequence[bytes], lengths: Sequence[int]) -> Iterator[bytes | None]:
        """See `Patches`."""
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        states, codes = self._decoder.states(memory[order]), RangeDecoder([payloads[row] for row in order])
        tokens = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        for place, number in enumerate(num_going_on([lengths[row] for row in order])):
            scores = self._decoder.scores(states[:number, place], self._before(tokens[:number], place))
            found = self._divided.at(scores, torch.from_numpy(codes.places(number)).to(scores.device))
            tokens[:number, place] = found.tokens
            codes.take(found.starts.cpu().numpy(), found.sizes.cpu().numpy())
        spelled = {
            row: b"".join(map(self._spelling.__getitem__, some[: lengths[row]]))
            for row, some in zip(order, tokens.tolist(), strict=True)
        }
        proven = dict(zip(order, codes.end_with([checksum(text) for text in spelled.values()]), strict=True))
        for row in range(len(lengths)):
            yield spelled[row] if proven[row] else None

    def _intervals(self, states: Float[Tensor, "chunk token dim"], batch: Batch) -> Int[np.ndarray, "3 chunk token"]:
        """Of each token: where its interval begins, how wide it is, and whether another token is likelier."""
        mask, tokens = (part.to(states.device) for part in (batch.mask, batch.tokens))
        context, found = self._decoder.context, torch.zeros(3, *mask.shape, dtype=torch.long, device=states.device)
        before = None if context is None else context.before(tokens)[mask]
        rows, states, tokens = mask.nonzero(), states[mask], tokens[mask]
        for some in torch.split(torch.arange(len(tokens), device=tokens.device), _ROWS):
            scores = self._decoder.scores(states[some], None if before is None else before[some])
            (_, *intervals), wrong = self._divided.of_tokens(scores, tokens[some])
            found[:, *rows[some].T] = torch.stack([*intervals, wrong])
        return found.cpu().numpy()

    def _before(self, tokens: Int[Tensor, "chunk token"], place: int) -> TokensBefore | None:
        """The tokens before a place of each chunk, in context."""
        context = self._decoder.context
        if context is None:
            return None
        return context.before(tokens[:, max(0, place - context.num_tokens) : place + 1])[:, -1]


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
            text = b"".join(self._spelling[token] for token in patched(row[:length], patch))
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
    """Regenerated tokens [token] corrected by a patch."""
    if not patch:
        return tokens
    data = inflated(patch)
    count = (len(data) - 2) // (data[0] + data[1])
    steps = np.frombuffer(data, f"<u{data[0]}", count, 2)
    tokens = tokens.copy()
    tokens[np.cumsum(steps)] = np.frombuffer(data, f"<u{data[1]}", count, 2 + steps.nbytes)
    return tokens
