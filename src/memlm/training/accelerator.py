"""The one place that meets devices and processes."""

import os
from pathlib import Path

from accelerate import Accelerator

from memlm.config import TrainingConfig


def build_accelerator(cfg: TrainingConfig, folder: Path | None = None) -> Accelerator:
    """An accelerator of the configured precision and trackers.

    Raises:
        ValueError: there are not as many processes as were asked for, by `num_processes` or by the launcher.
    """
    accelerator = Accelerator(
        mixed_precision="bf16" if cfg.precision == "bf16" else "no",
        log_with=list(cfg.trackers) or None,
        project_dir=folder,
    )
    wanted = cfg.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise ValueError(
            f"{wanted} processes were asked for, but {accelerator.num_processes} are running together; "
            f"launch with: torchrun --nproc_per_node {wanted} -m memlm train ..."
        )
    if cfg.trackers:
        accelerator.init_trackers("memlm")
    return accelerator
