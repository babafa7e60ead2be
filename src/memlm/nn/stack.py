"""Residual blocks and stacks of them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from memlm import config
from memlm.nn.linear import linear, norm
from memlm.nn.mamba import Mamba
from memlm.nn.mixers import Attention, Hidden, Mask, MaskedMixer
from memlm.nn.recurrent import RecurrentMixer

MIXERS: dict[type[config.MixerConfig], Any] = {
    config.Attention: Attention,
    config.MaskedMixer: MaskedMixer,
    config.RecurrentMixer: RecurrentMixer,
    config.Mamba: Mamba,
}
"""Each configuration's mixer."""


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
        inner = inner.relu_()
        return self.down(inner.square() if torch.is_grad_enabled() else inner.square_())  # in place saves a sixth


class Block(nn.Module):
    """Token mixer, then MLP, each on the normalized residual stream and added to it."""

    def __init__(self, cfg: config.StackConfig, chunk_len: int) -> None:
        super().__init__()
        self.mixer = MIXERS[type(cfg.mixer)](cfg.mixer, cfg.dim, chunk_len, cfg.causal)
        self.mlp = Mlp(cfg)

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """The residual stream after the block."""
        hidden = hidden + self.mixer(norm(hidden), mask)
        return hidden + self.mlp(norm(hidden))

    def step(self, hidden: Hidden, state: Any) -> tuple[Hidden, Any]:
        """`forward` for what comes after a state."""
        mixed, state = self.mixer.step(norm(hidden), state)
        hidden = hidden + mixed
        return hidden + self.mlp(norm(hidden)), state


class Stack(nn.Module):
    """`num_layers` blocks; the output is normalized."""

    blocks: Any

    def __init__(self, cfg: config.StackConfig, chunk_len: int) -> None:
        super().__init__()
        self.causal = cfg.causal
        self.blocks = nn.ModuleList(Block(cfg, chunk_len) for _ in range(cfg.num_layers))

    def forward(self, hidden: Hidden, mask: Mask | None = None) -> Hidden:
        """The normalized output of the last block."""
        for block in self.blocks:
            hidden = block(hidden, mask)
        return norm(hidden)

    def initial_state(self, batch: int) -> list[Any]:
        """The state before the first position: one for each block's mixer."""
        return [block.mixer.initial_state(batch) for block in self.blocks]

    def step(self, hidden: Hidden, state: list[Any]) -> tuple[Hidden, list[Any]]:
        """The output of the next position [batch 1 dim], or of as many as the mixer takes, and the state after it.

        Raises:
            ValueError: the stack is not causal.
            NotImplementedError: its mixer has no step form.
        """
        if not self.causal:
            raise ValueError("only a causal stack can be stepped: set causal=true")
        after = []
        for block, before in zip(self.blocks, state, strict=True):
            hidden, now = block.step(hidden, before)
            after.append(now)
        return norm(hidden), after
