"""Controls: what a probe must find where the truth is known."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import MaskedMixer, MemoryShape, ParallelReader, Positional, ReadingConfig, StackConfig
from memlm.evaluation.information import unconditional_log_probs
from memlm.models.autoencoder import Regeneration
from memlm.models.batch import Batch, encode_chunks
from memlm.models.encoder import Encoder, Tokens
from memlm.models.readers import build_reader, token_dim
from memlm.nn.linear import linear
from memlm.nn.mixers import Mask
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.texts import ProbeData
from memlm.probing.trained_reader import Embeddings, training_config
from memlm.training.accelerator import build_accelerator
from memlm.training.loop import Task, fit
from memlm.training.objectives import RETENTION

POSITIVE_DIMS, POSITIVE_DIMS_PER_TOKEN = 512, 4
"""Dimensions of the positive control's memories: at least, and at least for each token."""


def shuffled(embedded: Embeddings, seed: int = 0) -> Embeddings:
    """Every embedding beside another chunk's text: nothing can be retained."""
    random = np.random.default_rng(seed)
    return Embeddings(*(_rolled(vectors, int(random.integers(1, len(vectors)))) for vectors in embedded))


def constant(embedded: Embeddings) -> Embeddings:
    """The same embedding for every text: nothing can be retained."""
    return Embeddings(*(np.broadcast_to(np.float32(0), vectors.shape) for vectors in embedded))


def _rolled(vectors: Vectors, shift: int) -> Vectors:
    """Chunks are in random order, so that shifting them is shuffling, and none keeps its own."""
    return np.roll(vectors, shift, axis=0)


class _CodeEncoder(nn.Module):
    """An encoder of ours that knows tokens by their codes, as readers do, so that rare tokens are held too."""

    def __init__(self, codes: Float[Tensor, "vocab code"], chunk_len: int) -> None:
        super().__init__()
        dims = max(POSITIVE_DIMS, POSITIVE_DIMS_PER_TOKEN * chunk_len)
        self.shape = MemoryShape(vocab_size=len(codes), chunk_len=chunk_len, memory_dim=dims)
        stack = StackConfig(num_layers=1, mixer=MaskedMixer(num_heads=8))
        self.encoder = Encoder(self.shape, stack, Positional(token_dim=token_dim(chunk_len)))
        self.encoder.embed = nn.Sequential(  # type: ignore[assignment]
            nn.Embedding.from_pretrained(codes),  # type: ignore[no-untyped-call]
            linear(codes.shape[1], stack.dim, gain=0.35),
        )

    def forward(self, tokens: Tokens, mask: Mask) -> MemoryVectors:
        return self.encoder(tokens, mask)


class _CodeAutoencoder(nn.Module):
    """The encoder above with a reader as its decoder, trained together."""

    def __init__(self, encoder: _CodeEncoder, codes: Tensor, log_probs: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.reader = build_reader(ParallelReader(), encoder.shape, codes, log_probs)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors | None = None) -> Regeneration:
        memory = self.encoder(tokens, mask) if memory is None else memory
        return self.reader(tokens, mask, memory)


def autoencoder_memories(
    data: ProbeData, codes: Float[Tensor, "vocab code"], cfg: ReadingConfig, *, seed: int = 0, quiet: bool = False
) -> Embeddings:
    """Memories of an autoencoder trained on the same chunks for the same budget: a reader that cannot read these is
    too weak to say anything about others."""
    train, validation, test = (data.vocabulary.number(part) for part in (data.train, data.validation, data.test))
    log_probs = torch.from_numpy(unconditional_log_probs(train.tokens.ravel(), len(codes))).float()
    torch.manual_seed(seed)
    encoder = _CodeEncoder(codes, train.tokens.shape[1])
    model = _CodeAutoencoder(encoder, codes, log_probs)

    def batch(step: int) -> Batch:
        rows = np.random.default_rng([seed, step]).integers(
            len(train.tokens), size=cfg.chunks_per_step(train.tokens.shape[1])
        )
        return Batch.of(train.rows(rows))

    training = training_config(cfg, train.tokens.shape[1], seed)
    task = Task(sample=batch, objective=RETENTION, title="Training the positive control")
    fit(model, task, training, build_accelerator(training), quiet=quiet)
    return Embeddings(*(encode_chunks(encoder.eval(), part).numpy() for part in (train, validation, test)))
