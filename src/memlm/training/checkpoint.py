"""Training checkpoints: everything the loop needs to go on as if it had never stopped.

Batches are a function of seed and step alone, so that weights, optimizer state and counters are all there is. Each
process writes what it holds, by torch's distributed checkpoints in safetensors, while training goes on. Any number of
processes reads them, each only its part. (The other format of torch's checkpoints is a pickle.)
"""

import json
import re
import shutil
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.optim import Optimizer

from memlm.runtime.files import sync, write_failed
from memlm.training.accelerator import is_main_process

# torch's, of every run in one process.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")

_NUM_CHECKPOINTS = 2
"""If the newest is damaged, there is one before it."""
_STATE = "state.json"
_OLD_FILES = ("model.safetensors", "optimizer.safetensors")
"""Of checkpoints whose state names none, up to version 0.2."""


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


class Saver:
    """Saves a stage's checkpoints while it trains on, one at a time; every process has one, and calls it alike.

    A checkpoint is there when its folder has its name: after all of it is on the disk. Whatever ends a process before
    that leaves the older ones. The end of a `with` block waits for the last.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        # Of its own: what is agreed on for a save must not meet the gradients, nor does every backend know the CPU.
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._saving: tuple[_Writer, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def save(self, progress: Progress, model: nn.Module, optimizers: list[Optimizer]) -> None:
        """Begin to save a checkpoint, of which there is a copy in memory on return; waits for the one before.

        Same errors as `wait`.
        """
        self.wait()
        state = {"fingerprint": self._fingerprint, **asdict(progress)}
        writer = _Writer(self._folder / f"step-{progress.step:08d}", state)
        tensors = {**_weights(model), **_moments(optimizers)}
        self._saving = writer, async_save(tensors, storage_writer=writer, process_group=self._group)

    def wait(self) -> None:
        """Wait until what was saved is on the disk; then all but the last two checkpoints are gone.

        Raises:
            OSError: the disk is full, or not all processes see the folder; the older checkpoints are still there.
        """
        if not self._saving:
            return
        (writer, saving), self._saving = self._saving, None
        try:
            saving.result()
        except CheckpointException as error:
            shutil.rmtree(writer.path, ignore_errors=True)
            cause = _cause(error)
            raise write_failed(writer.final, cause) if isinstance(cause, OSError) else cause from error


class _Writer(HuggingFaceStorageWriter):
    """Writes a process's part of a checkpoint; the first one gives it its name when all parts are there."""

    def __init__(self, final: Path, state: dict[str, Any]) -> None:
        super().__init__(str(final.with_name(f".{final.name}")), save_distributed=True)
        self.final, self._state = final, state

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Called in the first process, when every part is on the disk."""
        unfinished = Path(self.path)
        files = sorted({part.storage_data.relative_path for parts in results for part in parts})
        if missing := [name for name in files if not (unfinished / name).exists()]:
            raise OSError(
                f"{', '.join(missing)} of other processes cannot be seen: give a folder that all machines share"
            )
        (unfinished / _STATE).write_text(json.dumps({**self._state, "files": files}))
        sync(unfinished / _STATE)
        sync(unfinished)
        unfinished.rename(self.final)
        sync(self.final.parent)
        for old in _steps(self.final.parent)[:-_NUM_CHECKPOINTS]:
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
    try:
        _load(checkpoint, model, optimizers)
    except (CheckpointException, ValueError, IndexError) as error:
        raise ValueError(f"{checkpoint} is damaged ({_cause(error)}); delete it to go on without it") from error
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
            found, files = state.pop("fingerprint"), state.pop("files", _OLD_FILES)
            progress = Progress(**state)
            for name in files:
                (checkpoint / name).stat()
            HuggingFaceStorageReader(str(checkpoint)).read_metadata()  # which refuses a file that was cut short
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


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """By name, as they are held: whole, or a part of each."""
    return {name: weight.detach().contiguous() for name, weight in model.state_dict().items()}


def _moments(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """What optimizers keep, by the numbers of optimizer and parameter, and a name; held as the parameters are."""
    return {
        f"{number}.{index}.{name}": torch.as_tensor(value).contiguous()
        for number, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _load(checkpoint: Path, model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Read this process's part of a checkpoint into model and optimizers; asks no other process."""
    reader = HuggingFaceStorageReader(str(checkpoint))
    weights = model.state_dict()
    moments: dict[str, Tensor] = {}
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    parameters = [[each for group in optimizer.param_groups for each in group["params"]] for optimizer in optimizers]
    for key, stored in reader.read_metadata().state_dict_metadata.items():
        if key not in weights:
            owner, index, name = key.split(".", 2)
            moments[key] = _room(stored, parameters[int(owner)][int(index)])
            states[int(owner)].setdefault(int(index), {})[name] = moments[key]
    load({**weights, **moments}, storage_reader=reader, no_dist=True)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _room(stored: Any, parameter: Tensor) -> Tensor:
    """An empty tensor for what an optimizer keeps of a parameter: one like it, or a number."""
    dtype = stored.properties.dtype
    return torch.empty_like(parameter, dtype=dtype) if stored.size == parameter.shape else torch.empty((), dtype=dtype)


def _cause(error: BaseException) -> BaseException:
    """What went wrong, in the first process in which something did."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
