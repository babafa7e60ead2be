"""What a parallel decoder expects of a token once it has read the tokens before it, too; patches are coded by it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import linear, norm
from memlm.nn.mixers import Tokens

TokensBefore = Int[Tensor, "*row number"]
"""The tokens before a place, the nearest first; where there is none, the number of types."""


class ContextHead(nn.Module):
    """The decoder's last states, changed by the tokens before; the decoder's own head makes logits of both."""

    def __init__(self, cfg: config.ContextConfig, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.num_tokens, self.none = cfg.num_tokens, shape.num_types
        self.embed = nn.Embedding(shape.num_types + 1, cfg.dim)
        nn.init.normal_(self.embed.weight, std=0.5)
        self.up = linear(dim + cfg.num_tokens * cfg.dim, cfg.inner)
        self.down = linear(cfg.inner, dim, gain=0.0)

    def forward(self, states: Float[Tensor, "*row dim"], before: TokensBefore) -> Float[Tensor, "*row dim"]:
        """The changed states."""
        inputs = torch.cat([states, self.embed(before).flatten(-2).to(states.dtype)], dim=-1)
        return norm(states + self.down(F.relu(self.up(inputs)).square()))

    def before(self, tokens: Tokens) -> Int[Tensor, "batch token number"]:
        """The tokens before each place of chunks."""
        length = tokens.shape[1]
        shifted = (F.pad(tokens, (by, 0), value=self.none)[:, :length] for by in range(1, self.num_tokens + 1))
        return torch.stack([*shifted], dim=-1)
