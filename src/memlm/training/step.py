"""One optimizer step over a whole batch, whatever micro-batches and processes it is worked off in.

Losses are sums with counts: each micro-batch's sum is divided by the whole batch's count, so that accumulation and
distribution change the gradient by rounding only.
"""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from memlm.config import TrainingConfig
from memlm.data.chunks import Chunks
from memlm.objectives import Batch, Objective
from memlm.training.accelerator import autocast


class TrainingDivergedError(FloatingPointError):
    """A loss or gradient became NaN or infinite."""


class Stepper:
    """Makes optimizer steps on a model prepared by accelerate."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        cfg: TrainingConfig,
        accelerator: Accelerator,
        optimizers: list[Optimizer],
    ) -> None:
        self.model, self.objective, self.cfg = model, objective, cfg
        self.accelerator, self.optimizers = accelerator, optimizers

    def step(self, chunks: Chunks) -> dict[str, float]:
        """Take one step on a batch, given whole on every process; the learning rate is already set.

        Returns:
            `nats_per_token` over all processes (every objective's terms summed) and `grad_norm` before clipping.

        Raises:
            TrainingDivergedError: loss or gradient is NaN or infinite; the weights are as before the step.
        """
        count = int(chunks.mask.sum())
        nats = self._backward(chunks, count) / count
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.max_grad_norm))
        if not (math.isfinite(nats) and math.isfinite(norm)):
            raise TrainingDivergedError(
                f"the loss is {nats} nats/token and the gradient's norm {norm}; "
                "a lower learning rate or a longer warm-up may help"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"nats_per_token": nats, "grad_norm": norm}

    def _backward(self, chunks: Chunks, count: int) -> float:
        """Accumulate the gradient of the batch's mean loss; returns the loss summed over all processes, in nats."""
        world = self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        portions = list(self._portions(chunks))
        for number, batch in enumerate(portions):
            last = number == len(portions) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                with autocast(self.cfg, self.accelerator):
                    tallies = self.objective(self.model, batch)
                loss = torch.stack([tally.sum for tally in tallies.values()]).sum()
                # The processes' gradients are averaged; times their number, that is the sum.
                self.accelerator.backward(loss * (world / count))
            total += loss.detach()
        return float(self.accelerator.reduce(total, "sum"))

    def _portions(self, chunks: Chunks) -> Iterator[Batch]:
        """This process's micro-batches."""
        world, num_micro_batches = self.accelerator.num_processes, self.cfg.num_micro_batches
        if len(chunks.tokens) < world * num_micro_batches:
            raise ValueError(
                f"a batch of {len(chunks.tokens)} chunks cannot be shared by {world} processes in "
                f"{num_micro_batches} micro-batches; raise batch_tokens"
            )
        mine = np.arange(len(chunks.tokens))[self.accelerator.process_index :: world]
        for rows in np.array_split(mine, num_micro_batches):
            arrays = (chunks.tokens[rows], chunks.mask[rows])
            yield Batch(*(torch.from_numpy(array).to(self.accelerator.device) for array in arrays))
