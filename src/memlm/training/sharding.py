"""Weights, gradients and optimizer state divided over all processes (FSDP2), and made whole again."""

from copy import deepcopy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def shard(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a model, each process holding its part of every weight; every process calls this with the same model.

    The layers of a list of modules are gathered one after the other, when their turn comes; what is not in a list is
    gathered together. Only `forward` knows how: the copy's other methods are not to be called.
    """
    copy = deepcopy(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    layers = [layer for stack in copy.modules() if isinstance(stack, nn.ModuleList) for layer in stack]
    for part in (*layers, copy):
        sharded = fully_shard(part, mesh=mesh)
        # Sums are what every backend knows, gloo too; they are divided afterwards.
        sharded.set_force_sum_reduction_for_comms(True)
    return copy


def unshard(sharded: nn.Module, model: nn.Module) -> None:
    """Put the whole weights of a sharded copy into the model that it is a copy of; every process calls this."""
    model.load_state_dict({name: whole(weight).cpu() for name, weight in sharded.state_dict().items()})


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; every process calls this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
