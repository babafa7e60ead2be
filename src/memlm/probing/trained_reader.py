"""A reader is trained on frozen embeddings, and measured on texts it has not seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import AdamW, MemoryShape, Muon, Reader, ReadingConfig, TrainingConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.information import unconditional_log_probs
from memlm.evaluation.metrics import Scores, quick_measures, regeneration_measures, score
from memlm.models.batch import Batch
from memlm.models.readers import ReaderModule, build_reader
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.mixture import Nats, chosen_trust, mixed, token_frequencies
from memlm.probing.texts import ProbeData, Splits
from memlm.probing.transform import Transform
from memlm.runtime.results import Interval
from memlm.training.loop import fit
from memlm.training.objectives import RETENTION

CODE_DIM = 128
"""Length of a token's code, unless its embedding is shorter."""
CONVERGED_FRACTION = 0.02
"""A reader has converged if the second half of its training gained less than this share of the text's nats."""
_NUM_WATCHES = 8
_MAX_WATCHED = 128
"""Validation chunks that a learning curve is measured on: greedy decoding takes long."""


@dataclass(frozen=True, kw_only=True)
class TrainedReader:
    """A reader, and all that is needed to measure it on other chunks."""

    module: ReaderModule
    transform: Transform
    without: Callable[[Chunks], Nats]
    """The same reader's nats without a memory."""
    vocab_size: int
    trust: float
    """λ of the mixture with the reader without a memory; 0 where the embedding is of no use."""
    curve: list[dict[str, float]]
    """{tokens, token_accuracy, nats_per_token} on validation text over training, without the mixture."""
    converged: bool

    def measure(
        self, chunks: Chunks, vectors: Vectors, document_bytes: Float[np.ndarray, " document"]
    ) -> tuple[dict[str, Any], dict[str, Interval]]:
        """Every measure of `evaluation.metrics.regeneration_measures` on numbered chunks, and their intervals."""
        scores = _score(self.module, chunks, self.transform(vectors))
        without = self.without(chunks)
        scores = scores._replace(nats=mixed(scores.nats, without, self.trust))
        num_slots, dim = vectors.shape[1:]
        sizes = {"vocab_size": self.vocab_size, "memory_dims": num_slots * dim}
        values, intervals = regeneration_measures(scores, without, document_bytes, **sizes)
        about = {"trust": self.trust, "converged": self.converged, "lower_bound": not self.converged}
        shape = {"memory_dim": dim, "num_slots": num_slots, "vocab_size": self.vocab_size}
        return {**values, **about, **shape, "curve": self.curve}, intervals

    def nats(self, chunks: Chunks, vectors: Vectors | None = None) -> Nats:
        """What each token of numbered chunks costs the reader, in nats; without vectors, of zeros in their place."""
        vectors = np.zeros((len(chunks.tokens), *self.transform.shape), np.float32) if vectors is None else vectors
        return _score(self.module, chunks, self.transform(vectors), only_nats=True).nats


def train_reader(
    data: ProbeData,
    embeddings: Splits[Vectors],
    codes: Float[Tensor, "vocab code"],
    reader: Reader,
    cfg: ReadingConfig,
    *,
    transform: Transform | None = None,
    without: TrainedReader | None = None,
    seed: int = 0,
    title: str = "Reading",
    quiet: bool = False,
) -> TrainedReader:
    """Train a reader to regenerate the training chunks from their embeddings; of its learning curve, the best is kept.

    Its probabilities are mixed with those of the same reader without a memory, as validation text says is best.
    `codes` are those of `data.types`. By default embeddings are only whitened. `without` is the same kind of reader
    trained on a constant; one that sees only the embedding needs none: what it can learn without one is the tokens'
    frequencies, which are counted.
    """
    train, validation, _ = data.numbered
    transform = transform or Transform(embeddings.train)
    log_probs = unconditional_log_probs(train.tokens.ravel(), len(codes))
    known = without.nats if without else token_frequencies(data.numbered, log_probs)
    num_slots, dim = embeddings.train.shape[1:]
    shape = MemoryShape(vocab_size=len(codes), chunk_len=train.chunk_len, num_slots=num_slots, memory_dim=dim)
    torch.manual_seed(seed)
    module = build_reader(reader, shape, codes, torch.from_numpy(log_probs).float())
    watched = transform(embeddings.validation)
    curve = _Curve(validation.rows(slice(_MAX_WATCHED)), watched[:_MAX_WATCHED])

    def memory(rows: np.ndarray, step: int) -> MemoryVectors:
        return transform(embeddings.train[rows], torch.Generator().manual_seed(seed * 1_000_003 + step))

    training = fit_reader(module, train, cfg, seed, memory=memory, evaluate=curve.watch, title=title, quiet=quiet)
    module.load_state_dict(curve.best)  # one that has learned its training chunks by heart reads others worse
    module.cpu()
    nats, known_nats = _score(module, validation, watched, only_nats=True).nats, known(validation)
    return TrainedReader(
        module=module,
        transform=transform,
        without=known,
        vocab_size=len(codes),
        trust=chosen_trust(nats, known_nats, validation.document),
        curve=[{"tokens": (i + 1) * training.eval_tokens, **point} for i, point in enumerate(curve.points)],
        converged=curve.converged(float(known_nats.mean())),
    )


class _Curve:
    """How a reader learns, by validation text; and the weights it had at its best."""

    def __init__(self, chunks: Chunks, memory: MemoryVectors) -> None:
        self.chunks, self.memory = chunks, memory
        self.points: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def watch(self, model: nn.Module) -> dict[str, float]:
        """One more point."""
        self.points.append(quick_measures(_score(model, self.chunks, self.memory)))
        if self.nats[-1] == self.nats.min():
            self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return self.points[-1]

    @property
    def nats(self) -> Float[np.ndarray, " point"]:
        """Per token."""
        return np.array([point["nats_per_token"] for point in self.points])

    def converged(self, without_nats: float) -> bool:
        """Whether the second half changed next to nothing; the learning rate falls in it, which brings most.

        A reader that lost what it had won, by learning its training chunks by heart, would have gone on with more.
        """
        late = self.nats[max(0, len(self.nats) // 2 - 1) :]
        return bool(max(late[0], late[-1]) - self.nats.min() < CONVERGED_FRACTION * without_nats)


def fit_reader(
    module: nn.Module,
    chunks: Chunks,
    cfg: ReadingConfig,
    seed: int,
    *,
    memory: Callable[[np.ndarray, int], MemoryVectors] | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    title: str,
    quiet: bool,
) -> TrainingConfig:
    """Train on random chunks, with `memory` of these rows at this step; as our autoencoders are trained, where the
    reference recipe learns next to nothing. Returns how."""
    num_rows = cfg.chunks_per_step(chunks.chunk_len)
    batch_tokens = num_rows * chunks.chunk_len
    training = TrainingConfig(
        num_tokens=cfg.num_steps * batch_tokens,
        batch_tokens=batch_tokens,
        optimizer=Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2)),
        warmup_tokens=20 * batch_tokens,
        eval_tokens=max(1, cfg.num_steps // _NUM_WATCHES) * batch_tokens,
        seed=seed,
    )

    def batch(step: int) -> Batch:
        rows = np.random.default_rng([seed, step]).integers(len(chunks.tokens), size=num_rows)
        return Batch.of(chunks.rows(rows), memory(rows, step) if memory else None)

    fit(module, batch, RETENTION, training, evaluate=evaluate, title=title, quiet=quiet)
    return training


def codes_of(table: Float[Tensor, "vocab dim"]) -> Float[Tensor, "vocab code"]:
    """Token embeddings, whitened over the vocabulary: of their principal directions the `CODE_DIM` largest."""
    table = table.float().cpu()
    values, vectors = torch.linalg.eigh(torch.cov((table - table.mean(0)).T.double()))
    largest = vectors[:, -CODE_DIM:] * values[-CODE_DIM:].clamp_min(1e-12).rsqrt()
    return (table - table.mean(0)) @ largest.float()


def _score(module: nn.Module, chunks: Chunks, memory: MemoryVectors, *, only_nats: bool = False) -> Scores:
    codes = module.get_buffer("head.codes")
    return score(module, chunks, len(codes), memory=memory, only_nats=only_nats)
