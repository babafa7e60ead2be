"""What training a model holds in memory, told from shapes, and the operations that it computes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from memlm import config
from memlm.models.batch import Batch
from memlm.text.model import build_model
from memlm.training.accelerator import memory_per_process, on_gpu, world_size
from memlm.training.objectives import Objective
from memlm.training.optimizers import freeze, hidden_matrices

_STEP_BYTES = 4
"""AdamW counts each parameter's steps."""
_KERNELS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
"""Of attention, by their names in torch."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that stay from step to step, on one process."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer

    @property
    def copied(self) -> int:
        """What a checkpoint copies, in the computer's memory, until it is on the disk (`training.checkpoint`)."""
        return self.weights + self.optimizer


def footprint(model: nn.Module, optimizer: config.Optimizer, num_shares: int = 1) -> Footprint:
    """What a model's training keeps, on the process that holds the most where weights are divided by `num_shares`."""
    matrices = {id(matrix) for matrix in hidden_matrices(model)} if isinstance(optimizer, config.Muon) else set()
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    moments = sum(
        _share(parameter, num_shares) if id(parameter) in matrices else 2 * _share(parameter, num_shares) + _STEP_BYTES
        for parameter in trained
    )
    return Footprint(
        weights=sum(_share(parameter, num_shares) for parameter in parameters)
        + sum(buffer.nbytes for buffer in model.buffers()),
        gradients=sum(_share(parameter, num_shares) for parameter in trained),
        optimizer=moments,
    )


def _share(parameter: Tensor, num_shares: int) -> int:
    """Bytes of the largest part of a parameter, which is cut along its first axis."""
    rows = len(parameter)
    return parameter.nbytes // rows * -(-rows // num_shares)


def require_memory(model: nn.Module, cfg: config.TrainingConfig, *, saves: bool = True) -> None:
    """Refuse a model whose training cannot fit, whatever the batch; `saves` if it keeps checkpoints.

    Raises:
        ValueError: says what it needs at the least, what there is, and the way out.
    """
    world, there = world_size(), memory_per_process()
    copies = saves and not on_gpu()

    def needed(num_shares: int) -> int:
        each = footprint(model, cfg.optimizer, num_shares)
        return each.total + each.copied * copies

    need = needed(world if cfg.sharded else 1)
    if need <= there:
        return
    fitting = math.ceil(needed(1) / there)
    copy = ", and a copy of all but gradients while it is saved" if copies else ""
    raise ValueError(
        f"training this model takes at least {need / 1e9:.1f} GB of memory in each process (weights, gradients and "
        f"optimizer state{copy}), and each of {world} has {there / 1e9:.1f} GB; make the model smaller, or divide it "
        f"over at least {fitting} processes that have as much: stages.*.training.sharded=true, and torchrun"
    )


def require_fits(recipe: config.Recipe) -> None:
    """The same of a recipe, before its data is prepared and anything of its size is built.

    Raises:
        ValueError: as `require_memory`.
    """
    with torch.device("meta"):
        model = build_model(recipe.model)
    for stage in recipe.stages:
        if stage.chunk_len is None:  # what grows is smaller
            freeze(model, stage.frozen)
            require_memory(model, stage.training)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one micro-batch takes."""

    flops_per_token: float
    """Forward and backward."""
    fixed_bytes: float
    """Kept for the backward pass whatever the batch: weights in bf16."""
    bytes_per_token: float
    """Kept for the backward pass, of each token."""


def work(cfg: config.ModelConfig, objective: Objective, row_shape: tuple[int, ...]) -> Work:
    """What training on rows of this shape takes under bf16, by the kernels of a CPU.

    A GPU keeps less of attention, and more of the logits. Temporary tensors come on top.
    """
    (flops, one), (_, two) = (_traced(cfg, objective, (rows, *row_shape)) for rows in (1, 2))
    tokens = math.prod(row_shape)
    return Work(flops_per_token=flops / tokens, fixed_bytes=2 * one - two, bytes_per_token=(two - one) / tokens)


def _traced(cfg: config.ModelConfig, objective: Objective, shape: tuple[int, ...]) -> tuple[int, int]:
    """Operations of a step on a batch of this shape, and bytes that it keeps for the backward pass."""
    with torch.device("meta"):  # first: what adds adapters to a pretrained model cannot be run on fake tensors
        model = build_model(cfg)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        saved: dict[int, Any] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                saved[storage._cdata] = storage  # so that no other takes its address
            return tensor

        batch = Batch(torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.bool))
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with flop_counter() as counter:
            with hooks, torch.autocast("cpu", torch.bfloat16):
                nats = objective.nats(model, batch).sum()
            nats.backward()  # type: ignore[no-untyped-call]
        return counter.get_total_flops(), sum(storage.nbytes() for storage in saved.values())


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, taught what causal attention costs."""
    formulas: dict[Any, Callable[..., int]] = {}
    aten = torch.ops.aten
    for kernel in _KERNELS:
        formulas[getattr(aten, f"_scaled_dot_product_{kernel}")] = _causal_flops
        formulas[getattr(aten, f"_scaled_dot_product_{kernel}_backward")] = _causal_backward_flops
    return FlopCounterMode(display=False, custom_mapping=formulas)


def flops_per_token(model: nn.Module, objective: Objective, batch: Batch) -> float:
    """Operations of a training step, forward and backward, for each real token of its batch.

    Gradients are left as they were.
    """
    before = [parameter.grad for parameter in model.parameters()]
    with flop_counter() as counter, torch.enable_grad():
        objective.nats(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        parameter.grad = gradient
    return counter.get_total_flops() / batch.num_tokens


def _causal_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Operations of causal attention, given shapes [batch head token dim]; the queries are the last of the keys.

    PyTorch's counter knows no attention on the CPU, and elsewhere counts what is masked as well, nearly half.
    """
    batch, heads, queries, dim = query
    seen = queries * (key[2] - queries) + queries * (queries + 1) // 2
    return 2 * batch * heads * seen * (dim + value[3])


def _causal_backward_flops(gradient: torch.Size, *shapes: Any, **options: Any) -> int:
    """Five products of which the forward pass has two."""
    return 5 * _causal_flops(*shapes, **options) // 2
