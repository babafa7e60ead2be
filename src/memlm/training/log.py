"""A run's metrics: JSON lines in its folder always, accelerate's trackers on request."""

from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator

from memlm.files import atomic_write
from memlm.results import json_lines, read_json_lines
from memlm.training.checkpoint import Progress


class MetricsLog:
    """Writes rows {split, step, tokens, seconds, ...} to metrics.jsonl; only the main process writes."""

    def __init__(self, folder: Path | None, accelerator: Accelerator, progress: Progress) -> None:
        """Rows later than `progress` are dropped: a resumed run makes those steps again."""
        self.accelerator, self.progress = accelerator, progress
        self.path = folder / "metrics.jsonl" if folder and accelerator.is_main_process else None
        if self.path:
            kept = [row for row in read_json_lines(self.path) if row["step"] <= progress.step]
            atomic_write(self.path, json_lines(kept))

    def write(self, split: str, values: dict[str, float]) -> None:
        """One row, at the run's present step."""
        if self.path:
            row = {"split": split, **asdict(self.progress), **values}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_lines([row]))
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.accelerator.log(named, step=self.progress.step)
