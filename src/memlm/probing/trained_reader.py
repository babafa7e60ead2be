"""One reading: a reader is trained on frozen embeddings and measured on texts it has not seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm.config import AdamW, MemoryShape, Muon, Reader, ReadingConfig, TrainingConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.information import unconditional_log_probs
from memlm.evaluation.metrics import Scores, measures, quick_measures, score
from memlm.models.batch import Batch
from memlm.models.readers import ReaderModule, build_reader
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.texts import ProbeData
from memlm.probing.transform import Transform
from memlm.runtime.results import Interval
from memlm.training.accelerator import build_accelerator
from memlm.training.loop import Task, fit
from memlm.training.objectives import RETENTION

CODE_DIM = 128
"""Length of a token's code, unless its embedding is shorter."""
CONVERGED_FRACTION = 0.02
"""A reader has converged if the second half of its training gained less than this share of the text's nats."""
_NUM_WATCHES = 8
_MAX_WATCHED = 128
"""Validation chunks that a learning curve is measured on: greedy decoding takes long."""
_MIN_STANDARD_ERRORS = 3.0
_PRIOR_COUNTS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""How many tokens the overall frequencies may count for at each position."""

Nats = Float[np.ndarray, "chunk token"]


class Embeddings(NamedTuple):
    """The embeddings [chunk slot dim] of a data's chunks."""

    train: Vectors
    validation: Vectors
    test: Vectors


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
        """Every measure of `evaluation.metrics.measures` on numbered chunks, and their intervals."""
        scores = _score(self.module, chunks, self.transform(vectors), self.vocab_size)
        without = self.without(chunks)
        mixed = scores._replace(nats=_mixed(scores.nats, without, self.trust))
        num_slots, dim = vectors.shape[1:]
        values, intervals = measures(
            mixed, without, document_bytes, vocab_size=self.vocab_size, memory_dims=num_slots * dim
        )
        about = {"trust": self.trust, "converged": self.converged, "lower_bound": not self.converged}
        shape = {"memory_dim": dim, "num_slots": num_slots, "vocab_size": self.vocab_size}
        return {**values, **about, **shape}, intervals

    def nats(self, chunks: Chunks, vectors: Vectors) -> Nats:
        """What each token of numbered chunks costs the reader, in nats."""
        return _score(self.module, chunks, self.transform(vectors), self.vocab_size, only_nats=True).nats


def train_reader(
    data: ProbeData,
    embedded: Embeddings,
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

    Its probabilities are mixed with those of the same reader without a memory, λ : 1 - λ, as validation text says is
    best: predictors that ignore the embedding belong to the family over which V-information is defined (Xu et al.
    2020, optional ignorance). λ is 0 unless it gains more than three standard errors there.

    Args:
        data: the texts.
        embedded: their embeddings.
        codes: of the vocabulary's tokens, in its order.
        reader: its kind and size.
        cfg: its budget.
        transform: of the embeddings, before they are read; by default they are only whitened.
        without: the same kind of reader trained on a constant. A reader that sees only the embedding needs none: what
            it can learn without one is the tokens' frequencies, which are counted.
        seed: of the reader's weights and of the order of chunks.
        title: what the progress bar says.
        quiet: show no progress.
    """
    train, validation = data.vocabulary.number(data.train), data.vocabulary.number(data.validation)
    transform = transform or Transform(embedded.train)
    log_probs = unconditional_log_probs(train.tokens.ravel(), len(codes))
    known = _known(without) if without else _counted(train, validation, log_probs)
    module = _build(reader, embedded.train, train.tokens.shape[1], codes, log_probs, seed)
    watched = transform(embedded.validation)
    few = slice(_MAX_WATCHED)
    glimpse = validation.rows(few)
    curve: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}

    def watch(model: nn.Module) -> dict[str, float]:
        curve.append(quick_measures(_score(model, glimpse, watched[few], len(codes))))
        if curve[-1]["nats_per_token"] == min(point["nats_per_token"] for point in curve):
            best.update({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        return curve[-1]

    training = training_config(cfg, train.tokens.shape[1], seed)
    task = Task(
        sample=_sampler(train, embedded.train, transform, cfg.chunks_per_step(train.tokens.shape[1]), seed),
        objective=RETENTION,
        evaluate=watch,
        title=title,
    )
    fit(module, task, training, build_accelerator(training), quiet=quiet)
    module.load_state_dict(best)  # one that has learned its training chunks by heart reads others worse
    module.cpu()
    nats = _score(module, validation, watched, len(codes), only_nats=True).nats
    return TrainedReader(
        module=module,
        transform=transform,
        without=known,
        vocab_size=len(codes),
        trust=_trust(nats, known(validation), validation.document),
        curve=[{"tokens": (i + 1) * training.eval_tokens, **row} for i, row in enumerate(curve)],
        converged=_converged(curve, float(known(validation).mean())),
    )


def codes_of(table: Float[Tensor, "vocab dim"]) -> Float[Tensor, "vocab code"]:
    """Token embeddings, whitened over the vocabulary: of their principal directions the `CODE_DIM` largest."""
    table = table.float().cpu()
    values, vectors = torch.linalg.eigh(torch.cov((table - table.mean(0)).T.double()))
    keep = vectors[:, -CODE_DIM:] * values[-CODE_DIM:].clamp_min(1e-12).rsqrt()
    return (table - table.mean(0)) @ keep.float()


def training_config(cfg: ReadingConfig, chunk_len: int, seed: int) -> TrainingConfig:
    """How readers are trained: as our autoencoders are, where the reference recipe learns next to nothing."""
    batch_tokens = cfg.chunks_per_step(chunk_len) * chunk_len
    return TrainingConfig(
        num_tokens=cfg.num_steps * batch_tokens,
        batch_tokens=batch_tokens,
        optimizer=Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2)),
        warmup_tokens=20 * batch_tokens,
        eval_tokens=max(1, cfg.num_steps // _NUM_WATCHES) * batch_tokens,
        seed=seed,
    )


def _build(
    reader: Reader,
    vectors: Vectors,
    chunk_len: int,
    codes: Float[Tensor, "vocab code"],
    log_probs: Float[np.ndarray, " vocab"],
    seed: int,
) -> ReaderModule:
    num_slots, dim = vectors.shape[1:]
    shape = MemoryShape(vocab_size=len(codes), chunk_len=chunk_len, num_slots=num_slots, memory_dim=dim)
    torch.manual_seed(seed)
    return build_reader(reader, shape, codes, torch.from_numpy(log_probs).float())


def _sampler(
    chunks: Chunks, vectors: Vectors, transform: Transform, batch_chunks: int, seed: int
) -> Callable[[int], Batch]:
    """Step → random chunks with their embeddings; a function of seed and step."""

    def batch(step: int) -> Batch:
        rows = np.random.default_rng([seed, step]).integers(len(chunks.tokens), size=batch_chunks)
        memory = transform(vectors[rows], torch.Generator().manual_seed(seed * 1_000_003 + step))
        return Batch.of(chunks.rows(rows), memory)

    return batch


def _score(
    module: nn.Module, chunks: Chunks, memory: MemoryVectors, vocab_size: int, *, only_nats: bool = False
) -> Scores:
    device = next(module.parameters()).device
    return score(module, chunks, vocab_size, memory=memory, only_nats=only_nats, device=device)


def _known(without: TrainedReader) -> Callable[[Chunks], Nats]:
    """What tokens cost a reader that was trained without a memory."""
    num_slots, dim = without.transform.shape
    return lambda chunks: without.nats(chunks, np.zeros((len(chunks.tokens), num_slots, dim), np.float32))


def _counted(train: Chunks, validation: Chunks, log_probs: Float[np.ndarray, " vocab"]) -> Callable[[Chunks], Nats]:
    """What tokens cost a reader that sees only the embedding, without one: their frequencies are all it can know.

    They are mixed with those of each position, as far as validation text says that these differ.
    """
    places = np.arange(train.tokens.shape[1])
    counts = np.zeros((len(places), len(log_probs)))
    np.add.at(counts, (places, train.tokens), 1)

    def nats(chunks: Chunks, prior: float) -> Nats:
        likelihood = counts[places, chunks.tokens] + prior * np.exp(log_probs[chunks.tokens])
        return -np.log(likelihood / (len(train.tokens) + prior))

    prior = min(_PRIOR_COUNTS, key=lambda prior: float(nats(validation, prior).mean()))
    trust = _trust(nats(validation, prior), -log_probs[validation.tokens], validation.document)
    return lambda chunks: _mixed(nats(chunks, prior), -log_probs[chunks.tokens], trust)


def _mixed(nats: Nats, without: Nats, trust: float) -> Nats:
    """Nats of the mixture λ · reader + (1 - λ) · reader without a memory."""
    if trust == 0:
        return without
    return -np.logaddexp(np.log(trust) - nats, np.log1p(-trust) - without) if trust < 1 else nats


def _trust(nats: Nats, without: Nats, document: Int[np.ndarray, " chunk"]) -> float:
    """The λ under which validation text costs the fewest nats, or 0 where that gains nothing to speak of."""
    candidates = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999]
    best = min(candidates, key=lambda trust: float(_mixed(nats, without, trust).mean()))
    gain = (without - _mixed(nats, without, best)).mean(axis=1)
    # A document's chunks stand or fall together: the error of the mean is that of clusters.
    by_document = np.bincount(document, weights=gain - gain.mean())
    error = float(np.sqrt((by_document**2).sum())) / len(gain)
    return best if float(gain.mean()) > _MIN_STANDARD_ERRORS * error else 0.0


def _converged(curve: list[dict[str, float]], without_nats: float) -> bool:
    """Whether the second half of training changed next to nothing; the learning rate falls in it, which brings most.

    A reader that lost what it had won, by learning its training chunks by heart, would have gone on with more of them.
    """
    nats = np.array([point["nats_per_token"] for point in curve])
    late = nats[max(0, len(nats) // 2 - 1) :]
    return bool(max(late[0], nats[-1]) - nats.min() < CONVERGED_FRACTION * without_nats)
