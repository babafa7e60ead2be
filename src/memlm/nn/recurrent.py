"""Structured recurrent mixers (arXiv 2605.08696): a structured matrix over tokens that is also a recurrence.

Each head keeps one sum of the past. In a row of the matrix, tokens are weighted as they enter it; in a column, as it is
read. The sum itself is the state, and nothing is divided by a weight to get it back, so weights may be zero.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import linear
from memlm.nn.mixers import Hidden, Mask, Mixer

Values = Float[Tensor, "batch token head part"]
Sums = Float[Tensor, "batch head part"]
PAST_THE_WINDOW = (
    "train with a longer window (chunk_len, or a recurrent decoder's window), begin anew with the end of the text, or "
    "let a memory model keep what came before"
)
"""The ways out."""


class State(NamedTuple):
    """What is left of the positions so far: as much as of one."""

    sums: Sums
    position: int
    """The next position, of the rows that began first."""
    late: Int[Tensor, " batch"] | None = None
    """By how many positions each row begins later, where they do not begin together; what it holds before is
    padding."""


class RecurrentMixer(Mixer):
    """A structured recurrent mixer (`config.RecurrentMixer`).

    `step` takes any number of positions. Within a stretch of them, sums are one product with a matrix; from stretch to
    stretch, a state is carried. A stretch of the whole text is the parallel form, one of a position the recurrent form.
    """

    stretch = 128
    """The most positions whose sums are one matrix product."""

    def __init__(self, cfg: config.RecurrentMixer, dim: int, chunk_len: int, causal: bool) -> None:
        super().__init__()
        assert causal, "its configuration says so"
        self.kernel, self.num_heads, self.window = cfg.kernel, cfg.num_heads, chunk_len
        self.num_rows = {"row": cfg.num_heads, "column": 0, "mixed": cfg.num_heads // 2}[cfg.structure]
        self.inward = linear(dim, dim)
        self.outward = linear(dim, dim, gain=0.0)
        # What a position has of its own: the kernel's weights, a bias, and the diagonal's weight. Weights fall as a
        # sum's size grows. No matrix, because Muon would orthogonalize it.
        places = torch.zeros(chunk_len, cfg.num_heads, cfg.kernel + 1 + cfg.diagonal)
        scale = (cfg.kernel * torch.arange(1, chunk_len + 1)) ** -0.5
        places[..., : cfg.kernel] = torch.randn(chunk_len, cfg.num_heads, cfg.kernel) * scale[:, None, None]
        self.places = nn.Parameter(places)
        self.rate = nn.Parameter(torch.ones(cfg.num_heads)) if cfg.decay else None

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """Mix the tokens; no real one sees the padding, which comes last."""
        return self.step(hidden, self.initial_state(len(hidden)))[0]

    def initial_state(self, batch: int) -> State:
        """Empty sums; in fp32 at least, since they add up over a whole text."""
        dim = len(self.inward.weight)
        precise = torch.promote_types(self.inward.weight.dtype, torch.float32)
        return State(self.places.new_zeros(batch, self.num_heads, dim // self.num_heads, dtype=precise), 0)

    def step(self, hidden: Hidden, state: State) -> tuple[Hidden, State]:
        """The next positions' outputs, and the state after them.

        Raises:
            ValueError: they end after the window.
        """
        end = state.position + hidden.shape[1]
        if end > self.window:
            raise ValueError(
                f"a recurrent mixer has weights for the {self.window} positions it was trained on, and none for "
                f"position {end}: {PAST_THE_WINDOW}"
            )
        values = rearrange(self.inward(hidden).to(state.sums.dtype), "b t (h p) -> b t h p", h=self.num_heads)
        if state.late is None:
            places = self.places[state.position : end]
        else:
            position = torch.arange(state.position, end, device=hidden.device) - state.late[:, None]
            places = self.places[position.clamp(min=0)]
            values = values.masked_fill((position < 0)[..., None, None], 0.0)
        with torch.autocast(hidden.device.type, enabled=False):
            mixed, sums = self._mix(values, places, state.sums)
        mixed = rearrange(mixed, "b t h p -> b t (h p)").to(hidden.dtype)
        return self.outward(mixed), state._replace(sums=sums, position=end)

    def _mix(self, values: Values, places: Float[Tensor, "*batch token head own"], before: Sums) -> tuple[Values, Sums]:
        """The heads' outputs, and their sums after the last position."""
        weights, bias, diagonal = torch.split(places, [self.kernel, 1, places.shape[-1] - self.kernel - 1], dim=-1)
        rows = self.num_rows
        entering = torch.cat([_weighted(values[..., :rows, :], weights[..., :rows, :]), values[..., rows:, :]], dim=-2)
        sums = decayed_sums(entering, self.decay(), before, self.stretch)
        read = torch.cat([sums[..., :rows, :], _weighted(sums[..., rows:, :], weights[..., rows:, :])], dim=-2)
        mixed = read + bias
        # A copy, or the state would hold on to the sums of all positions.
        return mixed + diagonal * values if diagonal.shape[-1] else mixed, sums[:, -1].clone()

    def decay(self) -> Float[Tensor, " head"] | None:
        """What is left of each head's sum after a position: clip(rate, 0.9, 1) to the power 1 / c, where 512 positions
        fit c times into the window, or once.

        The gradient goes through the clipping, or a rate that once left the range would never come back.
        """
        if self.rate is None:
            return None
        rate = self.rate.to(torch.promote_types(self.rate.dtype, torch.float32))
        clipped = rate.detach().clamp(0.9, 1.0) + (rate - rate.detach())
        return clipped ** (1 / max(1, self.window // 512))


def decayed_sums(values: Values, decay: Float[Tensor, " head"] | None, before: Sums, stretch: int) -> Values:
    """Each position's sum: the one before it times `decay`, if there is any, and its own values."""
    if decay is None:
        return values.cumsum(dim=1) + before[:, None]
    if values.shape[1] == 1:
        return values + decay[:, None] * before[:, None]
    place = torch.arange(min(stretch, values.shape[1]), device=values.device)
    kept = (decay[:, None, None] ** (place[:, None] - place).clamp(min=0)).tril()
    reach = decay[:, None] ** (place[:, None, None] + 1)
    sums = []
    for part in torch.split(values, stretch, dim=1):
        length = part.shape[1]
        inside = torch.einsum("hts,bshp->bthp", kept[:, :length, :length], part)
        sums.append(inside + reach[:length] * before[:, None])
        before = sums[-1][:, -1]
    return torch.cat(sums, dim=1)


def _weighted(values: Values, weights: Float[Tensor, "*batch token head kernel"]) -> Values:
    """Products of weights and values, shifted along a head's dimensions by a step for each weight, and summed."""
    kernel, width = weights.shape[-1], values.shape[-1]
    padded = F.pad(values, (kernel // 2, (kernel - 1) // 2))
    total = weights[..., :1] * padded[..., :width]
    for shift in range(1, kernel):
        total = total + weights[..., shift, None] * padded[..., shift : shift + width]
    return total
