"""The commands that decide the paper's claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from memlm.cli.command import Answer, Command, HasWorkers
from memlm_evidence.claims import Claim, decide
from memlm_evidence.experiments.table import CLAIMS, read_results

_NAMES = f"Claims to decide: {', '.join(claim.name for claim in CLAIMS)}. Without any, all of them."


@dataclass(frozen=True, kw_only=True)
class Claims(HasWorkers):
    """Measure what decides the paper's claims, all of them or those named, and say whether each holds.

    memlm reproduce --preset quick

    memlm reproduce memories-help combined-memories-are-rich --preset standard --out runs/mine

    Results that the output folder already holds are not measured again. If the command is interrupted, run it again: it
    resumes. The report is report.html in that folder.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CLAIM", help=_NAMES)] = ()
    preset: Literal["quick", "standard", "paper"] = "quick"
    """quick: the smallest sizes that can decide a claim, one seed; half an hour on two cores with bf16, a few times
    that without. standard: the sizes of docs/results.md, three seeds; a night. paper: the paper's sizes, on GPUs, run
    with torchrun."""
    out: Path | None = None
    """Folder for the results, the trained models and the report; by default runs/ and the preset's name."""
    seeds: tuple[int, ...] = ()
    """Random seeds to measure with. By default 0, 1 and 2 for the standard preset, else 0."""
    workers: int = 0
    """Number of processes; they measure independent experiments side by side, and timed ones alone. 0 is one process
    per core, or a single one if there is a GPU."""

    def run(self) -> Answer:
        """Measure, decide, show."""
        import torch

        from memlm_evidence.experiments.reproduce import RESULTS, reproduce_claims

        out = self.out or Path("runs") / self.preset
        seeds = self.seeds or ((0, 1, 2) if self.preset == "standard" else (0,))
        alone = self.preset == "paper" or (self.ray_address is None and torch.accelerator.is_available())
        who = self.who(self.workers or int(alone))
        claims = reproduce_claims(out, self.preset, self.names, seeds=seeds, say=self.say, **who)
        return decided(self, [out / RESULTS], out, claims) if claims else {}


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Decide the claims from results that were measured before, and write the report again.

    memlm report runs/quick/results --out runs/quick
    """

    results: tyro.conf.Positional[tuple[Path, ...]]
    """Folders with results that `memlm reproduce` wrote. A benchmark's saved output counts too, as <its name>.json."""
    out: Path | None = None
    """Folder for report.html and report.md; without it, no report is written."""

    def run(self) -> Answer:
        """Read, decide, show."""
        return decided(self, self.results, self.out)


def decided(
    command: Command, results: Sequence[Path], out: Path | None, claims: Sequence[Claim[Any]] = CLAIMS
) -> Answer:
    """What results say of claims: told, answered, and if there is a folder for it written as a page."""
    from memlm_evidence.experiments.table import write_claims_report

    rows = read_results(results)
    decisions = decide(rows, claims)
    if not decisions:
        wanted = ", ".join(dict.fromkeys(f"{claim.experiment}.json" for claim in claims))
        raise ValueError(f"no results in {', '.join(map(str, results))} that decide a claim: none of {wanted}")
    for found in decisions:
        claim, bound = found.claim, "at least" if found.claim.at_least else "at most"
        command.say(
            f"{found.verdict}: {claim.name}. {claim.statement} {claim.quantity}: {found.measured.value:.4f}, "
            f"{bound} {claim.threshold:g}"
        )
    missing = [claim.name for claim in claims if claim not in [found.claim for found in decisions]]
    if missing:
        command.say(f"not decided, because there are no results: {', '.join(missing)}")
    shown = {found.claim.experiment: rows[found.claim.experiment] for found in decisions}
    report = write_claims_report(decisions, shown, out) if out else None
    if report:
        command.say(f"The whole report: {report}")
    return {
        "claims": [found.to_dict() for found in decisions],
        "report": str(report) if report else None,
    }
