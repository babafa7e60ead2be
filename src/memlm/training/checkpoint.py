"""Training checkpoints: everything the loop needs to go on as if it had never stopped.

Batches are a function of seed and step alone, so that weights, optimizer state and counters are all there is.
"""

import json
import re
import shutil
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from memlm.runtime.files import atomic_folder
from memlm.training.accelerator import is_main_process
from memlm.training.sharding import part_of, whole

_NUM_CHECKPOINTS = 2
"""If the newest is damaged, there is one before it."""
_WEIGHTS, _MOMENTS, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


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


def save(folder: Path, fingerprint: str, progress: Progress, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Save a checkpoint atomically, then remove all but the last two. Every process calls this, the first one writes.

    Raises:
        OSError: the disk is full; the older checkpoints are still there.
    """
    weights, moments = _gathered(model.state_dict()), _gathered(_optimizer_tensors(optimizers))
    if not is_main_process():
        return
    with atomic_folder(folder / f"step-{progress.step:08d}") as temporary:
        save_file(weights, temporary / _WEIGHTS)
        save_file(moments, temporary / _MOMENTS)
        (temporary / _STATE).write_text(json.dumps({"fingerprint": fingerprint, **asdict(progress)}))
    for old in _steps(folder)[:-_NUM_CHECKPOINTS]:
        shutil.rmtree(old)


def restore(folder: Path, fingerprint: str, model: nn.Module, optimizers: list[Optimizer]) -> Progress:
    """Load the newest checkpoint into model and optimizers; a fresh `Progress` where there is none.

    One that is damaged is removed, with a warning, if there is an older one to go on from.

    Raises:
        ValueError: the checkpoint belongs to another configuration, or every one is damaged.
    """
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # another process may be at it too
    checkpoint, progress, damaged = newest_whole(folder, fingerprint)
    if not checkpoint:
        return progress
    held = model.state_dict()
    weights = load_file(checkpoint / _WEIGHTS)
    model.load_state_dict({name: part_of(weight, held[name]) for name, weight in weights.items()})
    _load_optimizer_tensors(optimizers, load_file(checkpoint / _MOMENTS))
    if is_main_process():
        for newer, why in damaged.items():
            going_on = f"going on from the checkpoint before it, at step {progress.step}"
            warnings.warn(f"{newer} is damaged ({why}); {going_on}", stacklevel=2)
            shutil.rmtree(newer)
    return progress


def newest_whole(folder: Path, fingerprint: str) -> tuple[Path | None, Progress, dict[Path, Exception]]:
    """The newest checkpoint that can be read, if there is any; how far it is; and the newer ones, with what ails them.

    Raises:
        ValueError: it belongs to another configuration, or every one is damaged.
    """
    damaged: dict[Path, Exception] = {}
    for checkpoint in reversed(_steps(folder)):
        try:
            state = json.loads((checkpoint / _STATE).read_text())
            found, progress = state.pop("fingerprint"), Progress(**state)
            for name in (_WEIGHTS, _MOMENTS):
                with safe_open(checkpoint / name, "pt"):  # which refuses a file that was cut short
                    pass
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged[checkpoint] = error
            continue
        if found != fingerprint:
            raise ValueError(
                f"{checkpoint} was made with another configuration or data; give another folder, or delete {folder}"
            )
        return checkpoint, progress, damaged
    for checkpoint, why in damaged.items():
        raise ValueError(f"{checkpoint} is damaged ({why}); delete it to start again")
    return None, Progress(), {}


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
