"""The exact decoder in fewer passes: what is between two products is done at once, row by row."""

import functools
import importlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int8, Int32
from numpy import ndarray
from torch import Tensor

from memlm.models.autoencoder import Autoencoder
from memlm.models.context import TokensBefore
from memlm.models.exact import CHUNKS, ExactDecoder, Ranked, WholeProduct, has_exact_form, head_sums, room_of
from memlm.nn.mixers import Hidden
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.cpu import keep_freed_memory
from memlm.runtime.threads import side_by_side

_WORTHWHILE = 1000
"""Chunks that take longer to decode than the kernels to load."""
_GUESSED = 64
"""Chunks that take longer to decode than weights to be rounded."""

_Made = TypeVar("_Made")


def guesser(model: Autoencoder, num_chunks: int) -> "FusedDecoder | None":
    """To decode so many chunks for a guess, with the end token; None where products in bf16 are as fast."""
    if num_chunks < _GUESSED or not model.encoder.shape.end_token or not has_exact_form(model.config):
        return None
    decoder = FusedDecoder(model, with_end=True, num_chunks=num_chunks)
    return decoder if decoder.fuses else None


class FusedDecoder(ExactDecoder):
    """An `ExactDecoder` with `models.exact_kernels` between its products, if these are of int8 and numba is installed;
    from a thousand chunks on, of which `num_chunks` are known to come, unless the kernels are there already."""

    def __init__(
        self, model: Autoencoder, *, in_context: bool = False, with_end: bool = False, num_chunks: int = 0
    ) -> None:
        super().__init__(model, in_context=in_context, with_end=with_end)
        products = [self._widen, self._head, *itertools.chain(*self._blocks)]
        products += [self._up, self._down] if self.context is not None else []
        in_int8 = all(product.weight.dtype == torch.int8 for product in products)
        self._can_fuse = in_int8 and find_spec("numba") is not None
        self._num_chunks = num_chunks

    @property
    def fuses(self) -> bool:
        """Whether it uses kernels."""
        return self._can_fuse and (self._num_chunks >= _WORTHWHILE or load_kernels.cache_info().currsize > 0)

    def batches(self, memory: MemoryVectors, work: Callable[[Hidden, slice], _Made]) -> Iterator[_Made]:
        """Each thread has a batch of its own, since kernels know of one thread only."""
        self._num_chunks += len(memory)
        if not self.fuses:
            yield from super().batches(memory, work)
            return
        each = (slice(start, start + CHUNKS) for start in range(0, len(memory), CHUNKS))
        yield from side_by_side(lambda rows: self._batch(memory, rows, work), each)

    def _states(self, memory: MemoryVectors) -> Hidden:
        if not self.fuses:
            return super()._states(memory)
        run, num_chunks = load_kernels(), len(memory)
        hidden = np.tile(self._positions.numpy(), (num_chunks, 1))
        rows = (len(hidden),)
        whole, steps = _whole(run.rounded, self._widen, rows, self._scattered(memory).flatten(0, 1).numpy())
        sums = _product(whole, self._widen)
        for block in self._blocks:
            whole, steps = _whole(run.normed_rounded, block.inward, rows, *sums, steps, hidden)
            sums = torch._int_mm(block.inward.weight, whole.mT).numpy(), block.inward.steps.numpy()
            heads = len(block.tokens.weight)
            each = heads, num_chunks, len(block.inward.weight) // heads
            whole, steps = _whole(run.parts_rounded, block.tokens, each, *sums, steps)
            turned = whole.view(heads, -1, self._chunk_len).mT
            sums = head_sums(block.tokens.weight, turned).numpy(), block.tokens.steps.numpy()
            whole, steps = _whole(run.tokens_rounded, block.outward, rows, *sums, steps)
            sums = _product(whole, block.outward)
            whole, steps = _whole(run.normed_rounded, block.up, rows, *sums, steps, hidden)
            whole, steps = _whole(run.squared_rounded, block.down, rows, *_product(whole, block.up), steps)
            sums = _product(whole, block.down)
        found = np.empty_like(hidden)
        run.normed(*sums, steps, hidden, found)
        return torch.from_numpy(found).view(num_chunks, self._chunk_len, -1)

    def _in_context(self, states: Float[Tensor, "row dim"], before: TokensBefore) -> Float[Tensor, "row dim"]:
        if not self.fuses:
            return super()._in_context(states, before)
        run, rows, changed = load_kernels(), (len(states),), states.numpy().copy()
        whole, steps = _whole(run.rounded, self._up, rows, self._read(states, before).numpy())
        whole, steps = _whole(run.squared_rounded, self._down, rows, *_product(whole, self._up), steps)
        run.normed(*_product(whole, self._down), steps, changed, changed)
        return torch.from_numpy(changed)

    def _ranked(self, states: Float[Tensor, "row dim"]) -> Ranked:
        if not self.fuses:
            return super()._ranked(states)
        run, best, lead = load_kernels(), np.empty(len(states), np.int64), np.empty(len(states), np.float32)
        whole, steps = _whole(run.rounded, self._head, (len(states),), states.contiguous().numpy())
        product = *_product(whole, self._head), steps
        run.ranked(*product, best, lead)

        return Ranked(torch.from_numpy(best), torch.from_numpy(lead), partial(self._ends, product, best))

    def _ends(self, product: Any, best: ndarray, rows: Int[Tensor, " some"]) -> Int[Tensor, "some vocab"]:
        found = np.empty((len(rows), len(self._head.weight)), np.int32)
        places, shares = np.ascontiguousarray(rows.numpy()), self._shares.numpy()
        load_kernels().ends(*product, best, places, shares, room_of(found.shape[1]), found)
        return torch.from_numpy(found)


def _whole(
    kernel: Callable[..., None], product: WholeProduct, rows: tuple[int, ...], *given: Any
) -> tuple[Int8[Tensor, "row in"], Float32[ndarray, "*row"]]:
    """What a kernel makes of what it is given: the rows that a product multiplies, and their steps."""
    steps = np.empty(rows, np.float32)
    whole = torch.empty(steps.size, product.weight.shape[-1], dtype=torch.int8)
    kernel(*given, np.float32(product.largest_input), whole.numpy(), steps)
    return whole, steps


def _product(
    whole: Int8[Tensor, "row in"], product: WholeProduct
) -> tuple[Int32[ndarray, "row out"], Float32[ndarray, " out"]]:
    """The sums of a product, and what each output's are multiplied by."""
    return torch._int_mm(whole, product.weight.mT).numpy(), product.steps.numpy()


@functools.cache
def load_kernels() -> Any:
    """Numba, and what it compiled: half a second, some seconds the first time on a machine."""
    keep_freed_memory()  # each batch takes the same few megabytes
    return importlib.import_module("memlm.models.exact_kernels")
