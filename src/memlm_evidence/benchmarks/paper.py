"""`memlm bench paper`."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from memlm.cli.command import Answer
from memlm.config import ModelConfig, Recipe, TrainingConfig
from memlm.recipes.paper import paper_autoencoder, paper_causal, paper_memory_model
from memlm.text.model import build_model
from memlm.training.accelerator import is_main_process, world_size
from memlm.training.footprint import footprint, require_fits, work
from memlm.training.objectives import Objective, objective_of
from memlm_evidence.benchmarks.measuring import (
    Benchmark,
    TrainingSteps,
    made_here,
    num_parameters,
    random_batch,
    side_by_side,
)

RECIPES: tuple[Recipe, ...] = (
    paper_autoencoder("masked_mixer"),
    paper_autoencoder("attention"),
    paper_causal("masked_mixer"),
    paper_causal("attention"),
    paper_memory_model("masked_mixer"),
)
GPU = "H100 SXM"
GPU_FLOPS = 990e12
"""Dense bf16 operations a second, by its data sheet."""
UTILIZATION = 0.4
"""Share of them that a training step is taken to reach where none is measured."""
MOST_WITHOUT_GPU = 1e17
"""Operations: a day or two of a good processor's."""
STEPS = 5
"""Measured, after as many that warm up."""


@dataclass(frozen=True, kw_only=True)
class Paper(Benchmark):
    """Measure or compute what training at the paper's sizes takes: parameters, memory, operations, GPU hours.

    Training steps are measured on the GPUs this runs on (torchrun --nproc_per_node 8 -m memlm bench paper). Without a
    GPU, the numbers are computed for H100s and marked as computed.
    """

    num_gpus: int = 8
    """Number of H100s to compute for if there is no GPU to measure on."""

    def run(self) -> Answer:
        """Measure or compute what each of the paper's configurations takes.

        On GPUs, steps on random tokens are measured, whole batches on as many GPUs as this was launched on. Elsewhere
        a row's `step` is computed from operations, for `num_gpus`, with `measured` false; and a shortened step (one row
        of the batch, one layer for sixteen, the same widths, fp32) is really taken. Of `bytes_per_gpu`, `activations`
        are what one micro-batch keeps for its backward pass, by a CPU's kernels; `gpu_hours` and `days` are those of
        all tokens.
        """
        rows = [_row(recipe, self.num_gpus) for recipe in RECIPES]
        if not is_main_process():
            return {}
        assumed = {"gpu": GPU, "flops_per_second": GPU_FLOPS, "utilization": UTILIZATION}
        return {"rows": rows, "assumed": assumed, **made_here()}


def training_of(recipe: Recipe) -> tuple[TrainingConfig, Objective, tuple[int, ...]]:
    """How a recipe's last stage is trained, on what objective, and the shape of a row of its batches."""
    stage = recipe.stages[-1]
    return stage.training, objective_of(recipe.model, stage), recipe.row_shape


def require_machine(recipe: Recipe, folder: Path) -> None:
    """Check that a model can be trained here, unless it has been, before anything is begun.

    Raises:
        ValueError: it does not fit into memory, or would take years without a GPU; says what it needs.
    """
    if (folder / "model").exists():
        return
    require_fits(recipe)
    cfg, objective, row_shape = training_of(recipe)
    operations = work(recipe.model, objective, row_shape).flops_per_token * cfg.num_tokens
    if operations > MOST_WITHOUT_GPU and not torch.accelerator.is_available():
        hours = operations / (GPU_FLOPS * UTILIZATION) / 3600
        raise ValueError(
            f"{recipe.name} takes {operations:.1e} operations, some {hours:,.0f} hours of one {GPU}, and this "
            "machine has no GPU; run it where there are some, torchrun --nproc_per_node 8 -m memlm reproduce --preset "
            "paper, or take another preset (memlm bench paper tells what each model takes)"
        )


def _row(recipe: Recipe, num_gpus: int) -> dict[str, Any]:
    cfg, objective, shape = training_of(recipe)
    takes = work(recipe.model, objective, shape)
    measured = _measured_step(recipe) if torch.cuda.is_available() else None
    if measured:
        num_gpus = measured["num_gpus"]
    with torch.device("meta"):
        model = build_model(recipe.model)
    stays = footprint(model, cfg.optimizer, num_gpus if cfg.sharded else 1)
    tokens_at_once = cfg.batch_tokens / num_gpus / cfg.num_micro_batches
    activations = takes.fixed_bytes + takes.bytes_per_token * tokens_at_once
    computed = {"measured": False, "tokens_per_second": num_gpus * GPU_FLOPS * UTILIZATION / takes.flops_per_token}
    step = measured or computed
    seconds = cfg.num_tokens / step["tokens_per_second"]
    return {
        "name": recipe.name,
        "parameters": num_parameters(model),
        "flops_per_token": takes.flops_per_token,
        "num_tokens": cfg.num_tokens,
        "num_gpus": num_gpus,
        "bytes_per_gpu": {**asdict(stays), "activations": activations, "total": stays.total + activations},
        "step": {**step, "gpu_hours": num_gpus * seconds / 3600, "days": seconds / 86400},
        **({} if measured else {"shortened_step": shortened_step(recipe)}),
    }


def _measured_step(recipe: Recipe) -> dict[str, Any]:
    """Whole steps as training makes them, on the GPUs there are."""
    cfg, objective, shape = training_of(recipe)
    batch = random_batch(cfg.batch_tokens, shape, recipe.model.vocab_size)
    steps = TrainingSteps(build_model(recipe.model), objective, cfg, batch, STEPS)
    torch.cuda.reset_peak_memory_stats()
    seconds = side_by_side({"all": steps}, rounds=1)["all"] / STEPS
    return {
        "measured": True,
        "device": torch.cuda.get_device_name(),
        "num_gpus": steps.stepper.accelerator.num_processes,
        "seconds": seconds,
        "tokens_per_second": batch.num_tokens / seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


def shortened_step(recipe: Recipe) -> dict[str, Any]:
    """One step on a row for each process, with one layer where there are many: that it builds, and takes steps."""
    cfg, objective, shape = training_of(recipe)
    model = build_model(one_layer(recipe.model))
    cfg = replace(cfg, num_micro_batches=1, precision="fp32")  # many a CPU multiplies bf16 a hundred times as slowly
    batch = random_batch(world_size() * math.prod(shape), shape, recipe.model.vocab_size)
    values = TrainingSteps(model, objective, cfg, batch).stepper.step(batch)
    return {"parameters": num_parameters(model), **values}


def one_layer(cfg: ModelConfig) -> ModelConfig:
    """The same widths, and one layer in every stack."""
    stacks = {name: getattr(cfg, name) for name in ("encoder", "decoder", "stack") if hasattr(cfg, name)}
    return replace(cfg, **{name: stack and replace(stack, num_layers=1) for name, stack in stacks.items()})
