"""Training checkpoints: everything the loop needs to go on as if it had never stopped.

Batches are a function of seed and step alone, so that weights, optimizer state and counters are all there is.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from memlm.files import atomic_folder
from memlm.training.accelerator import is_main_process
from memlm.training.sharding import part_of, whole


@dataclass
class Progress:
    """How far a training run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Of training steps, without evaluation and saving."""

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(self.step + other.step, self.tokens + other.tokens, self.seconds + other.seconds)


def save(folder: Path, fingerprint: str, progress: Progress, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Save a checkpoint atomically, then remove the older ones. Every process calls this, the first one writes.

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
    for old in _steps(folder)[:-1]:
        shutil.rmtree(old)


def restore(folder: Path, fingerprint: str, model: nn.Module, optimizers: list[Optimizer]) -> Progress:
    """Load the newest checkpoint into model and optimizers; a fresh `Progress` where there is none.

    Raises:
        ValueError: the checkpoint belongs to another configuration, or is damaged.
    """
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # another process may be at it too
    newest = find(folder, fingerprint)
    if not newest:
        return Progress()
    try:
        weights, moments = load_file(newest / "model.safetensors"), load_file(newest / "optimizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise _damaged(newest, error) from None
    held = model.state_dict()
    model.load_state_dict({name: part_of(weight, held[name]) for name, weight in weights.items()})
    _load_optimizer_tensors(optimizers, moments)
    return _read_state(newest)[1]


def find(folder: Path, fingerprint: str) -> Path | None:
    """The newest checkpoint, if there is one.

    Raises:
        ValueError: it belongs to another configuration, or cannot be read.
    """
    newest = next(reversed(_steps(folder)), None)
    if newest and _read_state(newest)[0] != fingerprint:
        raise ValueError(
            f"{newest} was made with another configuration or data; give another folder, or delete {folder}"
        )
    return newest


def _read_state(checkpoint: Path) -> tuple[str, Progress]:
    try:
        state = json.loads((checkpoint / "state.json").read_text())
        return state.pop("fingerprint"), Progress(**state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(checkpoint, error) from None


def _damaged(checkpoint: Path, error: Exception) -> ValueError:
    return ValueError(f"{checkpoint} is damaged ({error}); delete it to start again")


def _steps(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if re.fullmatch(r"step-\d+", path.name))


def _gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU, of whatever parts; on the first process, for the others keep nothing."""
    kept = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor.detach())
        if is_main_process():
            kept[name] = gathered.cpu().contiguous()
    return kept


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
