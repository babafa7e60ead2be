"""The training loop: any model, any objective, by token budget, resumable, on accelerate."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from memlm.config import TrainingConfig
from memlm.models.batch import Batch
from memlm.runtime.progress import track
from memlm.training import checkpoint
from memlm.training.accelerator import autocast
from memlm.training.checkpoint import Progress
from memlm.training.footprint import require_memory
from memlm.training.log import MetricsLog
from memlm.training.objectives import Objective
from memlm.training.optimizers import build_optimizers, learning_rate_scale, set_learning_rate
from memlm.training.sharding import is_sharded, shard, unshard
from memlm.training.step import Stepper

LOG_STEPS = 20
"""The training loss is written each time this many steps were made."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train on and how to watch it."""

    sample: Callable[[int], Batch]
    """Step → that step's whole batch; a function of the step alone, so that a resumed run sees the same."""
    objective: Objective
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    """Held-out measures, made every `eval_tokens`."""
    stop: Callable[[dict[str, float]], bool] | None = None
    """Whether these held-out measures are reason to stop before the budget is spent."""
    title: str = "Training"


@dataclass(frozen=True)
class Home:
    """Where a run keeps what it writes."""

    checkpoints: Path
    metrics: Path
    fingerprint: str
    """Of configuration and data: a checkpoint of another run is refused."""
    before: Progress = field(default_factory=Progress)
    """What earlier stages took; metrics count on from it."""


def fit(
    model: nn.Module,
    task: Task,
    cfg: TrainingConfig,
    accelerator: Accelerator,
    *,
    home: Home | None = None,
    quiet: bool = False,
) -> Progress:
    """Train `model` in place until the token budget is spent; resume from `home` where it holds a checkpoint.

    Raises:
        TrainingDivergedError: a loss is NaN or infinite; earlier checkpoints are kept.
        ValueError: the checkpoint found is another run's, or there is not enough memory.
    """
    require_memory(model, cfg)
    if not is_sharded(cfg, accelerator):
        return _fit(model.to(accelerator.device), task, cfg, accelerator, home, quiet)
    sharded = shard(model, accelerator.device)
    progress = _fit(sharded, task, cfg, accelerator, home, quiet)
    unshard(sharded, model)
    return progress


def _fit(
    model: nn.Module, task: Task, cfg: TrainingConfig, accelerator: Accelerator, home: Home | None, quiet: bool
) -> Progress:
    """Train a model that is where it is to be trained, whole or sharded."""
    optimizers = build_optimizers(model, cfg.optimizer)
    progress = Progress()
    if home:
        progress = checkpoint.restore(home.checkpoints, home.fingerprint, model, optimizers)
    if _done(cfg, progress):
        return progress
    log = MetricsLog(home.metrics if home else None, accelerator, progress, home.before if home else Progress())
    prepared = model if is_sharded(cfg, accelerator) else accelerator.prepare_model(model)
    stepper = Stepper(prepared, task.objective, cfg, accelerator, optimizers)
    watch = _Watch(task, cfg, log)
    due_checkpoint = _Due(cfg.checkpoint_tokens, progress.tokens)
    quiet = quiet or not accelerator.is_main_process
    with track(task.title, total=cfg.num_tokens, unit="tokens", completed=progress.tokens, quiet=quiet) as advance:
        stopped = False
        while progress.tokens < cfg.num_tokens and not stopped:
            started = time.monotonic()
            # Memory noise, too, depends on the step alone; each process draws its own.
            torch.manual_seed((cfg.seed * 1_000_003 + progress.step) * 1_009 + accelerator.process_index)
            batch = task.sample(progress.step)
            set_learning_rate(optimizers, learning_rate_scale(cfg, progress.tokens))
            values = stepper.step(batch)
            num_tokens = batch.num_tokens
            progress.step, progress.tokens = progress.step + 1, progress.tokens + num_tokens
            progress.seconds += time.monotonic() - started
            stopped = watch.after_step(model, progress, values)
            if home and (due_checkpoint(progress.tokens) or _done(cfg, progress) or stopped):
                accelerator.wait_for_everyone()
                checkpoint.save(home.checkpoints, home.fingerprint, progress, model, optimizers)
            advance(num_tokens, note=watch.note)
    return progress


def _done(cfg: TrainingConfig, progress: Progress) -> bool:
    return progress.tokens >= cfg.num_tokens


class _Due:
    """Says when a multiple of `every` tokens was passed."""

    def __init__(self, every: int, tokens: int) -> None:
        self.every, self.passed = every, tokens // every

    def __call__(self, tokens: int) -> bool:
        before, self.passed = self.passed, tokens // self.every
        return self.passed > before


_HEADLINE = {"token_accuracy": "accuracy", "causal_nats_per_token": "nats/token"}
"""Of the held-out measures, those shown on the way."""


class _Watch:
    """Logs training losses and held-out measures, and words them for the progress bar."""

    def __init__(self, task: Task, cfg: TrainingConfig, log: MetricsLog) -> None:
        self.task, self.cfg, self.log = task, cfg, log
        self.due = _Due(cfg.eval_tokens, log.progress.tokens)
        self.held_out = ""
        self.note = ""

    def after_step(self, model: nn.Module, progress: Progress, values: dict[str, float]) -> bool:
        """Write what is due; returns whether to stop."""
        done = _done(self.cfg, progress)
        if progress.step % LOG_STEPS == 0 or done:
            self.log.write("train", {**values, "tokens_per_second": progress.tokens / progress.seconds})
        stop = False
        if self.task.evaluate and (self.due(progress.tokens) or done):
            with autocast(self.cfg, self.log.accelerator):
                measures = self.task.evaluate(model)
            self.log.write("validation", measures)
            self.held_out = "".join(
                f", held-out {_HEADLINE[name]} {measures[name]:.4f}" for name in _HEADLINE if name in measures
            )
            stop = bool(self.task.stop and self.task.stop(measures))
        terms = self.task.objective.terms
        losses = [f"{name if len(terms) > 1 else 'loss'} {values[name + '_nats']:.3f}" for name in terms]
        self.note = ", ".join(losses) + self.held_out
        return stop
