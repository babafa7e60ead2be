"""What was found on known sources."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from memlm_evidence.claims import ExperimentResult
from memlm_evidence.known_sources.rows import CalibrationRow, DistortionRow, LimitRow, OracleRow, StateRow


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
