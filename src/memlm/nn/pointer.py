"""A pointer head: copies tokens that memories give back into next-token predictions."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memlm.nn.linear import linear, to_compute_dtype
from memlm.nn.mixers import Hidden


class PastTokens(NamedTuple):
    """The tokens of past chunks, regenerated from their memories."""

    tokens: Int[Tensor, "row memory token"]
    """The most likely ones."""
    keys: Float[Tensor, "row memory token dim"]
    """The pointer's keys; of dimension 0 without a pointer."""
    real: Bool[Tensor, "row memory token"]
    """False at the padding of short chunks."""

    def ending_last(self, num_tokens: Int[Tensor, "row memory"]) -> "PastTokens":
        """Chunks of so many tokens, rotated so that padding comes first."""
        place, length = torch.arange(self.tokens.shape[2], device=self.tokens.device), num_tokens[..., None]
        index = (place + length) % len(place)
        keys = self.keys.gather(2, index[..., None].expand_as(self.keys))
        return PastTokens(self.tokens.gather(2, index), keys, place >= len(place) - length)


class Pointer(nn.Module):
    """Attention to past tokens, mixed with the decoder's distribution (pointer sentinel mixture, Merity et al. 2017).

    A token's key is made of the tokens before it, so that one layer does the work of an induction head (Olsson et al.
    2022), which takes two.
    """

    def __init__(self, span: int, dim: int) -> None:
        super().__init__()
        self.span = span
        self.key = linear(span * dim, dim)
        self.query = linear(dim, dim)
        self.sentinel = nn.Parameter(torch.zeros(dim))

    def keys(self, embedded: Float[Tensor, "*chunk token dim"]) -> Float[Tensor, "*chunk token dim"]:
        """Each token's key, made of the `span` tokens before it in its chunk."""
        before = F.pad(embedded, (0, 0, self.span, 0))[..., :-1, :].unfold(-2, self.span, 1)
        return self.key(to_compute_dtype(before.flatten(-2)))

    def forward(
        self,
        hidden: Hidden,
        logits: Float[Tensor, "row token vocab"],
        past: PastTokens,
        present: Bool[Tensor, "row memory"],
    ) -> Float[Tensor, "row token vocab"]:
        """Log-probabilities of next tokens, from the decoder's states and logits.

        In beam search, several consecutive rows of states belong to one row of past tokens.
        """
        beams = len(hidden) // len(present)
        keys = repeat(past.keys, "r n t d -> (r b) (n t) d", b=beams)
        there = repeat(present[..., None] & past.real, "r n t -> (r b) 1 (n t)", b=beams)
        query = self.query(hidden) * hidden.shape[-1] ** -0.5
        scores = (query @ keys.to(query.dtype).mT).float().masked_fill(~there, -torch.inf)
        nowhere = query.float() @ self.sentinel
        shares = torch.cat([nowhere[..., None], scores], dim=-1).softmax(dim=-1)
        tokens = repeat(past.tokens, "r n t -> (r b) q (n t)", b=beams, q=hidden.shape[1])
        mixed = (shares[..., :1] * logits.float().softmax(dim=-1)).scatter_add(-1, tokens, shares[..., 1:])
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()
