"""The one place that meets devices and processes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from memlm.config import TrainingConfig
from memlm.training.allocator import keep_freed_memory

_CPU_BF16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""Instructions of x86 and Arm processors that multiply in bf16."""


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


def memory_per_process() -> int:
    """Bytes of memory that each of the launcher's processes can have at most: its GPU's, or its share of the RAM."""
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "0").lower() not in ("1", "true", "yes"):
        device = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return int(torch.cuda.get_device_properties(device).total_memory)
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ram // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def autocast(cfg: TrainingConfig, accelerator: Accelerator) -> torch.autocast:
    """The context in which matrix products have the configured precision."""
    device = accelerator.device
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, cfg.precision) == "bf16")


def precision_on(device: torch.device, wanted: Literal["auto", "bf16", "fp32"] = "auto") -> Literal["bf16", "fp32"]:
    """The type of matrix products on a device: what is wanted, or, if that is `auto`, what the device is made for."""
    if wanted != "auto":
        return wanted
    match device.type:
        case "cpu":
            # An older torch does not tell; fp32 is slow nowhere.
            can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
            return "bf16" if any(can.get(name) for name in _CPU_BF16) else "fp32"
        case "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        case _:
            return "bf16"
