"""A run's metrics: JSON lines in its folder always, accelerate's trackers on request."""

from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator

from memlm.files import atomic_write
from memlm.results import json_lines, read_json_lines
from memlm.training.checkpoint import Progress


class MetricsLog:
    """Writes rows {split, step, tokens, seconds, ...} to metrics.jsonl; only the main process writes."""

    def __init__(
        self, path: Path | None, accelerator: Accelerator, progress: Progress, before: Progress | None = None
    ) -> None:
        """Rows later than `before` plus `progress` are dropped: a resumed run makes those steps again."""
        self.accelerator, self.progress, self.before = accelerator, progress, before or Progress()
        self.path = path if accelerator.is_main_process else None
        if self.path:
            kept = [row for row in read_json_lines(self.path) if row["step"] <= self._now().step]
            atomic_write(self.path, json_lines(kept))

    def write(self, split: str, values: dict[str, float]) -> None:
        """One row, at the run's present step."""
        if self.path:
            row = {"split": split, **asdict(self._now()), **values}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_lines([row]))
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.accelerator.log(named, step=self._now().step)

    def _now(self) -> Progress:
        return self.before + self.progress
