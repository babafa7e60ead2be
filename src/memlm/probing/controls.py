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
from memlm.probing.embed import NO_VECTORS, Vectors
from memlm.probing.texts import ProbeData, Splits
from memlm.probing.trained_reader import fit_reader
from memlm.runtime.cache import Arrays

POSITIVE_DIMS, POSITIVE_DIMS_PER_TOKEN = 512, 4
"""Dimensions of the positive control's memories: at least, and at least for each token."""


def shuffled(embeddings: Splits[Vectors], seed: int = 0) -> Splits[Vectors]:
    """Every embedding beside another chunk's text: nothing can be retained."""
    random = np.random.default_rng(seed)
    # Chunks are in random order, so that shifting them is shuffling, and none keeps its own.
    return embeddings.map(lambda vectors: np.roll(vectors, int(random.integers(1, max(2, len(vectors)))), axis=0))


def constant(embeddings: Splits[Vectors]) -> Splits[Vectors]:
    """The same embedding for every text, 0: nothing can be retained. Of no text more than one number is needed."""
    return embeddings.map(lambda vectors: np.zeros((*vectors.shape[:2], 1), np.float32))


class CodeAutoencoder(nn.Module):
    """An encoder of ours that knows tokens by their codes, as readers do, so that rare tokens are held too; with a
    reader as its decoder."""

    def __init__(self, codes: Float[Tensor, "vocab code"], log_probs: Tensor, chunk_len: int) -> None:
        super().__init__()
        dims = max(POSITIVE_DIMS, POSITIVE_DIMS_PER_TOKEN * chunk_len)
        shape = MemoryShape(vocab_size=len(codes), chunk_len=chunk_len, memory_dim=dims)
        stack = StackConfig(num_layers=1, mixer=MaskedMixer(num_heads=8))
        self.encoder = Encoder(shape, stack, Positional(token_dim=2 * token_dim(chunk_len)))
        self.encoder.embed = nn.Sequential(  # type: ignore[assignment]
            nn.Embedding.from_pretrained(codes),  # type: ignore[no-untyped-call]
            linear(codes.shape[1], stack.dim, gain=0.35),
        )
        self.reader = build_reader(ParallelReader(), shape, codes, log_probs)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors | None = None) -> Regeneration:
        """Regenerate chunks from their memories."""
        return self.reader(tokens, mask, self.encoder(tokens, mask) if memory is None else memory)

    def to_arrays(self) -> Arrays:
        """What its encoder has learned, to be kept."""
        learned = {name: part for name, part in self.encoder.named_parameters() if part.requires_grad}
        return Arrays({name: part.detach().cpu().numpy() for name, part in learned.items()}, None)

    def load(self, kept: Arrays) -> None:
        """Take over what an encoder of the same shape has learned."""
        own = {name: part for name, part in self.encoder.named_parameters() if part.requires_grad}
        with torch.no_grad():
            for name, part in own.items():
                part.copy_(torch.from_numpy(kept.arrays[name]))

    def memories(self, data: ProbeData, codes: Float[Tensor, "vocab code"]) -> Splits[Vectors]:
        """Of all chunks, whose tokens have these codes."""
        self.encoder.embed[0] = nn.Embedding.from_pretrained(codes)  # type: ignore[operator, no-untyped-call]
        encoder = self.encoder.eval()
        return data.numbered.map(lambda part: encode_chunks(encoder, part).numpy() if len(part.tokens) else NO_VECTORS)


def untrained_autoencoder(data: ProbeData, codes: Float[Tensor, "vocab code"], seed: int = 0) -> CodeAutoencoder:
    """One that has learned nothing but the tokens' frequencies, of the tokens that there are to learn."""
    num_types = len(data.learned_types)
    log_probs = torch.from_numpy(unconditional_log_probs(data.learned_tokens.ravel(), num_types)).float()
    torch.manual_seed(seed)
    return CodeAutoencoder(codes[:num_types], log_probs, data.chunks.test.chunk_len)


def train_autoencoder(
    model: CodeAutoencoder, data: ProbeData, cfg: ReadingConfig, seed: int = 0, *, quiet: bool = False
) -> None:
    """Train it on what readers learn from, for the same budget: a reader that cannot read its memories is too
    weak to say anything about others."""
    fit_reader(model, data.numbered.train, cfg, seed, title="Training the positive control", quiet=quiet)
