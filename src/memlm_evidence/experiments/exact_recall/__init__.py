"""Memories can be used, not only regenerated: a decoder gives back exact strings from anywhere in its past."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from memlm.runtime.results import Interval, Record
from memlm.runtime.tables import Table
from memlm.runtime.wording import human, share
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.pages.figures import line_figure
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.seeds import line_over_seeds, over_seeds

MODELS = ("combined", "causal", "full_context")


@dataclass(frozen=True, kw_only=True)
class RecallPlan:
    """What to train and how long, and how much to ask; as it is, the standard preset's."""

    chunk_len: int = 32
    memory_dim: int = 256
    window_chunks: int = 4
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    pointer_span: int = 12
    """Tokens by which a decoder with memories finds what it copies of them."""
    dim: int = 128
    """Width of the decoder."""
    reading_fraction: float = 0.25
    """Share of the tokens that the combined model first learns to read memories from: what is not given back cannot be
    pointed at."""
    num_tokens: int = 8_000_000
    autoencoder_tokens: int | None = None
    """Train an autoencoder on so many tokens first (the comparison of memory models has the same), take its encoder,
    and leave that as it is: memories are good from the first step on. None trains the encoder with the rest."""
    recall_fraction: float = 0.8
    """Share of training windows with facts and questions."""
    num_texts: int = 1000
    """Texts of the benchmark for each kind of fact, number of past chunks and distance."""
    models: tuple[str, ...] = MODELS
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "RecallPlan":
        """As small as the claim can be decided."""
        return cls(num_tokens=3_000_000, autoencoder_tokens=1_000_000, models=("combined",), num_texts=300, seed=seed)


@dataclass(frozen=True, kw_only=True)
class SettingRow(Record):
    """Answers to one kind of question, with 95% intervals over texts."""

    kind: str
    num_chunks: int
    """Past chunks."""
    distance: int
    """Chunks from the fact to the question."""
    exact_match: float
    token_accuracy: float
    num_texts: int
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class RecallResult(ExperimentResult):
    """By model: shares of exact answers, over all kinds of fact by distance in chunks, and the other way round."""

    name: ClassVar[str] = "recall"
    recall: Mapping[str, Mapping[str, float]]
    recall_intervals: Mapping[str, Mapping[str, Interval]]
    recall_by_kind: Mapping[str, Mapping[str, float]]
    recall_by_kind_intervals: Mapping[str, Mapping[str, Interval]]
    chance: Mapping[str, float]
    """When nothing of the past is read."""
    rows: Mapping[str, Sequence[SettingRow]]

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for name, rates in self.recall.items():
            shown = ", ".join(f"{rate:.3f} at {distance}" for distance, rate in rates.items())
            yield f"{name}: {shown} chunks; blind {self.chance[name]:.3f}"


def page(results: Sequence[RecallResult]) -> Page:
    """Exact answers by distance."""
    told = "A fact stands in an earlier chunk and is asked for by its key; the answer is decoded greedily."
    return Page.of(
        answers_section(
            "Recall of exact strings",
            told,
            [seed.recall for seed in results],
            [seed.chance for seed in results],
            alt="Exact answers by distance, a line for each model.",
            x_label="chunks from fact to question",
            at="at",
        )
    )


def answers_section(
    title: str,
    told: str,
    exact: Sequence[Mapping[str, Mapping[str, float]]],
    chance: Sequence[Mapping[str, float]],
    *,
    alt: str,
    x_label: str,
    at: str,
) -> Section:
    """Exact answers of each seed, by model and number of chunks: a line and a row for each model; not every seed has to
    have every model."""
    lines, cells, numbers = [], [], list(next(iter(exact[0].values())))
    for name in dict.fromkeys(name for seed in exact for name in seed):
        rates = [[seed[name][number] for seed in exact if name in seed] for number in numbers]
        blind = [seed[name] for seed in chance if name in seed]
        lines.append(line_over_seeds(human(name), list(map(float, numbers)), rates))
        cells.append([human(name), *(over_seeds(each, share) for each in (*rates, blind))])
    ticks = {float(number): number for number in numbers}
    figure = line_figure(lines, alt, x_label=x_label, y_label="exact answers", x_ticks=ticks, y_limits=(0.0, 1.02))
    table = Table(["trained", *(f"{at} {number}" for number in numbers), "blind"], cells)
    return Section(title, told, [figure], table)


@claim("exact answers at the worst distance", at_least=0.95)
def memories_can_be_used(result: RecallResult) -> Measured | None:
    """A decoder gives back exact strings from memories of any distance."""
    rates = result.recall.get("combined", {})
    return min((Measured(rates[far], *result.recall_intervals["combined"][far]) for far in rates), default=None)


EXACT_RECALL = Experiment[RecallPlan, RecallResult](
    name=RecallResult.name,
    folder="memory-model",
    presets={"quick": RecallPlan.quick, "standard": lambda seed: RecallPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.exact_recall.run:run"),
    page=page,
    result=RecallResult,
    claims=(memories_can_be_used,),
)
