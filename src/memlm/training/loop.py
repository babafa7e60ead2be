"""The training loop: any model, any objective, by token budget, resumable, on accelerate."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from memlm.config import TrainingConfig
from memlm.runtime.files import atomic_write
from memlm.runtime.progress import track
from memlm.runtime.results import json_lines, read_json_lines
from memlm.training import checkpoint
from memlm.training.accelerator import autocast, build_accelerator
from memlm.training.checkpoint import Progress, RunFolder, Saver
from memlm.training.footprint import require_memory
from memlm.training.objectives import Objective
from memlm.training.optimizers import budget_spent, learning_rate_scale, set_learning_rate
from memlm.training.sharding import unshard
from memlm.training.step import Stepper

LOG_STEPS = 20
"""The training loss is written each time this many steps were made."""
_HEADLINE = {"token_accuracy": "accuracy", "causal_nats_per_token": "nats/token", "cosine": "cosine"}
"""Of the held-out measures, those shown on the way."""

Measures = dict[str, float]


def fit(
    model: nn.Module,
    sample: Callable[[int], Any],
    objective: Objective,
    cfg: TrainingConfig,
    *,
    accelerator: Accelerator | None = None,
    evaluate: Callable[[nn.Module], Measures] | None = None,
    stop: Callable[[Measures], bool] | None = None,
    title: str = "Training",
    folder: RunFolder | None = None,
    quiet: bool = False,
) -> Progress:
    """Train a model in place until the token budget is spent; its frozen parameters stay as they are.

    Args:
        model: what to train.
        sample: step → that step's whole batch; a function of the step alone, so that a resumed run sees the same.
        objective: what to train for.
        cfg: how long, how fast and in what portions.
        accelerator: devices, processes and trackers; by default built from `cfg`.
        evaluate: held-out measures, made every `eval_tokens`.
        stop: whether these measures are reason to stop before the budget is spent.
        title: what the progress bar says.
        folder: where checkpoints and metrics go; training resumes from the checkpoint there, if there is one.
        quiet: show no progress.

    Raises:
        TrainingDivergedError: a loss is NaN or infinite; earlier checkpoints are kept.
        ValueError: the checkpoint found is another run's, or there is not enough memory.
    """
    require_memory(model, cfg, saves=folder is not None)
    accelerator, progress = accelerator or build_accelerator(cfg), Progress()
    stepper = Stepper(model, objective, cfg, accelerator)
    if folder:
        progress = checkpoint.restore(folder.checkpoints, folder.run, stepper.module, stepper.optimizers)
    if budget_spent(cfg, progress.tokens, progress.seconds) < 1:
        watch = _Watch(stepper, evaluate, stop, MetricsLog(folder, accelerator, progress))
        quiet = quiet or not accelerator.is_main_process
        bar = track(title, total=cfg.num_tokens, unit="tokens", completed=progress.tokens, quiet=quiet)
        with bar as advance, Saver(folder.checkpoints, folder.run) if folder else nullcontext() as saver:
            _train(stepper, sample, watch, saver, advance)
    if stepper.sharded:
        unshard(stepper.module, model)
    return progress


def _train(
    stepper: Stepper,
    sample: Callable[[int], Any],
    watch: "_Watch",
    saver: Saver | None,
    advance: Callable[..., None],
) -> None:
    """Take steps until the budget is spent or the watch says stop."""
    cfg, accelerator, progress, done = stepper.cfg, stepper.accelerator, watch.log.progress, False
    batches = _batches(sample, cfg.workers, progress.step)
    while not done:
        started, before = time.monotonic(), progress.tokens
        # Memory noise, too, depends on the step alone; each process draws its own.
        torch.manual_seed((cfg.seed * 1_000_003 + progress.step) * 1_009 + accelerator.process_index)
        batch = next(batches)
        set_learning_rate(stepper.optimizers, learning_rate_scale(cfg, before, progress.seconds))
        values = stepper.step(batch)
        progress.step, progress.tokens = progress.step + 1, before + batch.num_tokens
        progress.seconds += time.monotonic() - started
        done = watch.after_step(values, before)
        if saver and (done or _passed(cfg.checkpoint_tokens, before, progress.tokens)):
            saver.save(progress, stepper.module, stepper.optimizers)
        advance(batch.num_tokens, note=watch.note)


@dataclass(frozen=True)
class _Steps(Dataset[Any]):
    """Batches by the number of their step."""

    sample: Callable[[int], Any]

    def __getitem__(self, step: int) -> Any:
        return self.sample(step)


def _batches(sample: Callable[[int], Any], workers: int, start: int) -> Iterator[Any]:
    """The batches from a step on; with workers, they are made ahead of time in processes that fork from this one."""
    if not workers:
        return map(sample, itertools.count(start))
    loader = DataLoader(
        _Steps(sample),
        batch_size=None,
        sampler=itertools.count(start),
        num_workers=workers,
        collate_fn=lambda batch: batch,
        multiprocessing_context="fork",
    )
    return iter(loader)


def _passed(every: int, before: int, tokens: int) -> bool:
    """Whether a multiple of `every` tokens was passed."""
    return tokens // every > before // every


class MetricsLog:
    """A run's metrics: rows {split, step, tokens, seconds, ...} in its folder, by the main process; and trackers."""

    def __init__(self, folder: RunFolder | None, accelerator: Accelerator, progress: Progress) -> None:
        self.accelerator, self.progress = accelerator, progress
        self.before = folder.before if folder else Progress()
        self.path = folder.metrics if folder and accelerator.is_main_process else None
        self.resumed_at: int | None = (self.before + progress).step

    def write(self, split: str, values: Measures) -> None:
        """One row, at the run's present step."""
        now = self.before + self.progress
        if self.path:
            # A resumed run makes the steps after its checkpoint again; a stage that is done leaves later ones' rows.
            if self.resumed_at is not None:
                earlier = [row for row in read_json_lines(self.path) if row["step"] <= self.resumed_at]
                atomic_write(self.path, json_lines(earlier))
                self.resumed_at = None
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_lines([{"split": split, **asdict(now), **values}]))
        self.accelerator.log({f"{split}/{name}": value for name, value in values.items()}, step=now.step)


class _Watch:
    """Logs training losses and held-out measures, and words them for the progress bar."""

    def __init__(
        self,
        stepper: Stepper,
        evaluate: Callable[[nn.Module], Measures] | None,
        stop: Callable[[Measures], bool] | None,
        log: MetricsLog,
    ) -> None:
        self.stepper, self.evaluate, self.stop, self.log = stepper, evaluate, stop, log
        self.note = self.held_out = ""

    def after_step(self, values: Measures, before: int) -> bool:
        """Write what is due after a step that began at so many tokens; returns whether training is done."""
        cfg, progress = self.stepper.cfg, self.log.progress
        done = budget_spent(cfg, progress.tokens, progress.seconds) >= 1
        if progress.step % LOG_STEPS == 0 or done:
            self.log.write("train", {**values, "tokens_per_second": progress.tokens / progress.seconds})
        if self.evaluate and (done or _passed(cfg.eval_tokens, before, progress.tokens)):
            with autocast(cfg, self.stepper.accelerator):
                measures = self.evaluate(self.stepper.module)
            self.log.write("validation", measures)
            shown = {word: measures[name] for name, word in _HEADLINE.items() if name in measures}
            self.held_out = "".join(f", held-out {word} {value:.4f}" for word, value in shown.items())
            done = done or bool(self.stop and self.stop(measures))
        terms = self.stepper.objective.terms
        unit = self.stepper.objective.unit
        losses = [f"{name if len(terms) > 1 else 'loss'} {values[f'{name}_{unit}']:.3f}" for name in terms]
        self.note = ", ".join(losses) + self.held_out
        return done
