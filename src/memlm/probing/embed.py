"""Embeddings on disk: a frozen encoder reads every chunk once, however many readers are trained on it.

A cache entry is a folder of `vectors.npy`, memory-mapped, and `entry.json`, which says whose vectors they are and how
many are done; an interrupted run goes on from there.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float

from memlm.data.cache import default_cache
from memlm.data.chunks import Chunks
from memlm.models.batch import Batch, batches
from memlm.probing.encoders import FrozenEncoder, View
from memlm.runtime.cache import digest
from memlm.runtime.files import atomic_write, make_folder
from memlm.runtime.progress import Advance, track

_FORMAT = 1
_BATCH_TOKENS = 4096
_SAVE_SECONDS = 5.0

Vectors = Float[np.ndarray, "chunk slot dim"]


def embed_chunks(
    encoder: FrozenEncoder,
    views: Sequence[View],
    chunks: Chunks,
    *,
    cache: Path | None = None,
    title: str = "Embedding",
    quiet: bool = False,
) -> list[Vectors]:
    """The embeddings of chunks, one memory-mapped array for each resolved view, in fp32.

    Views that are not in the cache yet are made together, by one pass of the encoder over the chunks.

    Args:
        encoder: frozen.
        views: as `encoder.resolve` gives them.
        chunks: of the encoder's own tokens.
        cache: folder; by default `embeddings` in memlm's cache.
        title: what the progress bar says.
        quiet: show no progress.

    Raises:
        ValueError: an embedding is NaN or infinite, or an entry of the cache holds another encoder's vectors.
        OSError: the disk is full; says so before anything is computed.
    """
    cache = make_folder(default_cache() / "embeddings" if cache is None else cache)
    content = hashlib.sha256(repr(chunks.tokens.shape).encode() + chunks.tokens.tobytes() + chunks.mask.tobytes())
    about = {"format": _FORMAT, "encoder": encoder.fingerprint, "chunks": content.hexdigest()[:16]}
    # Whoever comes second to the same chunks waits, and finds them embedded.
    with FileLock(cache / f"{encoder.fingerprint}-{about['chunks']}.lock"):
        entries = [_Entry(cache, {**about, "view": str(view)}) for view in views]
        unfinished = {view: entry for view, entry in zip(views, entries, strict=True) if entry.done < len(chunks.mask)}
        if unfinished:
            start = min(entry.done for entry in unfinished.values())
            total, completed = int(chunks.mask.sum()), int(chunks.mask[:start].sum())
            with track(title, total=total, unit="tokens", completed=completed, quiet=quiet) as advance:
                _fill(encoder, unfinished, chunks, start, advance)
        return [entry.read() for entry in entries]


class _Entry:
    """One view's vectors on disk; `done` chunks of them are finished."""

    def __init__(self, cache: Path, about: dict[str, Any]) -> None:
        self.about, self.folder = about, cache / digest(about)
        self._vectors, self._about = self.folder / "vectors.npy", self.folder / "entry.json"
        self.done = self._read_done()

    def open(self, num_chunks: int, like: Vectors) -> np.memmap:
        """The vectors, writable; a file that is new takes its whole place on the disk at once."""
        if self._vectors.exists():
            return np.lib.format.open_memmap(self._vectors, "r+")
        self.folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(self._vectors, "w+", np.float32, (num_chunks, *like.shape[1:]))
        try:
            with self._vectors.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, array.nbytes)
        except OSError as error:
            self._vectors.unlink()
            reason = f"no room for {array.nbytes / 1e6:.0f} MB of embeddings; free some, or set MEMLM_HOME"
            raise OSError(error.errno, reason, str(self.folder)) from error
        return array

    def read(self) -> Vectors:
        """The vectors, memory-mapped."""
        try:
            return np.load(self._vectors, mmap_mode="r")
        except ValueError as error:
            raise ValueError(f"{self._vectors} is damaged ({error}); delete {self.folder}") from None

    def save(self, done: int) -> None:
        self.done = max(done, self.done)
        atomic_write(self._about, json.dumps({**self.about, "done": self.done}) + "\n")

    def _read_done(self) -> int:
        if not self._about.exists():
            self._vectors.unlink(missing_ok=True)  # nobody has said how much of it is done
            return 0
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            done = int(about.pop("done"))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{self._about} is damaged ({error}); delete {self.folder}") from None
        if about != self.about:
            raise ValueError(
                f"{self.folder} holds embeddings of encoder {about.get('encoder')}, not of {self.about['encoder']}; "
                "delete it, or give another cache"
            )
        return done if self._vectors.exists() else 0


def _fill(encoder: FrozenEncoder, entries: dict[View, _Entry], chunks: Chunks, start: int, advance: Advance) -> None:
    """Compute what is missing, from the first chunk that any of the entries lacks."""
    arrays: list[np.memmap] = []
    done, saved = start, time.monotonic()
    rest = chunks.rows(slice(start, None))
    for batch in batches(rest, "cpu", max(1, _BATCH_TOKENS // chunks.chunk_len)):
        made = _embed(encoder, list(entries), batch)
        arrays = arrays or [
            entry.open(len(chunks.mask), part) for entry, part in zip(entries.values(), made, strict=True)
        ]
        for array, part in zip(arrays, made, strict=True):
            array[done : done + len(part)] = part
        done += len(batch.tokens)
        if time.monotonic() - saved > _SAVE_SECONDS or done == len(chunks.mask):
            saved = time.monotonic()
            for array, entry in zip(arrays, entries.values(), strict=True):
                array.flush()
                entry.save(done)
        advance(batch.num_tokens)


def _embed(encoder: FrozenEncoder, views: Sequence[View], batch: Batch) -> list[Vectors]:
    made = [vectors.cpu().numpy() for vectors in encoder.embed(batch.tokens, batch.mask, views)]
    for view, vectors in zip(views, made, strict=True):
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"{encoder.name} gives embeddings that are NaN or infinite ({view}); its weights may be damaged, or "
                "its numbers too large for its precision (try precision='fp32')"
            )
    return made
