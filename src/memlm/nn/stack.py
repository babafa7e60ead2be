"""Residual blocks and stacks of them."""

import torch.nn.functional as F
from torch import nn

from memlm import config
from memlm.nn.linear import linear, norm
from memlm.nn.mixers import Hidden, Mask, build_mixer


class Mlp(nn.Module):
    """The position-wise part of a block: squared ReLU (So et al. 2021), or SwiGLU as in Llama."""

    def __init__(self, cfg: config.StackConfig) -> None:
        super().__init__()
        self.gated = cfg.activation == "swiglu"
        inner = round(cfg.dim * cfg.mlp_ratio)
        self.up = linear(cfg.dim, 2 * inner if self.gated else inner)
        self.down = linear(inner, cfg.dim, gain=0.0)

    def forward(self, hidden: Hidden) -> Hidden:
        """Each position on its own."""
        inner = self.up(hidden)
        if self.gated:
            gate, value = inner.chunk(2, dim=-1)
            return self.down(F.silu(gate) * value)
        return self.down(F.relu(inner).square())


class Block(nn.Module):
    """Token mixer, then MLP, each on the normalized stream and added back to it."""

    def __init__(self, cfg: config.StackConfig, chunk_len: int) -> None:
        super().__init__()
        self.mixer = build_mixer(cfg.mixer, cfg.dim, chunk_len, cfg.causal)
        self.mlp = Mlp(cfg)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """One round of mixing and thinking."""
        hidden = hidden + self.mixer(norm(hidden), mask)
        return hidden + self.mlp(norm(hidden))


class Stack(nn.Module):
    """`num_layers` blocks; the output is normalized."""

    def __init__(self, cfg: config.StackConfig, chunk_len: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(cfg, chunk_len) for _ in range(cfg.num_layers))

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """All blocks in turn."""
        for block in self.blocks:
            hidden = block(hidden, mask)
        return norm(hidden)
