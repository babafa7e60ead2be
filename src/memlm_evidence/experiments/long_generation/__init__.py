"""What is lost over long generation: facts of the first chunk, asked for after the model has written many more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from memlm.runtime.results import Interval, Record
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.exact_recall import RecallPlan, answers_section
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.pages.page import Page


@dataclass(frozen=True, kw_only=True)
class LongPlan(RecallPlan):
    """What to train and how long, and how much to write and to ask; as it is, the standard preset's."""

    num_tokens: int = 3_000_000
    autoencoder_tokens: int | None = 1_000_000
    num_texts: int = 100
    models: tuple[str, ...] = ("frozen", "combined", "causal", "sliding_window", "full_context", "recurrent")
    """`frozen` has an autoencoder's encoder and first learns to read its memories; `combined` learns all at once; the
    sliding window has the last chunks as tokens, as many as a window of training has; the full context is the same
    model with all of them; `recurrent` memory is carried from chunk to chunk, with as many positions as a memory."""
    chunks: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)
    """How many stand between the fact and the question."""
    temperature: float = 1.0
    """Of what it writes."""

    @classmethod
    def quick(cls, seed: int) -> "LongPlan":
        """As small as the claims can be decided."""
        return cls(models=("frozen", "causal"), seed=seed)


@dataclass(frozen=True, kw_only=True)
class LongRow(Record):
    """Answers of a model to one kind of question, after so many chunks."""

    model: str
    between: str
    """`own`: chunks that the model wrote; `text`: of a novel."""
    kind: str
    chunks: int
    exact_match: float
    token_accuracy: float
    wrong_but_written: float | None
    """Of the wrong answers, those that stand in the chunks between; None where no answer is wrong."""
    num_texts: int
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class ByChunks(Record):
    """Shares of exact answers, over all kinds of fact, by the chunks between fact and question."""

    exact: Mapping[str, float]
    intervals: Mapping[str, Interval]

    @property
    def after_most(self) -> Measured:
        """The share after the most chunks."""
        last = max(self.exact, key=int)
        return Measured(self.exact[last], *self.intervals[last])


@dataclass(frozen=True, kw_only=True)
class LongResult(ExperimentResult):
    """By model, what is left of facts after chunks of its `own` writing, and of `text` from a novel."""

    name: ClassVar[str] = "long-generation"
    own: Mapping[str, ByChunks]
    text: Mapping[str, ByChunks]
    chance: Mapping[str, float]
    """Of exact answers where nothing of the past is read."""
    rows: Sequence[LongRow]
    seed: int

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for between, models in {"its own writing": self.own, "a novel": self.text}.items():
            for name, found in models.items():
                shown = ", ".join(f"{rate:.3f} after {number}" for number, rate in found.exact.items())
                yield f"{name}, {between}: {shown} chunks; blind {self.chance[name]:.3f}"


def page(results: Sequence[LongResult]) -> Page:
    """Exact answers by chunks between, of the model's own writing and of a novel."""
    own = "A fact stands in the first chunk; the model writes on, reads its own chunks as its past, and is asked."
    text = "The same, with a novel's chunks in the place of its own: it cannot have said the fact again, wrongly."
    parts = {
        ("Detail over long generation", own): [seed.own for seed in results],
        ("Detail over as much of a novel", text): [seed.text for seed in results],
    }
    return Page.of(
        *(
            answers_section(
                title,
                told,
                [{name: each.exact for name, each in models.items()} for models in found],
                [seed.chance for seed in results],
                alt="Exact answers by chunks since the fact, a line for each model.",
                x_label="chunks between fact and question",
                at="after",
            )
            for (title, told), found in parts.items()
        )
    )


@claim("exact answers after the most chunks of its own", at_least=0.95)
def retention_keeps_facts(result: LongResult) -> Measured | None:
    """With rich memories, a fact is given back exactly however much the model has written since."""
    return result.own["frozen"].after_most if "frozen" in result.own else None


@claim("exact answers after the most chunks of a novel", at_least=0.95)
def memories_outlast_text(result: LongResult) -> Measured | None:
    """It is, where what came since says nothing of it."""
    return result.text["frozen"].after_most if "frozen" in result.text else None


@claim("exact answers after the most chunks of its own", at_most=0.05)
def causal_training_loses_facts(result: LongResult) -> Measured | None:
    """With memories of next-token training alone, it is lost."""
    return result.own["causal"].after_most if "causal" in result.own else None


LONG_GENERATION = Experiment[LongPlan, LongResult](
    name=LongResult.name,
    folder="long-generation",
    presets={"quick": LongPlan.quick, "standard": lambda seed: LongPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.long_generation.run:run"),
    page=page,
    result=LongResult,
    claims=(retention_keeps_facts, memories_outlast_text, causal_training_loses_facts),
)
