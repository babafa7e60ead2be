"""The parallel decoder in arithmetic that gives the same bits on every machine, and its probabilities as whole numbers.

Operands of matrix products are whole numbers of at most 127, held in float32, so that no sum of them reaches 2^24. Such
sums are exact: neither their order nor fused multiply-adds, nor TF32 or bf16, which hold such operands, make a
difference, on any processor. Between products there are only elementwise operations, which IEEE 754 rounds alike
everywhere, each by itself: no exponential, no logarithm, no sum of anything but whole numbers. Nothing is divided by a
Python number, by whose reciprocal CUDA would multiply instead. Files depend on every constant here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.autoencoder import Autoencoder
from memlm.models.context import TokensBefore
from memlm.nn.argmax import argmax
from memlm.nn.mixers import Hidden
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.cpu import has_int8

TOTAL_BITS = 24
"""The probabilities of a token are whole numbers that add up to at most 2^24."""
_LARGEST_SUM = 2**24 - 1
"""Up to here float32 holds every whole number."""
_LARGEST = 127
"""Of weights and inputs, as int8 has it: an engine of int8 and int32 would give the same bits. More would save
`english` nothing; fewer cost bits."""
LARGEST_NORMED = 2**12
"""So that float32 holds its square, too."""
EPSILON = 1e-5
"""Of layer norm, as torch has it."""
CHUNKS = 16
"""Decoded at once by each thread: so many stay in a processor's cache."""
ROWS = 512
"""Of tokens, which are ranked at once by each thread, for the same reason."""
TINY = 1e-30
"""Instead of a step of 0."""
_STEPS_PER_BIT = 16
"""Scores are in sixteenths of a bit."""
NO_SHARE = TOTAL_BITS * _STEPS_PER_BIT + 1
"""A score lower by so much than the best has no share of the probability, and a frequency of 1."""
_ROUNDING = 8
"""By how much products in float32 can be too large, all in all."""
SCORES_PER_NAT = 23.08312065422341
"""16 / ln 2."""

_Made = TypeVar("_Made")


class WholeProduct:
    """A linear map whose weights [*, out, in] are whole numbers in units of a step for each output."""

    def __init__(self, weight: Tensor) -> None:
        whole, steps = rounded(weight.float(), _LARGEST)
        # Of a single input, torch 2.13 makes a wrong product.
        self.weight = whole.to(torch.int8) if has_int8(whole.device.type) and whole.shape[-1] > 1 else whole
        self.steps = steps[..., 0]
        """[*, out]"""
        reach = float(whole.double().abs().sum(dim=-1).amax())
        self.largest_input = min(_LARGEST, int(_LARGEST_SUM // max(reach, 1)))
        """So that no sum, of whichever inputs, can leave what float32 holds exactly."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs [*, row, in], rounded in units of a step for each row → outputs [*, row, out]."""
        whole, steps = rounded(inputs, self.largest_input)
        return _sums(whole, self.weight.mT).mul_(self.steps[..., None, :]).mul_(steps)

    def columns(self, inputs: Float[Tensor, "row in"]) -> Float[Tensor, "out row"]:
        """The same outputs, the rows of each side by side."""
        whole, steps = rounded(inputs, self.largest_input)
        return _sums(self.weight, whole.mT).mul_(self.steps[:, None]).mul_(steps.mT)


def _sums(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product, or as many as weights have heads, of whole numbers, one side of which are weights."""
    if left.dtype == right.dtype:
        return torch.matmul(left, right)
    left, right = left.to(torch.int8), right.to(torch.int8)
    if right.ndim == 2:
        return torch._int_mm(left.flatten(0, -2), right).view(*left.shape[:-1], -1).float()
    return head_sums(left, right).float()


def head_sums(left: Tensor, right: Tensor) -> Tensor:
    """A product of int8 matrices for each head: [head, row, in], [head, in, out] → int32 [head, row, out]."""
    sums = torch.empty(*left.shape[:-1], right.shape[-1], dtype=torch.int32)
    for some, head, out in zip(left, right, sums, strict=True):
        torch._int_mm(some, head, out=out)
    return sums


def rounded(rows: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers up to `largest`, and what each row's are multiplied by."""
    reach = torch.maximum(rows.amax(dim=-1, keepdim=True), rows.amin(dim=-1, keepdim=True).neg_())
    steps = reach.mul_(1 / largest).clamp_min_(TINY)
    return (rows * steps.reciprocal()).round_(), steps


def exact_norm(hidden: Hidden) -> Hidden:
    """Layer norm: sums of whole numbers, and of their squares, in float64, which holds them exactly."""
    dim = hidden.shape[-1]
    whole, steps = rounded(hidden, LARGEST_NORMED)
    total = whole.sum(dim=-1, keepdim=True, dtype=torch.float64)
    squares = whole.square().sum(dim=-1, keepdim=True, dtype=torch.float64)
    variance = squares * dim - total.square()  # times dim²
    scale = (variance + steps.double().square().reciprocal() * (EPSILON * dim * dim)).sqrt().reciprocal() * dim
    return whole.sub_((total * (1 / dim)).float()).mul_(scale.float())


class Ranked(NamedTuple):
    """What a decoder expects at some places."""

    best: Int[Tensor, " row"]
    """The token with the highest score, of equals the first."""
    lead: Float[Tensor, " row"]
    """By how much that leads all others, in sixteenths of a bit: whole numbers."""
    ends: Callable[[Int[Tensor, " some"]], Int[Tensor, "some vocab"]]
    """Of some of the rows: where each token's part of [0, 2^24) ends, one behind the other; as wide as it is likely."""


class Block(NamedTuple):
    """The products of a layer: a masked mixer and an MLP."""

    inward: WholeProduct
    tokens: WholeProduct
    """Of each head."""
    outward: WholeProduct
    up: WholeProduct
    down: WholeProduct

    def mix(self, hidden: Hidden) -> Hidden:
        """As `MaskedMixer`, without a copy that turns its heads."""
        heads = self.inward.columns(hidden.flatten(0, 1))
        mixed = self.tokens(heads.view(len(self.tokens.weight), -1, hidden.shape[1]))
        return self.outward(mixed.view(len(heads), -1).mT).view(hidden.shape)

    def feed(self, hidden: Hidden) -> Hidden:
        """As an MLP of squared ReLU."""
        return self.down(self.up(hidden).relu_().square_())


class ExactDecoder:
    """An autoencoder's decoder, nearly: with weights and activations rounded, it gives the same bits everywhere.

    Its parts are those of which `has_exact_form` says that they have one. With `in_context` it expects what the
    model's `context` does; `with_end` the end token, too.
    """

    def __init__(self, model: Autoencoder, *, in_context: bool = False, with_end: bool = False) -> None:
        decoder = model.decoder
        unpooling, device = decoder.unpooling, decoder.positions.device
        # Metal's arithmetic is not IEEE's.
        self.device = device if device.type in ("cpu", "cuda") else torch.device("cpu")
        self._scatter, self._widen = self._product(unpooling.scatter), self._product(unpooling.widen)
        self._positions = decoder.positions.detach().float().to(self.device)
        self._blocks = [self._block(block) for block in decoder.stack.blocks]
        self._head = self._product(decoder.head.weight[: decoder.shape.vocab_size + with_end])
        self.context = model.context if in_context else None
        if self.context is not None:
            self._embedded = self.context.embed.weight.detach().float().to(self.device)
            self._up, self._down = self._product(self.context.up), self._product(self.context.down)
        self._shares = shares().to(self.device)
        self._chunk_len, self._memory_dim = decoder.shape.chunk_len, decoder.shape.memory_dim

    def states(self, memory: MemoryVectors) -> Float[Tensor, "chunk token dim"]:
        """The last states of chunks' memories [chunk slot memory_dim], which `ranked` reads."""
        return torch.cat(list(self.batches(memory, lambda states, rows: states)))

    def batches(
        self, memory: MemoryVectors, work: Callable[[Float[Tensor, "some token dim"], slice], _Made]
    ) -> Iterator[_Made]:
        """What `work` makes of the last states of as many chunks at a time as stay in a processor's cache; and of
        which chunks they are."""
        memory, at_once = memory.to(self.device), CHUNKS * torch.get_num_threads()
        for start in range(0, len(memory), at_once):
            yield self._batch(memory, slice(start, start + at_once), work)

    @torch.no_grad()
    def _batch(self, memory: MemoryVectors, rows: slice, work: Callable[[Hidden, slice], _Made]) -> _Made:
        with torch.autocast(self.device.type, enabled=False):
            return work(self._states(memory[rows]), rows)

    def _states(self, memory: MemoryVectors) -> Hidden:
        hidden = self._widen(self._scattered(memory)) + self._positions
        for block in self._blocks:
            hidden = hidden + block.mix(exact_norm(hidden))
            hidden = hidden + block.feed(exact_norm(hidden))
        return exact_norm(hidden)

    def _scattered(self, memory: MemoryVectors) -> Float[Tensor, "chunk token part"]:
        text = memory[..., : self._memory_dim]  # not what memories are searched by
        return self._scatter(text.flatten(1)[:, None]).reshape(len(memory), self._chunk_len, -1)

    @torch.no_grad()
    def ranked(self, states: Float[Tensor, "row dim"], before: TokensBefore | None = None) -> Ranked:
        """What is expected where the last states are these; after these tokens [row number], in context."""
        with torch.autocast(self.device.type, enabled=False):
            return self._ranked(states if before is None else self._in_context(states, before))

    def each_ranked(
        self, states: Float[Tensor, "row dim"], before: TokensBefore | None = None
    ) -> Iterator[tuple[slice, Ranked]]:
        """The same of as many rows at a time as stay in a processor's cache, and which rows they are."""
        at_once = ROWS * torch.get_num_threads()
        for start in range(0, max(len(states), 1), at_once):
            rows = slice(start, start + at_once)
            yield rows, self.ranked(states[rows], None if before is None else before[rows])

    def _in_context(self, states: Float[Tensor, "row dim"], before: TokensBefore) -> Float[Tensor, "row dim"]:
        return exact_norm(states + self._down(self._up(self._read(states, before)).relu_().square_()))

    def _read(self, states: Float[Tensor, "row dim"], before: TokensBefore) -> Float[Tensor, "row inputs"]:
        """What a context reads."""
        return torch.cat([states, self._embedded[before].flatten(-2)], dim=-1)

    def _ranked(self, states: Float[Tensor, "row dim"]) -> Ranked:
        scores = self._head(states).mul_(SCORES_PER_NAT).round_()
        best = argmax(scores)
        place = best[:, None]
        highest = scores.gather(-1, place)
        lead = highest - scores.scatter_(-1, place, -torch.inf).amax(dim=-1, keepdim=True)
        scores.scatter_(-1, place, highest)  # restored: a copy would take three times as long
        return Ranked(best, lead[:, 0], lambda rows: self.frequencies(scores[rows]).cumsum(dim=-1).int())

    def frequencies(self, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        """Probabilities in units of 2^-24, whole numbers of at least 1, of scores in sixteenths of a bit."""
        below = (scores.amax(dim=-1, keepdim=True) - scores).clamp_max_(NO_SHARE)
        share = self._shares.index_select(0, below.int().flatten()).view(scores.shape)
        room = room_of(scores.shape[-1])
        per_share = (share.sum(dim=-1, keepdim=True, dtype=torch.float64).reciprocal() * room).float()
        return share.mul_(per_share).floor_().add_(1)

    def _product(self, layer: Any) -> WholeProduct:
        return WholeProduct((layer.weight if isinstance(layer, nn.Linear) else layer).detach().to(self.device))

    def _block(self, block: Any) -> Block:
        mixer, mlp = block.mixer, block.mlp
        weight = torch.stack([*mixer.weight])
        if mixer.causal_mask is not None:
            weight = weight * mixer.causal_mask
        return Block(*map(self._product, (mixer.inward, weight, mixer.outward, mlp.up, mlp.down)))


def has_exact_form(cfg: config.AutoencoderConfig) -> bool:
    """Whether a model's decoder can be an `ExactDecoder`: of masked mixers, squared ReLU and positional unpooling."""
    stack = cfg.decoder
    mixes = isinstance(stack.mixer, config.MaskedMixer) and stack.activation == "relu_squared"
    return mixes and isinstance(cfg.unpooling, config.Positional)


def room_of(vocab_size: int) -> int:
    """How much there is to share, when each token has a frequency of 1."""
    return 2**TOTAL_BITS - vocab_size - _ROUNDING


def shares() -> Float[Tensor, " step"]:
    """2^(24 - step/16), rounded down, until it is less than 1; by whole numbers alone."""
    powers = [1 << (NO_SHARE - 1 - step) for step in range(NO_SHARE)]
    return torch.tensor([*map(_root, powers), 0], dtype=torch.float32)


def _root(power: int) -> int:
    """The largest number whose 16th power is not above `power`."""
    return math.isqrt(math.isqrt(math.isqrt(math.isqrt(power))))
