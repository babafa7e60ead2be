"""Pointing: next-token logits, and tokens that stand elsewhere → log-probabilities of tokens, some of them copied."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memlm.nn.linear import linear, to_compute_dtype
from memlm.nn.mixers import Hidden


class PastTokens(NamedTuple):
    """Chunks as their memories give them back."""

    tokens: Int[Tensor, "row memory token"]
    """The likeliest."""
    keys: Float[Tensor, "row memory token dim"]
    """What a pointer finds each by; of no dimensions where nothing points."""
    real: Bool[Tensor, "row memory token"]
    """Whether the chunk has so many tokens; others are neither read nor pointed at."""

    def ending_last(self, num_tokens: Int[Tensor, "row memory"]) -> "PastTokens":
        """Chunks of so many tokens turned, so that what lies beyond their end comes before it."""
        place, length = torch.arange(self.tokens.shape[2], device=self.tokens.device), num_tokens[..., None]
        index = (place + length) % len(place)
        keys = self.keys.gather(2, index[..., None].expand_as(self.keys))
        return PastTokens(self.tokens.gather(2, index), keys, place >= len(place) - length)


class Pointer(nn.Module):
    """Tokens to copy, chosen by attention, mixed with those that the decoder expects (pointer sentinel mixture, Merity
    et al. 2017).

    A token's key are the tokens before it, so that what went on from a few words once is found when they return: the
    work of two layers of attention over tokens (Olsson et al. 2022), done by one.
    """

    def __init__(self, span: int, dim: int) -> None:
        super().__init__()
        self.span = span
        self.key = linear(span * dim, dim)
        self.query = linear(dim, dim)
        self.sentinel = nn.Parameter(torch.zeros(dim))

    def keys(self, embedded: Float[Tensor, "*chunk token dim"]) -> Float[Tensor, "*chunk token dim"]:
        """Every token's key: of the `span` tokens before it, as far as its chunk has them."""
        before = F.pad(embedded, (0, 0, self.span, 0))[..., :-1, :].unfold(-2, self.span, 1)
        return self.key(to_compute_dtype(before.flatten(-2)))

    def forward(
        self,
        hidden: Hidden,
        logits: Float[Tensor, "row token vocab"],
        past: PastTokens,
        present: Bool[Tensor, "row memory"],
    ) -> Float[Tensor, "row token vocab"]:
        """Log-probabilities of next tokens after states [row token dim], whose logits alone are given.

        Where beams are searched there are several rows of states for each of past tokens, side by side.
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
