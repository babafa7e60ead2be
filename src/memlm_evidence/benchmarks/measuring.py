"""What benchmarks share: steps as training makes them, random batches, a clock and a profile."""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from memlm.cli.command import Command
from memlm.config import TrainingConfig
from memlm.models.batch import Batch
from memlm.runtime.results import Provenance
from memlm.training.accelerator import build_accelerator
from memlm.training.objectives import Objective
from memlm.training.step import Stepper

Name = TypeVar("Name", bound=Hashable)
_ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"
MATRIX_PRODUCTS = (
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "aten::_int_mm"),
    *(_ATTENTION, f"{_ATTENTION}_backward"),
)


@dataclass(frozen=True, kw_only=True)
class Benchmark(Command):
    """A command that measures; what it gives is printed as JSON."""

    answer_is_output = True


class TrainingSteps:
    """So many training steps of a model on the same batch."""

    def __init__(
        self, model: nn.Module, objective: Objective, cfg: TrainingConfig, batch: Batch, number: int = 1
    ) -> None:
        self.stepper = Stepper(model, objective, cfg, build_accelerator(cfg, all_used=False))
        self.batch, self.number = batch, number

    def __call__(self) -> None:
        """Take them."""
        for _ in range(self.number):
            self.stepper.step(self.batch)


def random_batch(num_tokens: int, shape: tuple[int, ...], vocab_size: int, *, seed: int = 0) -> Batch:
    """Rows of random tokens, which cost what any others do."""
    size = (num_tokens // math.prod(shape), *shape)
    tokens = torch.randint(vocab_size, size, generator=torch.Generator().manual_seed(seed))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))


def num_parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def num_bytes(cache: Any) -> int:
    """The size of keys and values."""
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))


def seconds_of(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """The seconds that some work takes, on a GPU too."""
    started = clock()
    work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return clock() - started


def side_by_side(
    work: Mapping[Name, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Name, float]:
    """Median seconds of each.

    All take turns, round after round, so that noise of the machine meets all; a first round warms up.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, each in work.items():
            spent = seconds_of(each, clock)
            if number:
                seconds[name].append(spent)
    return {name: median(spent) for name, spent in seconds.items()}


def made_here(**settings: Any) -> dict[str, Any]:
    """What every answer ends with: what made it."""
    return {"num_threads": torch.get_num_threads(), "provenance": asdict(Provenance.here(**settings))}


def operation_shares(work: Callable[[], object]) -> dict[str, float]:
    """Shares of the time that work takes on the CPU, by kind of operation: matrix products, then what takes most."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    products = sum(spent for key, spent in times.items() if key in MATRIX_PRODUCTS)
    others = sorted(((spent, key) for key, spent in times.items() if key not in MATRIX_PRODUCTS), reverse=True)
    return {"matrix products": products / total} | {key: spent / total for spent, key in others[:8]}
