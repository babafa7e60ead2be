"""What benchmarks share: steps as training makes them, random batches, a clock and a profile."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from memlm.config import TrainingConfig
from memlm.models.batch import Batch
from memlm.training.accelerator import build_accelerator
from memlm.training.objectives import Objective
from memlm.training.optimizers import build_optimizers
from memlm.training.sharding import is_sharded, shard
from memlm.training.step import Stepper

Outcome = TypeVar("Outcome")
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear")


def build_stepper(model: nn.Module, objective: Objective, cfg: TrainingConfig) -> Stepper:
    """As `training.loop.fit` makes it."""
    accelerator = build_accelerator(cfg, all_used=False)
    if is_sharded(cfg, accelerator):
        prepared = model = shard(model, accelerator.device)
    else:
        prepared = accelerator.prepare_model(model)  # first: optimizers ask for the device
    return Stepper(prepared, objective, cfg, accelerator, build_optimizers(model, cfg.optimizer))


def random_batch(num_tokens: int, shape: tuple[int, ...], vocab_size: int, *, seed: int = 0) -> Batch:
    """Rows of random tokens, which cost what any others do."""
    size = (num_tokens // math.prod(shape), *shape)
    tokens = torch.randint(vocab_size, size, generator=torch.Generator().manual_seed(seed))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))


def timed(work: Callable[[], Outcome]) -> tuple[Outcome, float]:
    """What some work gives, and the seconds it takes."""
    started = time.perf_counter()
    outcome = work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return outcome, time.perf_counter() - started


def operation_shares(work: Callable[[], object]) -> dict[str, float]:
    """Shares of the time that work takes on the CPU, by kind of operation: matrix products, then what takes most."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    products = sum(spent for key, spent in times.items() if key in MATRIX_PRODUCTS)
    others = sorted(((spent, key) for key, spent in times.items() if key not in MATRIX_PRODUCTS), reverse=True)
    return {"matrix products": products / total} | {key: spent / total for spent, key in others[:8]}
