"""The training loop: any model, any objective, by token budget, resumable, on accelerate."""

import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from memlm.config import TrainingConfig
from memlm.models.batch import Batch
from memlm.runtime.progress import track
from memlm.training import checkpoint
from memlm.training.accelerator import autocast, build_accelerator
from memlm.training.checkpoint import Progress, RunFolder
from memlm.training.footprint import require_memory
from memlm.training.log import MetricsLog
from memlm.training.objectives import Objective
from memlm.training.optimizers import build_optimizers, learning_rate_scale, set_learning_rate
from memlm.training.sharding import is_sharded, shard, unshard
from memlm.training.step import Stepper

LOG_STEPS = 20
"""The training loss is written each time this many steps were made."""


def fit(
    model: nn.Module,
    sample: Callable[[int], Batch],
    objective: Objective,
    cfg: TrainingConfig,
    *,
    accelerator: Accelerator | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    stop: Callable[[dict[str, float]], bool] | None = None,
    title: str = "Training",
    folder: RunFolder | None = None,
    quiet: bool = False,
) -> Progress:
    """Train a model in place until the token budget is spent.

    Args:
        model: what to train; its frozen parameters stay as they are.
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
    require_memory(model, cfg)
    accelerator = accelerator or build_accelerator(cfg)
    sharded = is_sharded(cfg, accelerator)
    trained = shard(model, accelerator.device) if sharded else model.to(accelerator.device)
    progress, optimizers = Progress(), build_optimizers(trained, cfg.optimizer)
    if folder:
        progress = checkpoint.restore(folder.checkpoints, folder.run, trained, optimizers)
    if progress.tokens < cfg.num_tokens:
        stepper = Stepper(
            trained if sharded else accelerator.prepare_model(trained), objective, cfg, accelerator, optimizers
        )
        log = MetricsLog(folder.metrics if folder else None, accelerator, progress, folder.before if folder else None)
        watch = _Watch(stepper, evaluate, stop, log)
        _run(trained, sample, stepper, watch, progress, folder, title, quiet or not accelerator.is_main_process)
    if sharded:
        unshard(trained, model)
    return progress


def _run(
    model: nn.Module,
    sample: Callable[[int], Batch],
    stepper: Stepper,
    watch: "_Watch",
    progress: Progress,
    folder: RunFolder | None,
    title: str,
    quiet: bool,
) -> None:
    """Take steps until the budget is spent or the watch says stop."""
    cfg, accelerator, optimizers = stepper.cfg, stepper.accelerator, stepper.optimizers
    due_checkpoint = _Due(cfg.checkpoint_tokens, progress.tokens)
    with track(title, total=cfg.num_tokens, unit="tokens", completed=progress.tokens, quiet=quiet) as advance:
        done = False
        while not done:
            started = time.monotonic()
            # Memory noise, too, depends on the step alone; each process draws its own.
            torch.manual_seed((cfg.seed * 1_000_003 + progress.step) * 1_009 + accelerator.process_index)
            batch = sample(progress.step)
            set_learning_rate(optimizers, learning_rate_scale(cfg, progress.tokens))
            values = stepper.step(batch)
            num_tokens = batch.num_tokens
            progress.step, progress.tokens = progress.step + 1, progress.tokens + num_tokens
            progress.seconds += time.monotonic() - started
            done = watch.after_step(model, progress, values)
            if folder and (due_checkpoint(progress.tokens) or done):
                accelerator.wait_for_everyone()
                checkpoint.save(folder.checkpoints, folder.run, progress, model, optimizers)
            advance(num_tokens, note=watch.note)


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

    def __init__(
        self,
        stepper: Stepper,
        evaluate: Callable[[nn.Module], dict[str, float]] | None,
        stop: Callable[[dict[str, float]], bool] | None,
        log: MetricsLog,
    ) -> None:
        self.cfg, self.objective, self.accelerator = stepper.cfg, stepper.objective, stepper.accelerator
        self.evaluate, self.stop, self.log = evaluate, stop, log
        self.due = _Due(self.cfg.eval_tokens, log.progress.tokens)
        self.held_out = ""
        self.note = ""

    def after_step(self, model: nn.Module, progress: Progress, values: dict[str, float]) -> bool:
        """Write what is due; returns whether training is done."""
        done = progress.tokens >= self.cfg.num_tokens
        if progress.step % LOG_STEPS == 0 or done:
            self.log.write("train", {**values, "tokens_per_second": progress.tokens / progress.seconds})
        if self.evaluate and (self.due(progress.tokens) or done):
            with autocast(self.cfg, self.accelerator):
                measures = self.evaluate(model)
            self.log.write("validation", measures)
            self.held_out = "".join(
                f", held-out {word} {measures[name]:.4f}" for name, word in _HEADLINE.items() if name in measures
            )
            done = done or bool(self.stop and self.stop(measures))
        terms = self.objective.terms
        losses = [f"{name if len(terms) > 1 else 'loss'} {values[name + '_nats']:.3f}" for name in terms]
        self.note = ", ".join(losses) + self.held_out
        return done
