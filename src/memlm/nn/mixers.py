"""Token mixers: hidden [batch token dim] → the same shape, each position informed by the others.

A mask [batch token] marks real tokens; masked positions do not affect the others. To add a mixer, see
`docs/howto/add-a-mixer.md`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import linear, orthogonal

Tokens = Int[Tensor, "batch token"]
Hidden = Float[Tensor, "batch token dim"]
Logits = Float[Tensor, "batch token vocab"]
Mask = Bool[Tensor, "batch token"]


class Mixer(nn.Module):
    """A token mixer, built of its configuration, the width, the longest text in tokens, and whether it is causal.

    Its parallel form is `forward(hidden, mask)`. A causal mixer may also have a step form, which computes the same one
    position at a time (the tests compare them); without one it works everywhere but in `Stack.step`.
    """

    def initial_state(self, batch: int) -> Any:
        """The state before the first position of `batch` texts."""
        raise NotImplementedError(f"{type(self).__name__} has no step form")

    def step(self, hidden: Hidden, state: Any) -> tuple[Hidden, Any]:
        """The next position's output, and the state after it; some mixers take several positions at once."""
        raise NotImplementedError(f"{type(self).__name__} has no step form")


class MaskedMixer(Mixer):
    """One learned [token, token] matrix per head, masked by multiplication in the forward pass (paper, §2).

    Heads have the shape [head, dim of head · batch, token], so that each operation is one matrix product and no tensor
    is permuted. The state is the heads of the positions so far.
    """

    causal_mask: Tensor | None

    def __init__(self, cfg: config.MaskedMixer, dim: int, chunk_len: int, causal: bool) -> None:
        super().__init__()
        self.inward = linear(dim, dim)
        self.outward = linear(dim, dim, gain=0.0)
        # Orthogonal, so that no position is lost at first; a parameter each, because Muon orthogonalizes matrices.
        self.weight = nn.ParameterList(nn.Parameter(orthogonal(chunk_len, chunk_len)) for _ in range(cfg.num_heads))
        mask = torch.ones(chunk_len, chunk_len).tril() if causal else None
        self.register_buffer("causal_mask", mask, persistent=False)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """Mix the tokens, head by head."""
        batch, token, dim = hidden.shape
        if mask is not None:
            hidden = hidden * mask[..., None]
        weight = torch.stack(tuple(self.weight))
        if self.causal_mask is not None:
            weight = (weight * self.causal_mask)[:, :token, :token]
        mixed = torch.bmm(self._heads(hidden), weight.transpose(1, 2))
        return F.linear(mixed.view(dim, -1).T, self.outward.weight).view(batch, token, dim)

    def initial_state(self, batch: int) -> Float[Tensor, "head part 0"]:
        """The heads of no position."""
        return self._heads(self.outward.weight.new_zeros(batch, 0, len(self.inward.weight)))

    def step(
        self, hidden: Float[Tensor, "batch 1 dim"], state: Float[Tensor, "head part token"]
    ) -> tuple[Float[Tensor, "batch 1 dim"], Float[Tensor, "head part token_and_one"]]:
        """Mix the positions so far into the next one."""
        state = torch.cat([state, self._heads(hidden)], dim=-1)
        length = state.shape[-1]
        weight = torch.stack([matrix[length - 1, :length] for matrix in self.weight])
        mixed = torch.bmm(state, weight[..., None])
        return F.linear(mixed.view(hidden.shape[-1], -1).T, self.outward.weight).view(hidden.shape), state

    def _heads(self, hidden: Hidden) -> Float[Tensor, "head part token"]:
        heads = torch.mm(self.inward.weight, rearrange(hidden, "b t d -> (b t) d").T)
        return heads.view(len(self.weight), len(heads) // len(self.weight) * len(hidden), hidden.shape[1])


class Attention(Mixer):
    """Softmax attention with rotary position embeddings, through PyTorch's SDPA; the state is the KV cache."""

    angles: Float[Tensor, "token half_head_dim"]

    def __init__(self, cfg: config.Attention, dim: int, chunk_len: int, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = cfg.num_heads, causal
        self.inward = linear(dim, 3 * dim)
        self.outward = linear(dim, dim, gain=0.0)
        head_dim = dim // cfg.num_heads
        frequency = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        self.register_buffer("angles", torch.arange(chunk_len)[:, None] * frequency, persistent=False)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """Attend to all tokens, or to the earlier ones."""
        query, key, value = self._heads(hidden)
        # In causal attention no real token sees the padding, which comes last.
        allowed = None if mask is None or self.causal else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=self.causal)
        return self.outward(rearrange(mixed, "b h t d -> b t (h d)"))

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """No keys and no values."""
        none = self.outward.weight.new_zeros(batch, self.num_heads, 0, len(self.outward.weight) // self.num_heads)
        return none, none

    def step(
        self, hidden: Float[Tensor, "batch 1 dim"], state: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch 1 dim"], tuple[Tensor, Tensor]]:
        """Attend from the next position to the cached ones and itself."""
        query, *new = self._heads(hidden, start=state[0].shape[2])
        key, value = (torch.cat([old.to(one.dtype), one], dim=2) for old, one in zip(state, new, strict=True))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.outward(rearrange(mixed, "b h t d -> b t (h d)")), (key, value)

    def _heads(self, hidden: Hidden, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch head token dim] of positions from `start` on."""
        query, key, value = rearrange(self.inward(hidden), "b t (qkv h d) -> qkv b h t d", qkv=3, h=self.num_heads)
        angles = self.angles[start : start + hidden.shape[1]]
        return _rotate(query, angles), _rotate(key, angles), value


def _rotate(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotary position embedding (RoFormer, Su et al. 2021): pairs of dimensions rotated by the position's angles."""
    cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    left, right = heads.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1)
