"""The autoencoder: an encoder and a parallel decoder, trained for regeneration."""

from typing import NamedTuple

import torch
from torch import nn

from memlm import config
from memlm.models.encoder import Encoder, Tokens
from memlm.models.parallel_decoder import Logits, ParallelDecoder
from memlm.nn.mixers import Mask
from memlm.nn.pooling import MemoryVectors


class Regeneration(NamedTuple):
    """What an autoencoder returns."""

    logits: Logits
    memory: MemoryVectors


class Autoencoder(nn.Module):
    """Chunk → memory → chunk. `memory_noise` is added in training only."""

    def __init__(self, cfg: config.AutoencoderConfig) -> None:
        super().__init__()
        self.config = cfg
        self.encoder = Encoder(cfg.shape, cfg.encoder, cfg.pooling)
        self.decoder = ParallelDecoder(cfg.shape, cfg.decoder, cfg.unpooling)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors | None = None) -> Regeneration:
        """Regenerate chunks from their memories, which are computed here unless given."""
        memory = self.encoder(tokens, mask) if memory is None else memory
        noisy = memory
        if self.training and self.config.memory_noise:
            noisy = memory + self.config.memory_noise * torch.randn_like(memory)
        return Regeneration(self.decoder(noisy), memory)
