"""The one place that meets devices and processes."""

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from memlm.config import TrainingConfig
from memlm.runtime.cpu import keep_freed_memory, precision_on


def build_accelerator(cfg: TrainingConfig, folder: Path | None = None, *, all_used: bool = True) -> Accelerator:
    """An accelerator for devices, processes and trackers; unless `all_used`, a step may leave weights out.

    Precision is `autocast`'s: accelerate's own would copy all logits to fp32 on their way out of the model.

    Raises:
        ValueError: there are not as many processes as were asked for, by `num_processes` or by the launcher; or a
            tracker is unknown or not installed.
    """
    parallel = DistributedDataParallelKwargs(find_unused_parameters=not all_used)
    accelerator = Accelerator(
        mixed_precision="no", log_with=list(cfg.trackers) or None, project_dir=folder, kwargs_handlers=[parallel]
    )
    wanted = cfg.num_processes or world_size()
    if accelerator.num_processes != wanted:
        raise ValueError(
            f"{wanted} processes were asked for, but {accelerator.num_processes} are running together; "
            f"launch with: torchrun --nproc_per_node {wanted} -m memlm train ..."
        )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    missing = set(cfg.trackers) - {str(tracker) for tracker in accelerator.log_with}
    if missing:  # accelerate passes over these in silence
        raise ValueError(f"the trackers {', '.join(sorted(missing))} are not installed")
    if cfg.trackers:
        accelerator.init_trackers("memlm")
    return accelerator


def is_main_process() -> bool:
    """Whether this is the first of the launcher's processes (or the only one): the one that evaluates and speaks."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Processes that the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_gpu() -> bool:
    """Whether the launcher's processes train on GPUs."""
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "0").lower() not in ("1", "true", "yes")


def memory_per_process() -> int:
    """Bytes of memory that each of the launcher's processes can have at most: its GPU's, or its share of the RAM."""
    if on_gpu():
        device = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return int(torch.cuda.get_device_properties(device).total_memory)
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ram // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def autocast(cfg: TrainingConfig, accelerator: Accelerator) -> torch.autocast:
    """The context in which matrix products have the configured precision."""
    device = accelerator.device
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, cfg.precision) == "bf16")
