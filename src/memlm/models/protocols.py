"""What encoders and memory decoders are, for code that works with any of them.

A causal decoder is a subclass of `causal_decoder.CausalDecoder`, a model with hidden states a `layered.LayeredModel`.
"""

from typing import Protocol

from memlm.config import MemoryShape
from memlm.models.encoder import Tokens
from memlm.models.parallel_decoder import Logits
from memlm.nn.mixers import Mask
from memlm.nn.pooling import MemoryVectors


class ChunkEncoder(Protocol):
    """Chunks → memories of root mean square 1."""

    shape: MemoryShape

    def __call__(self, tokens: Tokens, mask: Mask) -> MemoryVectors:
        """Encode chunks; tokens at the padding are ignored."""
        ...


class MemoryDecoder(Protocol):
    """Memories → logits of all tokens of their chunks, from nothing else."""

    def __call__(self, memory: MemoryVectors) -> Logits:
        """Logits of every position's token, and of the end token where the shape has one."""
        ...


class Codec(Protocol):
    """An encoder and the decoder of its memories, such as an autoencoder."""

    @property
    def encoder(self) -> ChunkEncoder:
        """Chunks → memories."""
        ...

    @property
    def decoder(self) -> MemoryDecoder:
        """Memories → chunks."""
        ...
