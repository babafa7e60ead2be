"""Processes killed at random moments: what they said was done is done, and what they go on with ends the same."""

import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from memlm.config import AutoencoderRecipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import Scale
from memlm.store.file import MemoryFile
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.train import train
from memlm_evidence.campaign.part import Part

_LONGEST_APPEND = 3.0
"""Seconds that a writer has at most."""


def trainings(part: Part, model: TextAutoencoder) -> None:
    """A training of two stages that saves often, killed and resumed: its weights are those of one left alone."""
    recipe = _small_recipe()
    with tempfile.TemporaryDirectory() as name:
        begun = time.monotonic()
        _run(train_in, recipe, Path(name) / "alone").join()
        usual, expected = time.monotonic() - begun, _weights(Path(name) / "alone")
        number = 0
        while part.goes_on:
            folder, number = Path(name) / str(number), number + 1
            kills = 0
            while _weights(folder) is None:
                process = _run(train_in, recipe, folder)
                process.join(part.rng.uniform(0, usual))
                if process.is_alive():
                    process.kill()
                    kills += 1
                process.join()
                if process.exitcode not in (0, -9):
                    part.failed(f"the training ended with {process.exitcode} after {kills} kills")
                    return
            if _weights(folder) == expected:
                part.saw("killed and resumed to the same bits", max(kills, 1))
            else:
                part.failed(f"other weights after {kills} kills")


def appends(part: Part, model: TextAutoencoder) -> None:
    """A file to which documents are appended: what was acknowledged is in it, exactly, and nothing is damaged."""
    with tempfile.TemporaryDirectory() as name:
        checkpoint, path = Path(name) / "model", Path(name) / "notes.memory"
        model.save_pretrained(checkpoint)
        MemoryFile.create(path, str(checkpoint)).close()
        while part.goes_on:
            with _writing(path, checkpoint) as (process, said):
                said.poll(60)  # it has begun
                time.sleep(part.rng.uniform(0, _LONGEST_APPEND))
                process.kill()
                process.join()
                acknowledged = max(_all(said), default=0)
            with MemoryFile.open(path, model) as notes:
                fault = _lost(notes, acknowledged)
            if fault:
                part.failed(fault)
            else:
                part.saw("nothing lost")


def train_in(recipe: AutoencoderRecipe, folder: Path) -> None:
    """Train, in a process of its own."""
    train(recipe, folder, quiet=True)


def append_to(path: Path, checkpoint: Path, said: Connection) -> None:
    """Append documents until one is killed; says how many there are, each time that one more is."""
    with MemoryFile.open(path, str(checkpoint)) as notes:
        said.send(len(notes.documents))
        while True:
            notes.append(_line(len(notes.documents)), name="line")
            said.send(len(notes.documents))


def _line(number: int) -> str:
    return f"the memory {number} holds ünd 漢字 " * (1 + number % 7)


def _lost(notes: MemoryFile, acknowledged: int) -> str | None:
    if len(notes.documents) < acknowledged:
        return f"{acknowledged} documents were acknowledged, and {len(notes.documents)} are there"
    if damage := notes.damaged():
        return f"damaged: {damage}"
    for number, one in enumerate(notes.documents):
        if (text := notes.text(one.start_chunk, one.stop_chunk)) != _line(number):
            return f"document {number} is {text[:100]!r}"
    return None


def _small_recipe() -> AutoencoderRecipe:
    scale = Scale(chunk_len=32, memory_dim=64, dim=32, vocab_size=512, num_tokens=12_000, batch_chunks=8)
    return autoencoder(scale).with_training(checkpoint_tokens=1_000, eval_tokens=6_000)


def _weights(folder: Path) -> str | None:
    """A hash of a finished run's weights."""
    path = folder / "model" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _run(work: Callable[..., None], *given: Any) -> multiprocessing.process.BaseProcess:
    """Start work in a process that forks from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=given, daemon=True)
    process.start()
    return process


@contextmanager
def _writing(path: Path, checkpoint: Path) -> Iterator[tuple[multiprocessing.process.BaseProcess, Connection]]:
    here, there = multiprocessing.Pipe(duplex=False)
    with here:
        process = _run(append_to, path, checkpoint, there)
        there.close()
        yield process, here


def _all(said: Connection) -> Iterator[int]:
    """All that a process said before its end."""
    try:
        while said.poll(1):
            yield said.recv()
    except (EOFError, OSError):  # the last word may be cut off
        return
