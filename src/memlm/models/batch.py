"""Batches of chunks that fit in memory: encoding them, and the cross-entropy of their tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.data.chunks import Chunks, LazyChunks, Windows
from memlm.nn.cross_entropy import cross_entropy
from memlm.nn.mixers import Logits, Mask, Tokens
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.threads import side_by_side


class Batch(NamedTuple):
    """Chunks as tensors; `mask` marks the real tokens. With the memories of a frozen encoder, if any."""

    tokens: Tokens
    mask: Mask
    memory: MemoryVectors | None = None

    @classmethod
    def of(cls, chunks: Chunks | Windows, memory: MemoryVectors | None = None) -> "Batch":
        """Chunks, without copying them, and their memories if they are frozen."""
        return cls(torch.from_numpy(chunks.tokens), torch.from_numpy(chunks.mask), memory)

    def rows(self, index: slice | Tensor, device: torch.device | str = "cpu") -> "Batch":
        """Some of the chunks, on a device."""
        return Batch._make(None if part is None else part[index].to(device) for part in self)

    @property
    def num_tokens(self) -> int:
        """Real tokens."""
        return int(self.mask.sum())


_BATCH_NUMBERS = 2**25
"""fp32 numbers held at once for a batch: 128 MiB."""
_ENCODER_WIDTH = 256
"""Numbers that an encoder holds for each token, roughly."""
_CACHED_TOKENS = 2048
"""Of a batch on a processor, for each of its threads: what small models make of so many stays in its caches."""


def batch_chunks(chunk_len: int, width: int) -> int:
    """Chunks in a batch, so that `width` numbers for each token (its logits, say) fit in memory."""
    fitting = _BATCH_NUMBERS // (chunk_len * width)
    if not torch.accelerator.is_available():
        fitting = min(fitting, _CACHED_TOKENS * torch.get_num_threads() // chunk_len)
    return max(1, fitting)


def encoder_chunks(chunk_len: int, device: torch.device, batch_size: int | None = None) -> int:
    """Chunks that an encoder reads at once, in each of a processor's threads."""
    return of_each_thread(batch_size or batch_chunks(chunk_len, _ENCODER_WIDTH), device)


def of_each_thread(num_chunks: int, device: torch.device) -> int:
    """Of chunks that are worked on at once, how many each of a processor's threads has."""
    return max(1, num_chunks // torch.get_num_threads()) if device.type == "cpu" else num_chunks


def batches(
    rows: Chunks | LazyChunks | Windows, device: torch.device | str, num_rows: int, memory: MemoryVectors | None = None
) -> Iterator[Batch]:
    """Chunks (or windows) in order, so many at a time, on a device, with their frozen memories if there are any."""
    for start in range(0, len(rows.document), num_rows):
        some = slice(start, start + num_rows)
        yield Batch.of(rows.rows(some), None if memory is None else memory[some]).rows(slice(None), device)


@torch.no_grad()
def compute_in_batches(
    model: nn.Module,
    rows: Chunks | LazyChunks | Windows,
    num_rows: int,
    compute: Callable[[Batch], Sequence[Tensor]],
    *,
    memory: MemoryVectors | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """What `compute` gives for all rows, batch by batch, with the model in evaluation mode, where it is.

    `advance` hears of each batch's tokens.
    """
    was_training, device = model.training, next(model.parameters(), torch.empty(0)).device
    model.eval()
    found: list[list[np.ndarray]] = []
    for batch in batches(rows, device, num_rows, memory):
        found.append([part.cpu().numpy() for part in compute(batch)])
        if advance:
            advance(batch.num_tokens)
    model.train(was_training)
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


@torch.no_grad()
def encoded(
    encoder: nn.Module,
    chunks: Chunks | LazyChunks,
    *,
    batch_size: int | None = None,
    advance: Callable[[int], None] | None = None,
    half: bool = False,
) -> Iterator[tuple[Batch, MemoryVectors]]:
    """Chunks with their memories, batch by batch, on the encoder's device; `advance` hears of each batch's tokens.

    An encoder takes tokens and mask. `batch_size` is in chunks; by default as many as fit in memory. With `half`,
    matrix products are in bf16.
    """
    device = next(encoder.parameters()).device
    each = encoder_chunks(chunks.chunk_len, device, batch_size)

    def encode(batch: Batch) -> tuple[Batch, MemoryVectors]:
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            return batch, encoder(batch.tokens, batch.mask)

    for batch, memory in side_by_side(encode, batches(chunks, device, each), device):
        yield batch, memory
        if advance:
            advance(batch.num_tokens)


def encode_chunks(encoder: nn.Module, chunks: Chunks | LazyChunks) -> MemoryVectors:
    """The memories of all chunks, on the CPU."""
    return torch.cat([memory.cpu() for _, memory in encoded(encoder, chunks)])


def token_nats(logits: Float[Tensor, "*row token vocab"], batch: Batch) -> Float[Tensor, "*row token"]:
    """Cross-entropy in nats of each token of chunks, or of windows of chunks; 0 at the padding."""
    return cross_entropy(logits.flatten(0, -2), batch.tokens.flatten()).view(batch.tokens.shape) * batch.mask


def next_token_nats(logits: Logits, batch: Batch) -> Float[Tensor, "batch token_less_one"]:
    """Cross-entropy in nats of each token but the first, given those before it; 0 at the padding."""
    return token_nats(logits[:, :-1], Batch(batch.tokens[:, 1:], batch.mask[:, 1:]))
