"""Mamba (Gu and Dao 2023, arXiv 2312.00752): a state of constant size that each token says how to change.

The same function as transformers' `MambaMixer`, to which the tests compare it. Without the kernels of `mamba_ssm`, the
gradient there takes time that grows as the square of the tokens; here it grows as their number.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import linear
from memlm.nn.mixers import Hidden, Mask, Mixer

_STEP_SIZES = (1e-3, 1e-1)
"""Of a fresh mixer, log-uniformly: how much of the next token a state takes in."""


class State(NamedTuple):
    """What is left of the positions so far."""

    inputs: Float[Tensor, "batch inner kernel_less_one"]
    """The last ones, for the convolution."""
    sums: Float[Tensor, "batch inner state"]


class Mamba(Mixer):
    """A selective state space (`config.Mamba`). `step` takes any number of positions; so `forward` is one step."""

    def __init__(self, cfg: config.Mamba, dim: int, chunk_len: int, causal: bool) -> None:
        super().__init__()
        assert causal, "its configuration says so"
        inner, rank = cfg.expand * dim, math.ceil(dim / 16)
        self.state_size, self.rank = cfg.state_size, rank
        self.inward = linear(dim, 2 * inner)
        self.convolution = nn.Conv1d(inner, inner, cfg.kernel, groups=inner)
        self.selection = linear(inner, rank + 2 * cfg.state_size)
        self.step_size = nn.Linear(rank, inner)
        low, high = map(math.log, _STEP_SIZES)
        fresh = torch.empty(inner).uniform_(low, high).exp()
        with torch.no_grad():
            self.step_size.bias.copy_(fresh + torch.log(-torch.expm1(-fresh)))  # the inverse of softplus
        # No matrix, because Muon would orthogonalize it.
        self.log_decay = nn.Parameter(torch.arange(1.0, cfg.state_size + 1).log().repeat(inner))
        self.skip = nn.Parameter(torch.ones(inner))
        self.outward = linear(inner, dim, gain=0.0)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """Each position from those before it; padding, which comes last, changes none."""
        return self.step(hidden, self.initial_state(len(hidden)))[0]

    def initial_state(self, batch: int) -> State:
        """Zero."""
        inner, _, kernel = self.convolution.weight.shape
        zeros = self.skip.new_zeros
        # They add up over a whole text.
        precise = torch.promote_types(self.skip.dtype, torch.float32)
        return State(zeros(batch, inner, kernel - 1), zeros(batch, inner, self.state_size, dtype=precise))

    def step(self, hidden: Hidden, state: State) -> tuple[Hidden, State]:
        """The next positions' outputs, and the state after them."""
        inputs, gate = self.inward(hidden).transpose(1, 2).chunk(2, dim=1)
        inputs = torch.cat([state.inputs.to(inputs.dtype), inputs], dim=2)
        # A copy, or the state would hold on to the inputs of all positions.
        left = inputs[:, :, inputs.shape[2] - state.inputs.shape[2] :].clone()
        taken = F.silu(self.convolution(inputs))
        sizes, write, read = self.selection(taken.transpose(1, 2)).split(
            [self.rank, self.state_size, self.state_size], -1
        )
        sizes = F.softplus(self.step_size(sizes).to(state.sums.dtype))
        mixed, sums = self._scan(taken, sizes, write, read, state.sums)
        mixed = (mixed + taken * self.skip[:, None]) * F.silu(gate)
        return self.outward(mixed.transpose(1, 2).to(hidden.dtype)), State(left, sums)

    def _scan(
        self, taken: Tensor, sizes: Hidden, write: Hidden, read: Hidden, sums: Float[Tensor, "batch inner state"]
    ) -> tuple[Float[Tensor, "batch inner token"], Float[Tensor, "batch inner state"]]:
        """Sums of what is taken in [batch inner token], each decaying by as much as is taken; in the sums' type."""
        decay = -self.log_decay.view(-1, self.state_size).to(sums.dtype).exp()
        kept = torch.exp(sizes[..., None] * decay)
        new = (sizes * taken.transpose(1, 2))[..., None] * write[:, :, None].to(sizes.dtype)
        every = []
        for kept_now, new_now in zip(kept.unbind(1), new.unbind(1), strict=True):
            sums = kept_now * sums + new_now
            every.append(sums)
        return (torch.stack(every, 1) * read[:, :, None].to(sizes.dtype)).sum(-1).transpose(1, 2), sums
