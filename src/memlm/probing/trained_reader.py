"""A reader learns from frozen embeddings, and is measured on texts it has not seen.

It may ignore the embedding: what is measured is its mixture with the reader without a memory. What it has learned
depends on neither, nor on the tokens that occur in those texts, and can be kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm.config import AdamW, MemoryShape, Muon, Reader, ReadingConfig, TrainingConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.information import unconditional_log_probs
from memlm.evaluation.metrics import Scores, quick_measures, regeneration_measures, score
from memlm.models.batch import Batch
from memlm.models.readers import ReaderModule, build_reader
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.texts import ProbeData, Splits
from memlm.probing.transform import Transform
from memlm.runtime.cache import Arrays
from memlm.runtime.results import Interval
from memlm.training.loop import fit
from memlm.training.objectives import RETENTION

CODE_DIM = 128
"""Length of a token's code, unless its embedding is shorter."""
CONVERGED_FRACTION = 0.02
"""A reader has converged if the second half of its training gained less than this share of the text's nats."""
LEAST_STEPS = 100
"""A reader that has learned from other text does not go on for fewer."""
_FURTHER_RATE = 0.05
"""Of learning, where a reader goes on: at the full rate it first forgets what it has learned."""
_NUM_WATCHES = 8
_MAX_WATCHED = 128
"""Validation chunks that a learning curve is measured on: greedy decoding takes long."""
_MIN_STANDARD_ERRORS = 3.0
_PRIOR_COUNTS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""How many tokens the overall frequencies may count for at each position."""
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far tokens may be expected as often as in the text that is measured on, geometrically."""
_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)

Nats = Float[np.ndarray, "chunk token"]


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


@dataclass(frozen=True, kw_only=True)
class LearnedReader:
    """A reader as training has left it: of its learning curve, the best."""

    data: ProbeData
    """What it has learned from."""
    module: ReaderModule
    transform: Transform
    curve: list[dict[str, float]]
    """As `TrainedReader.curve`, of the last text that it has learned from."""

    def to_arrays(self) -> Arrays:
        """What it has learned, to be kept."""
        module = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        fitted = {f"transform.{name}": tensor for name, tensor in self.transform.state.items()}
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in (module | fitted).items()}
        return Arrays(arrays, {"shape": self.transform.shape, "curve": self.curve})

    @classmethod
    def from_arrays(
        cls, kept: Arrays, data: ProbeData, codes: Float[Tensor, "vocab code"], reader: Reader, degradation: Any
    ) -> "LearnedReader":
        """One that was kept, and has learned from `data`."""
        tensors = {name: torch.from_numpy(array) for name, array in kept.arrays.items()}
        fitted, weights = (
            {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
            for part in ("transform.", "module.")
        )
        transform = Transform.from_state(fitted, tuple(kept.about["shape"]), degradation)
        module = _fresh(data, transform, codes, reader)
        module.load_state_dict(weights)
        return cls(data=data, module=module, transform=transform, curve=kept.about["curve"])

    def calibrated(
        self,
        data: ProbeData,
        validation: Vectors,
        codes: Float[Tensor, "vocab code"],
        without: TrainedReader | None = None,
    ) -> TrainedReader:
        """The reader that chooses from all of `data.types`, of which these are the codes.

        As validation text says is best, it expects tokens as often as they occur where it has learned, or here, or
        between, and it is mixed with the same reader without a memory.

        `without` is the same kind of reader trained on a constant; one that sees only the embedding needs none: what it
        can learn without one is the tokens' frequencies, which are counted.
        """
        chunks, memory, log_probs = data.numbered.validation, self.transform(validation), _log_probs(data, len(codes))
        learned = _log_probs(self.data, len(codes))

        def nats_expecting(share: float) -> Nats:
            expected = torch.from_numpy((1 - share) * learned + share * log_probs).float().log_softmax(0)
            self.module.head.choose_from(codes, expected)
            return _score(self.module, chunks, memory, only_nats=True).nats

        shares = (0.0,) if self.data is data else _SHARES
        nats = nats_expecting(min(shares, key=lambda share: float(nats_expecting(share).mean())))
        known = without.nats if without else token_frequencies(data.learned_tokens, chunks, log_probs)
        known_nats = known(chunks)
        return TrainedReader(
            module=self.module,
            transform=self.transform,
            without=known,
            vocab_size=len(codes),
            trust=chosen_trust(nats, known_nats, chunks.document),
            curve=self.curve,
            converged=_converged(self.curve, float(known_nats.mean())),
        )


def train_reader(
    data: ProbeData,
    embeddings: Splits[Vectors],
    codes: Float[Tensor, "vocab code"],
    reader: Reader,
    cfg: ReadingConfig,
    *,
    transform: Transform | None = None,
    start: LearnedReader | None = None,
    seed: int = 0,
    title: str = "Reading",
    quiet: bool = False,
) -> LearnedReader:
    """Train a reader to regenerate the training chunks from their embeddings; of its learning curve, the best is kept.

    `codes` are those of `data.types`. By default embeddings are only whitened. `start` has learned from `data.before`,
    and goes on from there, once through the chunks.
    """
    train, validation, _ = data.numbered
    torch.manual_seed(seed)
    if start:
        cfg, transform = replace(cfg, num_steps=steps_once(train, cfg)), start.transform
    transform = transform or Transform(embeddings.train)
    module = _fresh(data, transform, codes, reader)
    curve = _Curve(validation.rows(slice(_MAX_WATCHED)), transform(embeddings.validation[:_MAX_WATCHED]))
    if start:
        module.load_state_dict(start.module.state_dict())
        curve.watch(module)

    def memory(rows: np.ndarray, step: int) -> MemoryVectors:
        return transform(embeddings.train[rows], torch.Generator().manual_seed(seed * 1_000_003 + step))

    options: Any = {"memory": memory, "evaluate": curve.watch, "rate": _FURTHER_RATE if start else 1.0}
    training = fit_reader(module, train, cfg, seed, title=title, quiet=quiet, **options)
    module.load_state_dict(curve.best)  # one that has learned its training chunks by heart reads others worse
    first = 0 if start else 1
    points = [{"tokens": (i + first) * training.eval_tokens, **point} for i, point in enumerate(curve.points)]
    return LearnedReader(data=data, module=module.cpu(), transform=transform, curve=points)


def steps_once(chunks: Chunks, cfg: ReadingConfig) -> int:
    """Steps that go once through the chunks, or as many as there are."""
    return min(cfg.num_steps, len(chunks.tokens) // cfg.chunks_per_step(chunks.chunk_len))


def _fresh(data: ProbeData, transform: Transform, codes: Float[Tensor, "vocab code"], reader: Reader) -> ReaderModule:
    """A reader that has learned nothing but the tokens' frequencies, of the tokens that there are to learn."""
    num_types, (num_slots, dim) = len(data.learned_types), transform.shape
    chunk_len = data.chunks.test.chunk_len
    shape = MemoryShape(vocab_size=num_types, chunk_len=chunk_len, num_slots=num_slots, memory_dim=dim)
    return build_reader(reader, shape, codes[:num_types], torch.from_numpy(_log_probs(data, num_types)).float())


def _log_probs(data: ProbeData, num_types: int) -> Float[np.ndarray, " vocab"]:
    """How often tokens occur, in the text before and in this one, which counts as much as validation text says."""
    train, validation, _ = data.numbered
    if not data.before:
        return unconditional_log_probs(train.tokens.ravel(), num_types)
    before, own = _log_probs(data.before, num_types), np.bincount(train.tokens.ravel(), minlength=num_types)
    each = [np.log((own + prior * np.exp(before)) / (own.sum() + prior)) for prior in _PRIOR_COUNTS]
    return max(each, key=lambda log_probs: float(log_probs[validation.tokens].mean()))


class _Curve:
    """How a reader learns, by validation text; and the weights it had at its best."""

    def __init__(self, chunks: Chunks, memory: MemoryVectors) -> None:
        self.chunks, self.memory = chunks, memory
        self.points: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def watch(self, model: nn.Module) -> dict[str, float]:
        """One more point."""
        self.points.append(quick_measures(_score(model, self.chunks, self.memory)))
        if self.points[-1]["nats_per_token"] == min(point["nats_per_token"] for point in self.points):
            self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return self.points[-1]


def _converged(curve: list[dict[str, float]], without_nats: float) -> bool:
    """Whether the second half changed next to nothing; the learning rate falls in it, which brings most.

    A reader that lost what it had won, by learning its training chunks by heart, would have gone on with more.
    """
    nats = [point["nats_per_token"] for point in curve]
    late = nats[max(0, len(nats) // 2 - 1) :]
    return max(late[0], late[-1]) - min(nats) < CONVERGED_FRACTION * without_nats


def fit_reader(
    module: nn.Module,
    chunks: Chunks,
    cfg: ReadingConfig,
    seed: int,
    *,
    memory: Callable[[np.ndarray, int], MemoryVectors] | None = None,
    rate: float = 1.0,
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
        optimizer=Muon(learning_rate=0.05 * rate, adamw=AdamW(learning_rate=1e-2 * rate)),
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


# --- mixtures --------------------------------------------------------------------------------------------------


def mixed(nats: Nats, without: Nats, trust: float) -> Nats:
    """Nats of the mixture λ · reader + (1 - λ) · reader without a memory."""
    if trust == 0:
        return without
    return -np.logaddexp(np.log(trust) - nats, np.log1p(-trust) - without) if trust < 1 else nats


def chosen_trust(nats: Nats, without: Nats, document: Int[np.ndarray, " chunk"]) -> float:
    """The λ under which validation text costs the fewest nats, or 0 where that gains nothing to speak of.

    Predictors that ignore the embedding belong to the family over which V-information is defined (Xu et al. 2020,
    optional ignorance). λ is 0 unless it gains more than three standard errors.
    """
    best = min(_WEIGHTS, key=lambda trust: float(mixed(nats, without, trust).mean()))
    gain = (without - mixed(nats, without, best)).mean(axis=1)
    return best if float(gain.mean()) > _MIN_STANDARD_ERRORS * error_of_mean(gain, document) else 0.0


def error_of_mean(values: Float[np.ndarray, " chunk"], document: Int[np.ndarray, " chunk"]) -> float:
    """The standard error of chunks' mean: a document's stand or fall together, so it is that of clusters."""
    by_document = np.bincount(document, weights=values - values.mean())
    return float(np.sqrt((by_document**2).sum())) / len(values)


def token_frequencies(
    learned: Int[np.ndarray, "chunk token"], validation: Chunks, log_probs: Float[np.ndarray, " vocab"]
) -> Callable[[Chunks], Nats]:
    """What tokens cost a reader that sees only the embedding, without one: their frequencies are all it can know.

    They are mixed with those of each position, as far as validation text says that these differ.
    """
    places = np.arange(learned.shape[1])
    counts = np.zeros((len(places), len(log_probs)))
    np.add.at(counts, (places, learned), 1)

    def nats(chunks: Chunks, prior: float) -> Nats:
        likelihood = counts[places, chunks.tokens] + prior * np.exp(log_probs[chunks.tokens])
        return -np.log(likelihood / (len(learned) + prior))

    prior = min(_PRIOR_COUNTS, key=lambda prior: float(nats(validation, prior).mean()))
    trust = chosen_trust(nats(validation, prior), -log_probs[validation.tokens], validation.document)
    return lambda chunks: mixed(nats(chunks, prior), -log_probs[chunks.tokens], trust)
