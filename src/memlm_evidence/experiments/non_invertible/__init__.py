"""Next-token prediction asks a memory for the past's predictive state alone, regeneration for the whole text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar

from memlm.runtime.tables import Table
from memlm.runtime.wording import number, percent, share
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.known_sources.measured import (
    CalibrationPlan,
    CalibrationRow,
    DistortionPlan,
    DistortionRow,
    LimitRow,
    OracleRow,
    StatePlan,
    StateRow,
)
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import line_over_seeds, of, seeds_table


@dataclass(frozen=True, kw_only=True)
class NonInvertiblePlan:
    """The three parts of the measurement; as it is, the standard preset's."""

    state: StatePlan = field(default_factory=StatePlan)
    distortion: DistortionPlan = field(default_factory=DistortionPlan)
    calibration: CalibrationPlan = field(default_factory=CalibrationPlan)
    num_workers: int | None = field(default=None, repr=False)
    """Processes, as `run_jobs` takes them, of which no result depends; None is one for each thread that there is."""
    ray_address: str | None = field(default=None, repr=False)
    """As `run_jobs` takes it."""

    @classmethod
    def quick(cls, seed: int) -> "NonInvertiblePlan":
        """As small as the claims can be decided."""
        return cls(
            state=StatePlan(chunk_lens=(64,), chunk_len=None, seed=seed),
            distortion=DistortionPlan(dims=(96,), seed=seed),
            calibration=CalibrationPlan(chunk_lens=(8,), num_sets=20, seed=seed),
        )

    @classmethod
    def standard(cls, seed: int) -> "NonInvertiblePlan":
        """All sources and lengths."""
        return cls(
            state=StatePlan(seed=seed), distortion=DistortionPlan(seed=seed), calibration=CalibrationPlan(seed=seed)
        )


@dataclass(frozen=True, kw_only=True)
class NonInvertibleResult(ExperimentResult):
    """What memories retain, how near they come to the rate-distortion limit, and whether readers find what there is."""

    name: ClassVar[str] = "non-invertible"
    rows: Sequence[StateRow]
    """By source, length of texts and objective; the Markov chain that claims are about comes first."""
    distortion: Sequence[DistortionRow]
    calibration: Sequence[CalibrationRow]
    oracle: Sequence[OracleRow]
    distortion_limit: Sequence[LimitRow]
    ideal_over_stored: Mapping[str, float | None]
    """By method: ideal over stored bits at 1% of tokens wrong; None where no number of bits was enough."""

    def longest(self, objective: str) -> StateRow:
        """The row of an objective and the longest texts of the first source."""
        source = self.rows[0].source
        rows = [row for row in self.rows if (row.source, row.objective) == (source, objective)]
        return max(rows, key=lambda row: row.num_tokens)

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for row in self.rows:
            yield (
                f"{row.source}, {row.num_tokens} tokens, {row.objective}: "
                f"{row.retained_bits:.1f} of {row.entropy_bits:.1f} bits, "
                f"of the state {row.retained_state_bits:.2f} of {row.state_bits:.2f}"
            )


def page(results: Sequence[NonInvertibleResult]) -> Page:
    """What was found on known sources, by seed."""
    oracle = results[0].oracle
    data = {
        "chain": results[0].rows[0].source,
        "by_length": _by_length([result.rows for result in results]),
        "by_source": _by_source([result.rows for result in results]),
        "distortion": _distortion(results),
        "stored": _stored(results),
        "calibration": _calibration([result.calibration for result in results]),
        "oracle": Table(
            ["source", "entropy rate", "what it costs one who knows"],
            [[row.source, f"{row.entropy_rate_nats:.7f}", f"{row.oracle_nats:.7f}"] for row in oracle],
            "Nats a token; computed, without sampling.",
        ),
    }
    return Page("experiments/non_invertible/page", data)


def _by_length(seeds: Sequence[Sequence[Any]]) -> Figure:
    chain = [row for rows in seeds for row in rows if row.source == seeds[0][0].source]
    lengths = sorted({row.num_tokens for row in chain})

    def line(label: str, name: str, objective: str) -> Line:
        of_objective = [row for row in chain if row.objective == objective]
        return line_over_seeds(
            label,
            lengths,
            [[getattr(row, name) for row in of_objective if row.num_tokens == length] for length in lengths],
        )

    objectives = dict.fromkeys(row.objective for row in seeds[0])
    return line_figure(
        [
            line("all there is to know", "entropy_bits", "causal"),
            line("what the future needs", "state_bits", "causal"),
            *(line(f"kept: {objective}", "retained_bits", objective) for objective in objectives),
        ],
        "Bits against the length of a text: all there is, what the future needs, and what each objective keeps.",
        x_label="tokens of a text",
        y_label="bits",
        x_ticks={float(length): str(length) for length in lengths},
    )


def _by_source(seeds: Sequence[Sequence[Any]]) -> Table:
    def there_is(same: Sequence[Any]) -> str:
        return f"{number(same[0].entropy_bits, 1)} bits\nstate {number(same[0].state_bits, 2)}"

    columns = {
        "source": _source,
        "objective": lambda same: str(same[0].objective),
        "there is": there_is,
        "kept": of("retained_bits", lambda bits: number(bits, 1)),
        "of the state": of("state_share", lambda value: share(value, 3)),
        "of the rest": of("rest_share", lambda value: share(value, 3)),
        "next token, excess": of("next_token_excess_bits", lambda bits: number(bits, 4)),
    }
    caption = (
        "Kept: bits that trained readers find in a memory, a lower bound. Excess: bits a token that predictions of "
        "the next chunk cost above what they cost one who knows everything before it (an autoencoder was never asked "
        "to predict). Below a number: its range over seeds; with one seed, its 95% interval over texts, if it has one."
    )
    return seeds_table(seeds, columns, caption)


def _source(same: Sequence[Any]) -> str:
    return f"{same[0].source}\n{same[0].num_tokens} tokens"


def _distortion(results: Sequence[NonInvertibleResult]) -> Figure:
    rows = [row for result in results for row in result.distortion]
    limit = results[0].distortion_limit
    lines = [Line("the least there can be", [row.bits_per_token for row in limit], [row.error for row in limit])]
    for method in dict.fromkeys(row.method for row in rows):
        errors: dict[float, list[float]] = {}
        for row in sorted(rows, key=lambda row: row.stored_bits):
            if row.method == method:
                errors.setdefault(row.stored_bits / rows[0].num_tokens, []).append(row.token_error)
        lines.append(Line(method, list(errors), list(map(fmean, errors.values())), marked=True))
    return line_figure(
        lines,
        "Share of wrong tokens against stored bits, a line for each way of storing, and the limit.",
        x_label="stored bits for each token",
        y_label="share of wrong tokens",
        y_limits=(0.0, 0.9),
    )


def _stored(results: Sequence[NonInvertibleResult]) -> Table:
    cells = []
    for method in dict.fromkeys(row.method for result in results for row in result.distortion):
        found = [result.ideal_over_stored[method] for result in results]
        cells.append([method, ", ".join("not reached" if ratio is None else share(ratio, 3) for ratio in found)])
    caption = "The bits that 1% of wrong tokens need at least, over the fewest bits stored that had no more; by seed."
    return Table(["memories are", "ideal over stored bits"], cells, caption)


def _calibration(seeds: Sequence[Sequence[Any]]) -> Table:
    def mean(name: str) -> Any:
        return lambda same: number(fmean(getattr(row, name) for row in same), 2)

    columns = {
        "source": _source,
        "of the text arrives": lambda same: str(same[0].channel),
        "there is": mean("exact_bits"),
        "found": mean("estimated_bits"),
        "bias": lambda same: percent(fmean(row.bias for row in same)),
        "missed": mean("missed_bits"),
        "intervals right": lambda same: share(fmean(row.coverage_of_truth for row in same), 2),
        "around their mean": lambda same: share(fmean(row.coverage_of_estimate for row in same), 2),
    }
    caption = (
        "Bits a text. Missed: what the reader pays above the least that anybody can who has the memory. Last columns: "
        "share of 95% intervals, each from a test set of its own, with the truth in them, and with the mean of all "
        "estimates."
    )
    return seeds_table(seeds, columns, caption)


@claim("share of the predictive state's bits", at_least=0.9)
def prediction_keeps_the_state(result: NonInvertibleResult) -> Measured:
    """Causal training keeps what the future needs of a past whose every bit is counted."""
    row = result.longest("causal")
    return Measured.of(row, "retained_state_bits").over(row.state_bits)


@claim("share of all other bits", at_most=0.2)
def prediction_is_not_invertible(result: NonInvertibleResult) -> Measured:
    """Causal training keeps little of everything else."""
    row = result.longest("causal")
    return Measured.of(row, "retained_rest_bits").over(row.entropy_bits - row.state_bits)


@claim("share of all bits", at_least=0.95)
def both_objectives_keep_all(result: NonInvertibleResult) -> Measured:
    """Trained to regenerate as well, nearly all of it is kept."""
    row = result.longest("combined")
    return Measured.of(row, "retained_bits").over(row.entropy_bits)


NON_INVERTIBLE = Experiment[NonInvertiblePlan, NonInvertibleResult](
    name=NonInvertibleResult.name,
    folder="non-invertible",
    presets={"quick": NonInvertiblePlan.quick, "standard": NonInvertiblePlan.standard},
    run=deferred("memlm_evidence.experiments.non_invertible.run:run"),
    page=page,
    result=NonInvertibleResult,
    claims=(prediction_keeps_the_state, prediction_is_not_invertible, both_objectives_keep_all),
)
