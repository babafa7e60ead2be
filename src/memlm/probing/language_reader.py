"""A pretrained language model as a probe's reader, measured as other readers are.

The text that is scored is the same: a chunk's tokens, written out by the encoder's tokenizer. The language model pays
for it in tokens of its own, whose nats are summed over the chunk and divided by the chunk's tokens, the encoder's; so
bits per token and per byte are those of other rows. What it writes greedily is tokenized as the encoder does and
compared place by place. Its baseline is the same model after as many steps on a constant embedding: retained bits
count what the embedding adds to a model that knows the language, and this kind of text.

It is trained on half of its pairs, measured, and trained on as many more; and so on where that is asked for. It has
converged if the last doubling, of pairs not seen before, gained less than `CONVERGED_GAIN` of what is retained, and
surely so: a few validation chunks say little of a small gain.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from memlm.config import Degradation, PretrainedReader, ReadingConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.bootstrap import ratio_intervals, sums_by_unit
from memlm.evaluation.information import retained_bits
from memlm.evaluation.metrics import Scores, quick_measures, regeneration_measures
from memlm.probing.embed import Vectors
from memlm.probing.inversion.likeness import bleu, f1
from memlm.probing.language_course import Course, LanguageNats
from memlm.probing.language_texts import LanguageTexts
from memlm.probing.texts import Splits
from memlm.probing.trained_reader import Nats, chosen_trust, error_of_mean, mixed
from memlm.probing.transform import Transform
from memlm.runtime.cache import digest
from memlm.runtime.files import make_folder
from memlm.runtime.results import Interval

CONVERGED_GAIN = 0.03
"""A reader has converged if a doubling of its pairs adds less than this share of the bits that it retains."""
_SURE = 1.96
"""Standard errors above what was gained, on validation chunks, that a reader may have gained on others."""
_LEAST_BITS = 1e-9
_MAX_WATCHED = 128
_FORMAT = 2
"""Of what is kept; one more whenever a reader would learn otherwise."""


@dataclass(frozen=True, kw_only=True)
class TrainedLanguageReader:
    """A language model that has learned to read, and all that is needed to measure it on other chunks."""

    course: Course
    number: int
    """Its last round."""
    without: "TrainedLanguageReader | None"
    """The same after as many rounds on a constant embedding; None for that one."""
    trust: float
    """λ of the mixture with the one without an embedding; 0 where the embedding is of no use."""
    curve: list[dict[str, float]]
    """{tokens, token_accuracy, exact_match, nats_per_token, retained_bits_per_token, trust} on validation text, of
    every round; from the second on also `gain_at_most`, the share that it may have gained on other text."""
    converged: bool

    def measure(
        self, chunks: Chunks, vectors: Vectors, document_bytes: Float[np.ndarray, " document"]
    ) -> tuple[dict[str, Any], dict[str, Interval]]:
        """As `TrainedReader.measure`; and `f1` and `bleu` of the words that are written, means over chunks."""
        course = self.course
        written = course.written(course.reader(self.number), chunks, vectors)
        nats = self._language_nats(chunks, vectors)
        without = self.without._language_nats(chunks, vectors) if self.without else nats
        scores = Scores(
            course.texts.numbered(written, chunks), spread(mixed(nats, without, self.trust), chunks), chunks
        )
        num_slots, dim = vectors.shape[1:]
        vocab_size = len(course.texts.types)
        sizes = {"vocab_size": vocab_size, "memory_dims": num_slots * dim}
        values, intervals = regeneration_measures(scores, spread(without, chunks), document_bytes, **sizes)
        for name, measure in (("f1", f1), ("bleu", bleu)):
            each = np.array([measure(*both) for both in zip(written, course.texts.of(chunks), strict=True)])
            values[name] = float(each.mean())
            sums = sums_by_unit([each, np.ones(len(each))], chunks.document, len(document_bytes))
            intervals |= ratio_intervals(name, sums)
        about = {"trust": self.trust, "converged": self.converged, "lower_bound": not self.converged}
        shape = {"memory_dim": dim, "num_slots": num_slots, "vocab_size": vocab_size}
        return {**values, **about, **shape, "curve": self.curve}, intervals

    def nats(self, chunks: Chunks, vectors: Vectors) -> Nats:
        """What each of the chunks' tokens costs, in nats, if a chunk's are shared among its tokens; without the
        mixture."""
        return spread(self._language_nats(chunks, vectors), chunks)

    def _language_nats(self, chunks: Chunks, vectors: Vectors) -> LanguageNats:
        course = self.course
        if self.without is None:
            vectors = np.broadcast_to(np.float32(0), (len(chunks.tokens), *course.transform.shape))
        return course.nats(course.reader(self.number), chunks, vectors)


def spread(nats: LanguageNats, chunks: Chunks) -> Nats:
    """The language model's nats of each chunk, shared among the encoder's tokens."""
    return np.broadcast_to(nats.sum(1, keepdims=True) / chunks.chunk_len, chunks.tokens.shape)


def train_language_reader(
    chunks: Splits[Chunks],
    embeddings: Splits[Vectors],
    texts: LanguageTexts,
    reader: PretrainedReader,
    cfg: ReadingConfig,
    *,
    codes: Float[Tensor, "type code"] | None = None,
    degradation: Degradation | None = None,
    without: TrainedLanguageReader | None = None,
    seed: int = 0,
    title: str = "Reading",
    cache: Path,
    key: Mapping[str, Any],
    quiet: bool = False,
) -> TrainedLanguageReader:
    """Train two rounds, and more where doubling gains and is asked for; the best of them, on validation text, is kept.

    `codes` are those of the chunks' tokens; without them nothing is guessed first. `without` is the same reader trained
    on a constant; without it, this is that one. Rounds are kept in the `cache` by the `key` of what is read by which
    `reader`, and serve whatever text is tested on.
    """
    content = hashlib.sha256(texts.types[chunks.train.tokens].tobytes()).hexdigest()
    settings = {"steps": cfg.num_steps, "text": content, "chunk_len": chunks.train.chunk_len, "format": _FORMAT}
    plain = {**key, **settings, "reader": {**key["reader"], "doublings": 0}}
    course = Course(
        texts=texts,
        chunks=chunks,
        embeddings=embeddings,
        transform=Transform(embeddings.train, degradation),
        cfg=reader,
        num_steps=cfg.num_steps,
        codes=codes,
        seed=seed,
        title=title,
        folder=make_folder(cache / digest(plain)),
        quiet=quiet,
    )
    if without is None:
        course.round(1)
        return TrainedLanguageReader(course=course, number=1, without=None, trust=1.0, curve=[], converged=True)
    found = Doublings(lambda number: _point(course, without.course, number), reader.doublings)
    return TrainedLanguageReader(
        course=course,
        number=found.best,
        without=replace(without, number=found.best),
        trust=found.points[found.best]["trust"],
        curve=found.points,
        converged=found.converged and course.round(len(found.points) - 1).num_pairs <= len(course.train.tokens),
    )


class Doublings:
    """Rounds by what they retain, each of twice the pairs: two, and at most `more` while doubling gains."""

    def __init__(self, measure: Callable[[int], dict[str, float]], more: int) -> None:
        self.points = [measure(0), measure(1)]
        while self.gain > -CONVERGED_GAIN and not self.converged and len(self.points) < 2 + more:
            self.points.append(measure(len(self.points)))

    @property
    def best(self) -> int:
        """The round that retains the most."""
        return int(np.argmax(self._retained))

    @property
    def gain(self) -> float:
        """What the last doubling added, as a share of what is retained."""
        before, now = self._retained[-2:]
        return (now - before) / max(before, now) if max(before, now) > 0 else 0.0

    @property
    def converged(self) -> bool:
        """Whether that is next to nothing; a reader that lost what it had, by heart, would go on with more pairs."""
        return abs(self.gain) < CONVERGED_GAIN and self.points[-1]["gain_at_most"] < CONVERGED_GAIN

    @property
    def _retained(self) -> list[float]:
        return [point["retained_bits_per_token"] for point in self.points]


def _point(course: Course, known: Course, number: int) -> dict[str, float]:
    """What a round's reader makes of the validation text; it may ignore the embedding."""
    validation, nats = course.chunks.validation, course.round(number).nats
    trust, retained = _retained(course, known, number)
    few = validation.rows(slice(_MAX_WATCHED))
    vectors = course.embeddings.validation[:_MAX_WATCHED]
    written = course.texts.numbered(course.written(course.reader(number), few, vectors), few)
    point = {
        **quick_measures(Scores(written, spread(nats, validation)[:_MAX_WATCHED], few)),
        "tokens": float(course.round(number).num_pairs * validation.chunk_len),
        "nats_per_token": float(spread(nats, validation).mean()),
        "retained_bits_per_token": float(retained.mean()),
        "trust": trust,
    }
    if number:
        before = _retained(course, known, number - 1)[1]
        gained = retained - before
        most = float(gained.mean()) + _SURE * error_of_mean(gained, validation.document)
        point["gain_at_most"] = most / max(float(retained.mean()), float(before.mean()), _LEAST_BITS)
    return point


def _retained(course: Course, known: Course, number: int) -> tuple[float, Float[np.ndarray, " chunk"]]:
    """How far a round's reader is trusted, and the bits of each token that it retains of each validation chunk."""
    validation, nats, without = course.chunks.validation, course.round(number).nats, known.round(number).nats
    trust = chosen_trust(nats, without, validation.document)
    both = spread(mixed(nats, without, trust), validation), spread(without, validation)
    each: Float[np.ndarray, " chunk"] = retained_bits(*both).mean(1)
    return trust, each
