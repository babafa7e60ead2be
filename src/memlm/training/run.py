"""What every training run begins and ends with: what tells it from another, what watches it, what is saved."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from accelerate import Accelerator

from memlm.config import Config, TrainingConfig
from memlm.data.chunks import Chunks, lazy_chunks
from memlm.data.token_store import PreparedData
from memlm.runtime.files import place_for
from memlm.runtime.results import Provenance
from memlm.training.accelerator import precision_on
from memlm.training.checkpoint import Progress

MAX_VALIDATION_CHUNKS = 256


def stage_checkpoints(folder: Path, stage: int) -> Path:
    """Where a stage of a run keeps its checkpoints."""
    return folder / "checkpoints" / f"stage-{stage}"


def validation_chunks(prepared: PreparedData, chunk_len: int) -> Chunks:
    """What a training run is watched by: chunks of the validation split, from all documents alike."""
    chunks = lazy_chunks(prepared.splits["validation"], chunk_len)
    number = min(MAX_VALIDATION_CHUNKS, len(chunks.document))
    return chunks.rows(np.linspace(0, len(chunks.document) - 1, number).astype(int))


def check_vocabulary(wanted: int, prepared: PreparedData) -> None:
    """Raise ValueError where the model's vocabulary is not the tokenizer's."""
    found = prepared.tokenizer.vocab_size
    if wanted != found:
        raise ValueError(
            f"the model's vocab_size is {wanted}, the tokenizer's {found}; set the model's vocab_size to {found}"
        )


def unwatched(cfg: TrainingConfig) -> TrainingConfig:
    """The configuration without what changes nothing of the model: how it is watched, saved and distributed."""
    default = TrainingConfig()
    return replace(
        cfg,
        eval_tokens=default.eval_tokens,
        checkpoint_tokens=default.checkpoint_tokens,
        trackers=default.trackers,
        num_processes=default.num_processes,
        sharded=default.sharded,
    )


def fingerprint(configs: Sequence[Config], prepared: PreparedData) -> str:
    """A short hash of configurations and data."""
    # By way of JSON, so that a ratio of 4 and one of 4.0 are the same, as they are in a recipe file.
    text = "".join(type(cfg).from_json(cfg.to_json()).to_json() for cfg in configs)
    return hashlib.sha256((text + prepared.fingerprint).encode()).hexdigest()[:16]


class _Trained(Protocol):
    """What a run ends with."""

    provenance: dict[str, Any]

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> Self: ...

    def save_pretrained(self, folder: str | Path) -> None: ...


Trained = TypeVar("Trained", bound=_Trained)


def finished(kind: type[Trained], folder: Path, fingerprint: str) -> Trained | None:
    """The model of a finished run of the same recipe and data, if `folder` holds one.

    Raises:
        ValueError: it holds another's, or cannot be a folder.
    """
    place_for("folder", folder)
    if not (folder / "model").exists():
        return None
    model = kind.from_pretrained(folder / "model")
    if model.provenance.get("run") != fingerprint:
        raise ValueError(f"{folder} holds a model of another recipe or data; give another folder, or delete it")
    return model


def provenance_of(
    run: str,
    recipe: Config,
    prepared: PreparedData,
    progress: Progress,
    accelerator: Accelerator,
    training: TrainingConfig,
) -> dict[str, Any]:
    """What a trained model is saved with: its run, recipe and data, how far it got, and what made it."""
    dtype = precision_on(accelerator.device, training.precision)
    made_by = asdict(Provenance.here(dtype=dtype, seed=training.seed))
    return {
        "run": run,
        "recipe": asdict(recipe),
        "data": prepared.fingerprint,
        **asdict(progress),
        "made_by": made_by,
    }


def end(result: _Trained, folder: Path, accelerator: Accelerator) -> None:
    """Save what was trained, once for all processes."""
    if accelerator.is_main_process:
        result.save_pretrained(folder / "model")
    accelerator.wait_for_everyone()
    accelerator.end_training()
