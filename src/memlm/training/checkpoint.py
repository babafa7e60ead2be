"""Training checkpoints: everything the loop needs to go on as if it had never stopped.

Batches are a function of seed and step alone, so that weights, optimizer state and counters are all there is.
"""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from memlm.runtime.files import atomic_folder
from memlm.training.accelerator import is_main_process
from memlm.training.sharding import part_of, whole

_NUM_CHECKPOINTS = 2
"""If the newest is damaged, there is one before it."""

T = TypeVar("T")


@dataclass
class Progress:
    """How far a training run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Of training steps, without evaluation and saving."""

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(self.step + other.step, self.tokens + other.tokens, self.seconds + other.seconds)


@dataclass(frozen=True)
class RunFolder:
    """Where a stage of a run writes its checkpoints and metrics."""

    path: Path
    run: str
    """Fingerprint of configuration and data: a checkpoint of another run is refused."""
    stage: int = 0
    before: Progress = field(default_factory=Progress)
    """What earlier stages took; metrics count on from it."""

    @property
    def checkpoints(self) -> Path:
        """Of this stage."""
        return self.path / "checkpoints" / f"stage-{self.stage}"

    @property
    def metrics(self) -> Path:
        """Of all stages."""
        return self.path / "metrics.jsonl"

    def at_stage(self, stage: int, before: Progress) -> "RunFolder":
        """The same run at another stage."""
        return replace(self, stage=stage, before=before)


def save(folder: Path, fingerprint: str, progress: Progress, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Save a checkpoint atomically, then remove all but the last two. Every process calls this, the first one writes.

    Raises:
        OSError: the disk is full; the older checkpoints are still there.
    """
    weights, moments = _gathered(model.state_dict()), _gathered(_optimizer_tensors(optimizers))
    if not is_main_process():
        return
    with atomic_folder(folder / f"step-{progress.step:08d}") as temporary:
        save_file(weights, temporary / "model.safetensors")
        save_file(moments, temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps({"fingerprint": fingerprint, **asdict(progress)}))
    for old in _steps(folder)[:-_NUM_CHECKPOINTS]:
        shutil.rmtree(old)


class _DamagedError(ValueError):
    """A checkpoint with a file that is missing or cut short."""

    def __init__(self, checkpoint: Path, why: Exception) -> None:
        super().__init__(f"{checkpoint} is damaged ({why}); delete it to start again")
        self.checkpoint, self.why = checkpoint, why


def restore(folder: Path, fingerprint: str, model: nn.Module, optimizers: list[Optimizer]) -> Progress:
    """Load the newest checkpoint into model and optimizers; a fresh `Progress` where there is none.

    One that is damaged is removed, with a warning, if there is an older one to go on from.

    Raises:
        ValueError: the checkpoint belongs to another configuration, or every one is damaged.
    """
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # another process may be at it too
    found, damaged = _newest_whole(folder, lambda checkpoint: _read(checkpoint, fingerprint))
    if not found:
        return Progress()
    weights, moments, progress = found
    held = model.state_dict()
    model.load_state_dict({name: part_of(weight, held[name]) for name, weight in weights.items()})
    _load_optimizer_tensors(optimizers, moments)
    if is_main_process():
        for error in damaged:
            warnings.warn(
                f"{error.checkpoint} is damaged ({error.why}); going on from the checkpoint before it, at step "
                f"{progress.step}",
                stacklevel=2,
            )
            shutil.rmtree(error.checkpoint)
    return progress


def refuse_others(folder: Path, fingerprint: str) -> None:
    """Raise ValueError where the newest checkpoint belongs to another configuration, or none can be read."""
    _newest_whole(folder, lambda checkpoint: _read_state(checkpoint, fingerprint))


def _newest_whole(folder: Path, read: Callable[[Path], T]) -> tuple[T | None, list[_DamagedError]]:
    """What is read of the newest checkpoint that can be read, and the newer ones, which cannot."""
    damaged: list[_DamagedError] = []
    for checkpoint in reversed(_steps(folder)):
        try:
            return read(checkpoint), damaged
        except _DamagedError as error:
            damaged.append(error)
    if damaged:
        raise damaged[0]
    return None, []


def _read(checkpoint: Path, fingerprint: str) -> tuple[dict[str, Tensor], dict[str, Tensor], Progress]:
    progress = _read_state(checkpoint, fingerprint)
    try:
        return load_file(checkpoint / "model.safetensors"), load_file(checkpoint / "optimizer.safetensors"), progress
    except (OSError, SafetensorError) as error:
        raise _DamagedError(checkpoint, error) from None


def _read_state(checkpoint: Path, fingerprint: str) -> Progress:
    try:
        state = json.loads((checkpoint / "state.json").read_text())
        found, progress = state.pop("fingerprint"), Progress(**state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(checkpoint, error) from None
    if found != fingerprint:
        raise ValueError(
            f"{checkpoint} was made with another configuration or data; give another folder, or delete "
            f"{checkpoint.parent}"
        )
    return progress


def _steps(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if re.fullmatch(r"step-\d+", path.name))


def _gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU, of whatever parts; on the first process, for the others keep nothing."""
    gathered = {}
    for name, tensor in tensors.items():
        entire = whole(tensor.detach())
        if is_main_process():
            gathered[name] = entire.cpu().contiguous()
    return gathered


def _optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    return {
        f"{number}.{index}.{name}": torch.as_tensor(value)
        for number, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _load_optimizer_tensors(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    for number, optimizer in enumerate(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, index, name = key.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[name] = part_of(value, parameters[int(index)])
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
