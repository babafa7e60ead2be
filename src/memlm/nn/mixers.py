"""Token mixers: hidden [batch token dim] → the same shape, each position informed by the others.

A mask [batch token] marks real tokens; what stands at the others changes nothing at the real ones.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import linear, orthogonal

Hidden = Float[Tensor, "batch token dim"]
Mask = Bool[Tensor, "batch token"]


class MaskedMixer(nn.Module):
    """One learned [token, token] matrix per head, masked by multiplication in the forward pass (paper, §2).

    Heads are kept apart as [head, dim of head · batch, token], so that every step is one matrix product and no
    tensor is permuted.
    """

    causal_mask: Tensor | None

    def __init__(self, cfg: config.MaskedMixer, dim: int, chunk_len: int, causal: bool) -> None:
        super().__init__()
        self.inward = linear(dim, dim)
        self.outward = linear(dim, dim, gain=0.0)
        # Orthogonal: no position is mixed away before training has said which may be.
        # A parameter each, because Muon orthogonalizes matrices.
        self.weight = nn.ParameterList(nn.Parameter(orthogonal(chunk_len, chunk_len)) for _ in range(cfg.num_heads))
        mask = torch.ones(chunk_len, chunk_len).tril() if causal else None
        self.register_buffer("causal_mask", mask, persistent=False)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """Mix along the tokens, head by head."""
        batch, token, dim = hidden.shape
        if mask is not None:
            hidden = hidden * mask[..., None]
        weight = torch.stack(tuple(self.weight))
        if self.causal_mask is not None:
            # A text shorter than the longest is its beginning.
            weight = (weight * self.causal_mask)[:, :token, :token]
        heads = torch.mm(self.inward.weight, rearrange(hidden, "b t d -> (b t) d").T)
        mixed = torch.bmm(heads.view(len(self.weight), -1, token), weight.transpose(1, 2))
        return F.linear(mixed.view(dim, -1).T, self.outward.weight).view(batch, token, dim)


class Attention(nn.Module):
    """Softmax attention with rotary position embeddings, through PyTorch's SDPA."""

    angles: Float[Tensor, "token half_head_dim"]

    def __init__(self, cfg: config.Attention, dim: int, chunk_len: int, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = cfg.num_heads, causal
        self.inward = linear(dim, 3 * dim)
        self.outward = linear(dim, dim, gain=0.0)
        self.register_buffer("angles", _rotary_angles(chunk_len, dim // cfg.num_heads), persistent=False)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """Attend along the tokens."""
        query, key, value = rearrange(self.inward(hidden), "b t (qkv h d) -> qkv b h t d", qkv=3, h=self.num_heads)
        query, key = (_rotate(heads, self.angles[: hidden.shape[1]]) for heads in (query, key))
        # Causal positions after the padding's start are padding too: no mask is needed for them.
        allowed = None if mask is None or self.causal else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=self.causal)
        return self.outward(rearrange(mixed, "b h t d -> b t (h d)"))


def _rotary_angles(chunk_len: int, head_dim: int) -> Float[Tensor, "token half_head_dim"]:
    frequency = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    return torch.arange(chunk_len)[:, None] * frequency


def _rotate(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotary position embedding (RoFormer, Su et al. 2021): pairs of dimensions turned by the position's angles."""
    cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    left, right = heads.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1)


def build_mixer(cfg: config.Mixer, dim: int, chunk_len: int, causal: bool) -> MaskedMixer | Attention:
    """The token mixer that a configuration names."""
    match cfg:
        case config.MaskedMixer():
            return MaskedMixer(cfg, dim, chunk_len, causal)
        case config.Attention():
            return Attention(cfg, dim, chunk_len, causal)
