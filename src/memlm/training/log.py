"""A run's metrics: JSON lines in its folder always, accelerate's trackers on request."""

from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator

from memlm.runtime.files import atomic_write
from memlm.runtime.results import json_lines, read_json_lines
from memlm.training.checkpoint import Progress


class MetricsLog:
    """Writes rows {split, step, tokens, seconds, ...} to metrics.jsonl; only the main process writes."""

    def __init__(
        self, path: Path | None, accelerator: Accelerator, progress: Progress, before: Progress | None = None
    ) -> None:
        """`before` is what earlier stages made."""
        self.accelerator, self.progress, self.before = accelerator, progress, before or Progress()
        self.path = path if accelerator.is_main_process else None
        self.resumed_at: int | None = self._now().step

    def write(self, split: str, values: dict[str, float]) -> None:
        """One row, at the run's present step."""
        if self.path:
            self._forget_later_rows(self.path)
            row = {"split": split, **asdict(self._now()), **values}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_lines([row]))
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.accelerator.log(named, step=self._now().step)

    def _forget_later_rows(self, path: Path) -> None:
        """Before the first row: a resumed run makes the steps after its checkpoint again.

        Not any earlier, for a stage that is done writes nothing, and later stages' rows are to stay.
        """
        if self.resumed_at is not None:
            kept = [row for row in read_json_lines(path) if row["step"] <= self.resumed_at]
            atomic_write(path, json_lines(kept))
            self.resumed_at = None

    def _now(self) -> Progress:
        return self.before + self.progress
