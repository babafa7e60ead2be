"""Controls: what a probe must find where the truth is known."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import MaskedMixer, MemoryShape, ParallelReader, Positional, ReadingConfig, StackConfig
from memlm.evaluation.information import unconditional_log_probs
from memlm.models.autoencoder import Encoder, Regeneration
from memlm.models.batch import encode_chunks
from memlm.models.readers import build_reader, token_dim
from memlm.nn.linear import linear
from memlm.nn.mixers import Mask, Tokens
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.texts import ProbeData, Splits
from memlm.probing.trained_reader import fit_reader

POSITIVE_DIMS, POSITIVE_DIMS_PER_TOKEN = 512, 4
"""Dimensions of the positive control's memories: at least, and at least for each token."""


def shuffled(embeddings: Splits[Vectors], seed: int = 0) -> Splits[Vectors]:
    """Every embedding beside another chunk's text: nothing can be retained."""
    random = np.random.default_rng(seed)
    # Chunks are in random order, so that shifting them is shuffling, and none keeps its own.
    return embeddings.map(lambda vectors: np.roll(vectors, int(random.integers(1, len(vectors))), axis=0))


def constant(embeddings: Splits[Vectors]) -> Splits[Vectors]:
    """The same embedding for every text: nothing can be retained."""
    return embeddings.map(lambda vectors: np.broadcast_to(np.float32(0), vectors.shape))


class _CodeAutoencoder(nn.Module):
    """An encoder of ours that knows tokens by their codes, as readers do, so that rare tokens are held too; with a
    reader as its decoder."""

    def __init__(self, codes: Float[Tensor, "vocab code"], log_probs: Tensor, chunk_len: int) -> None:
        super().__init__()
        dims = max(POSITIVE_DIMS, POSITIVE_DIMS_PER_TOKEN * chunk_len)
        shape = MemoryShape(vocab_size=len(codes), chunk_len=chunk_len, memory_dim=dims)
        stack = StackConfig(num_layers=1, mixer=MaskedMixer(num_heads=8))
        self.encoder = Encoder(shape, stack, Positional(token_dim=token_dim(chunk_len)))
        self.encoder.embed = nn.Sequential(  # type: ignore[assignment]
            nn.Embedding.from_pretrained(codes),  # type: ignore[no-untyped-call]
            linear(codes.shape[1], stack.dim, gain=0.35),
        )
        self.reader = build_reader(ParallelReader(), shape, codes, log_probs)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors | None = None) -> Regeneration:
        return self.reader(tokens, mask, self.encoder(tokens, mask) if memory is None else memory)


def autoencoder_memories(
    data: ProbeData, codes: Float[Tensor, "vocab code"], cfg: ReadingConfig, *, seed: int = 0, quiet: bool = False
) -> Splits[Vectors]:
    """Memories of an autoencoder trained on the same chunks for the same budget: a reader that cannot read these is
    too weak to say anything about others."""
    train = data.numbered.train
    log_probs = torch.from_numpy(unconditional_log_probs(train.tokens.ravel(), len(codes))).float()
    torch.manual_seed(seed)
    model = _CodeAutoencoder(codes, log_probs, train.chunk_len)
    fit_reader(model, train, cfg, seed, title="Training the positive control", quiet=quiet)
    return data.numbered.map(lambda part: encode_chunks(model.encoder.eval(), part).numpy())
