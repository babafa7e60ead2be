"""The parallel decoder in arithmetic that gives the same bits on every machine, and its probabilities as whole numbers.

Operands of matrix products are whole numbers of at most 127, held in float32, so that no sum of them reaches 2^24. Such
sums are exact: neither their order nor fused multiply-adds, nor TF32 or bf16, which hold such operands, make a
difference, on any processor. Between products there are only elementwise operations, which IEEE 754 rounds alike
everywhere, each by itself: no exponential, no logarithm, no sum of anything but whole numbers. Nothing is divided by a
Python number, by whose reciprocal CUDA would multiply instead. Files depend on every constant here.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm import config
from memlm.models.autoencoder import Autoencoder
from memlm.models.context import TokensBefore
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
_LARGEST_NORMED = 2**12
"""So that float32 holds its square, too."""
_EPSILON = 1e-5
"""Of layer norm, as torch has it."""
_CHUNKS = 16
"""Decoded at once by each thread: so many stay in a processor's cache."""
_TINY = 1e-30
"""Instead of a step of 0."""
_STEPS_PER_BIT = 16
"""Scores are in sixteenths of a bit."""
NO_SHARE = TOTAL_BITS * _STEPS_PER_BIT + 1
"""A score lower by so much than the best has no share of the probability, and a frequency of 1."""
_ROUNDING = 8
"""By how much products in float32 can be too large, all in all."""
_SCORES_PER_NAT = 23.08312065422341
"""16 / ln 2."""


class WholeProduct:
    """A linear map whose weights [*, out, in] are whole numbers in units of a step for each output."""

    def __init__(self, weight: Tensor) -> None:
        whole, steps = rounded(weight.float(), _LARGEST)
        # Of a single input, torch 2.13 makes a wrong product.
        self.weight = whole.to(torch.int8) if has_int8(whole.device.type) and whole.shape[-1] > 1 else whole
        self.steps = steps[..., 0]
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
    sums = torch.empty(*left.shape[:-1], right.shape[-1], dtype=torch.int32)
    for some, head, out in zip(left, right, sums, strict=True):
        torch._int_mm(some, head, out=out)
    return sums.float()


def rounded(rows: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers up to `largest`, and what each row's are multiplied by."""
    reach = torch.maximum(rows.amax(dim=-1, keepdim=True), rows.amin(dim=-1, keepdim=True).neg_())
    steps = reach.mul_(1 / largest).clamp_min_(_TINY)
    return (rows * steps.reciprocal()).round_(), steps


def exact_norm(hidden: Hidden) -> Hidden:
    """Layer norm: sums of whole numbers, and of their squares, in float64, which holds them exactly."""
    dim = hidden.shape[-1]
    whole, steps = rounded(hidden, _LARGEST_NORMED)
    total = whole.sum(dim=-1, keepdim=True, dtype=torch.float64)
    squares = whole.square().sum(dim=-1, keepdim=True, dtype=torch.float64)
    variance = squares * dim - total.square()  # times dim²
    scale = (variance + steps.double().square().reciprocal() * (_EPSILON * dim * dim)).sqrt().reciprocal() * dim
    return whole.sub_((total * (1 / dim)).float()).mul_(scale.float())


class ExactDecoder:
    """An autoencoder's decoder, nearly: with weights and activations rounded, it gives the same bits everywhere.

    Its parts are those of which `has_exact_form` says that they have one. With `in_context` it expects what the
    model's `context` does.
    """

    def __init__(self, model: Autoencoder, *, in_context: bool = False) -> None:
        decoder = model.decoder
        unpooling, device = decoder.unpooling, decoder.positions.device
        # Metal's arithmetic is not IEEE's.
        self.device = device if device.type in ("cpu", "cuda") else torch.device("cpu")
        self._scatter, self._widen = self._product(unpooling.scatter), self._product(unpooling.widen)
        self._positions = decoder.positions.detach().float().to(self.device)
        self._blocks = [self._block(block) for block in decoder.stack.blocks]
        self._head = self._product(decoder.head.weight[: decoder.shape.vocab_size])
        self.context = model.context if in_context else None
        if self.context is not None:
            self._embedded = self.context.embed.weight.detach().float().to(self.device)
            self._up, self._down = self._product(self.context.up), self._product(self.context.down)
        self._shares = shares().to(self.device)
        self._chunk_len, self._memory_dim = decoder.shape.chunk_len, decoder.shape.memory_dim

    @torch.no_grad()
    def states(self, memory: MemoryVectors) -> Float[Tensor, "chunk token dim"]:
        """The last states of chunks' memories [chunk slot memory_dim], of which `scores` are made."""
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat(
                [self._states(some) for some in torch.split(memory.to(self.device), _CHUNKS * torch.get_num_threads())]
            )

    def _states(self, memory: MemoryVectors) -> Hidden:
        text = memory[..., : self._memory_dim]  # not what memories are searched by
        parts = self._scatter(text.flatten(1)[:, None]).reshape(len(memory), self._chunk_len, -1)
        hidden = self._widen(parts) + self._positions
        for mix, feed in self._blocks:
            hidden = hidden + mix(exact_norm(hidden))
            hidden = hidden + feed(exact_norm(hidden))
        return exact_norm(hidden)

    @torch.no_grad()
    def scores(
        self, states: Float[Tensor, "row dim"], before: TokensBefore | None = None
    ) -> Float[Tensor, "row vocab"]:
        """Logits in sixteenths of a bit, whole numbers; `before` each are these tokens [row number], in context."""
        with torch.autocast(self.device.type, enabled=False):
            if before is not None:
                inputs = torch.cat([states, self._embedded[before].flatten(-2)], dim=-1)
                states = exact_norm(states + self._down(self._up(inputs).relu_().square_()))
            return self._head(states).mul_(_SCORES_PER_NAT).round_()

    def frequencies(self, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        """Probabilities in units of 2^-24, whole numbers of at least 1."""
        below = (scores.amax(dim=-1, keepdim=True) - scores).clamp_max_(NO_SHARE)
        share = self._shares.index_select(0, below.int().flatten()).view(scores.shape)
        room = 2**TOTAL_BITS - scores.shape[-1] - _ROUNDING
        per_share = (share.sum(dim=-1, keepdim=True, dtype=torch.float64).reciprocal() * room).float()
        return share.mul_(per_share).floor_().add_(1)

    def _product(self, layer: Any) -> WholeProduct:
        return WholeProduct((layer.weight if isinstance(layer, nn.Linear) else layer).detach().to(self.device))

    def _block(self, block: Any) -> tuple[Callable[[Hidden], Hidden], Callable[[Hidden], Hidden]]:
        inward, outward = self._product(block.mixer.inward), self._product(block.mixer.outward)
        weight = torch.stack([*block.mixer.weight])
        if block.mixer.causal_mask is not None:
            weight = weight * block.mixer.causal_mask
        tokens, up, down = self._product(weight), self._product(block.mlp.up), self._product(block.mlp.down)

        def mix(hidden: Hidden) -> Hidden:
            heads = inward.columns(hidden.flatten(0, 1))  # as `MaskedMixer`, without a copy that turns them
            mixed = tokens(heads.view(len(weight), -1, hidden.shape[1]))
            return outward(mixed.view(len(heads), -1).mT).view(hidden.shape)

        return mix, lambda hidden: down(up(hidden).relu_().square_())


def has_exact_form(cfg: config.AutoencoderConfig) -> bool:
    """Whether a model's decoder can be an `ExactDecoder`: of masked mixers, squared ReLU and positional unpooling."""
    stack = cfg.decoder
    mixes = isinstance(stack.mixer, config.MaskedMixer) and stack.activation == "relu_squared"
    return mixes and isinstance(cfg.unpooling, config.Positional)


def shares() -> Float[Tensor, " step"]:
    """2^(24 - step/16), rounded down, until it is less than 1; by whole numbers alone."""
    powers = [1 << (NO_SHARE - 1 - step) for step in range(NO_SHARE)]
    return torch.tensor([*map(_root, powers), 0], dtype=torch.float32)


def _root(power: int) -> int:
    """The largest number whose 16th power is not above `power`."""
    return math.isqrt(math.isqrt(math.isqrt(math.isqrt(power))))
