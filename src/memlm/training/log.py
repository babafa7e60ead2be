"""A run's metrics: JSON lines in its folder always, accelerate's trackers on request."""

import json
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator

from memlm.files import atomic_write
from memlm.results import read_json_lines, write_json_lines
from memlm.training.checkpoint import Progress


class MetricsLog:
    """Writes rows {split, step, tokens, seconds, ...} to metrics.jsonl; only the main process writes."""

    def __init__(self, folder: Path | None, accelerator: Accelerator, progress: Progress) -> None:
        """Rows later than `progress` are dropped: a resumed run makes those steps again."""
        self.accelerator, self.progress = accelerator, progress
        self.path = folder / "metrics.jsonl" if folder and accelerator.is_main_process else None
        if self.path:
            kept = [json.dumps(row) + "\n" for row in read_json_lines(self.path) if row["step"] <= progress.step]
            atomic_write(self.path, "".join(kept))

    def write(self, split: str, values: dict[str, float]) -> None:
        """One row, at the run's present step."""
        if self.path:
            write_json_lines(self.path, [{"split": split, **asdict(self.progress), **values}])
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.accelerator.log(named, step=self.progress.step)
