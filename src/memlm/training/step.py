"""One optimizer step over a whole batch, whatever micro-batches and processes it is worked off in.

Losses are sums with counts: each micro-batch's sum is divided by the whole batch's count, so that accumulation and
distribution change the gradient by rounding only.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from memlm.config import TrainingConfig
from memlm.training.accelerator import autocast
from memlm.training.objectives import Objective
from memlm.training.optimizers import build_optimizers
from memlm.training.sharding import shard, whole


class TrainingDivergedError(FloatingPointError):
    """A loss or gradient became NaN or infinite."""


class Stepper:
    """Makes a model's optimizer steps, on the accelerator's device and over its processes."""

    def __init__(self, model: nn.Module, objective: Objective, cfg: TrainingConfig, accelerator: Accelerator) -> None:
        self.objective, self.cfg, self.accelerator = objective, cfg, accelerator
        self.sharded = cfg.sharded and accelerator.num_processes > 1
        self.module = shard(model, accelerator.device) if self.sharded else model.to(accelerator.device)
        """The model itself; or, sharded, a copy of which each process holds its part."""
        self.optimizers = build_optimizers(self.module, cfg.optimizer)
        self.model = self.module if self.sharded else accelerator.prepare_model(self.module)
        """The same, with its gradients shared among the processes."""

    def step(self, batch: Any) -> dict[str, float]:
        """Take one step on a batch, given whole on every process; the learning rate is already set.

        Returns:
            Each term's mean over the whole batch, by its name and unit (`retention_nats`), and `grad_norm` before
            clipping.

        Raises:
            TrainingDivergedError: loss or gradient is NaN or infinite; the weights are as before the step.
        """
        counts = self.objective.counts(batch)
        totals = self._backward(batch, counts)
        losses = {name: total / count for (name, total), count in zip(totals.items(), counts, strict=True)}
        unit = self.objective.unit
        norm = float(whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.max_grad_norm)))
        if not all(map(math.isfinite, (*losses.values(), norm))):
            told = ", ".join(f"the {name} loss is {value} {unit}" for name, value in losses.items())
            raise TrainingDivergedError(
                f"{told}, and the gradient's norm is {norm}; a lower learning rate or a longer warm-up may help"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {**{f"{name}_{unit}": value for name, value in losses.items()}, "grad_norm": norm}

    def _backward(self, batch: Any, counts: list[int]) -> dict[str, float]:
        """Accumulate the gradient of the batch's mean loss; returns each term summed over all processes, in nats."""
        world, terms = self.accelerator.num_processes, self.objective.terms
        # The processes' gradients are averaged; times their number, that is the sum.
        weights = [weight * world / count for weight, count in zip(terms.values(), counts, strict=True)]
        scales = torch.tensor(weights, device=self.accelerator.device)
        totals = torch.zeros_like(scales)
        portions = list(self._portions(batch))
        for number, portion in enumerate(portions):
            last = number == len(portions) - 1
            # A sharded model's gradients are divided after every micro-batch: no process holds them all.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                with autocast(self.cfg, self.accelerator):
                    nats = self.objective.nats(self.model, portion).reshape(len(terms))
                self.accelerator.backward((nats * scales).sum())
            totals += nats.detach()
        return dict(zip(terms, self.accelerator.reduce(totals, "sum").tolist(), strict=True))

    def _portions(self, batch: Any) -> Iterator[Any]:
        """This process's micro-batches."""
        world, num_micro_batches = self.accelerator.num_processes, self.cfg.num_micro_batches
        num_chunks = len(batch.tokens)
        if num_chunks < world * num_micro_batches:
            raise ValueError(
                f"a batch of {num_chunks} chunks cannot be shared by {world} processes in "
                f"{num_micro_batches} micro-batches; raise batch_tokens"
            )
        mine = torch.arange(num_chunks)[self.accelerator.process_index :: world]
        for rows in torch.tensor_split(mine, num_micro_batches):
            yield batch.rows(rows, self.accelerator.device)
