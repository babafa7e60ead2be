"""Embeddings on disk: a frozen encoder reads every chunk once, however many readers are trained on it.

A cache entry is a folder of `vectors.npy`, memory-mapped, and `entry.json`, which says whose vectors they are and how
many are done; an interrupted run goes on from there.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float

from memlm.data.cache import default_cache
from memlm.data.chunks import Chunks
from memlm.probing.encoders import FrozenEncoder, View
from memlm.runtime.files import atomic_write, make_folder
from memlm.runtime.progress import track

_FORMAT = 1
_BATCH_TOKENS = 4096
_SAVE_SECONDS = 5.0

Vectors = Float[np.ndarray, "chunk slot dim"]


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """Whose vectors an entry holds."""

    format: int
    encoder: str
    view: str
    chunks: str


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
    cache = default_cache() / "embeddings" if cache is None else cache
    digest = _digest(chunks)
    entries = [_Entry(format=_FORMAT, encoder=encoder.fingerprint, view=str(view), chunks=digest) for view in views]
    make_folder(cache)
    # Whoever comes second to the same chunks waits, and finds them embedded.
    with FileLock(cache / f"{encoder.fingerprint}-{digest}.lock"):
        stores = [_Store(cache / _key(entry), entry) for entry in entries]
        unfinished = {view: store for view, store in zip(views, stores, strict=True) if store.done < len(chunks.tokens)}
        if unfinished:
            _fill(encoder, list(unfinished), list(unfinished.values()), chunks, title, quiet)
        return [store.read() for store in stores]


class _Store:
    """One entry on disk."""

    def __init__(self, folder: Path, entry: _Entry) -> None:
        self.folder, self.entry = folder, entry
        self.vectors, self._about = folder / "vectors.npy", folder / "entry.json"
        self.done = self._read()

    def open(self, num_chunks: int, like: Vectors) -> np.memmap:
        """The vectors, writable; a file that is new takes its whole place on the disk at once."""
        if self.vectors.exists():
            return np.lib.format.open_memmap(self.vectors, "r+")
        self.folder.mkdir(parents=True, exist_ok=True)
        shape = (num_chunks, *like.shape[1:])
        array = np.lib.format.open_memmap(self.vectors, "w+", np.float32, shape)
        try:
            with self.vectors.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, array.nbytes)
        except OSError as error:
            self.vectors.unlink()
            size = f"{array.nbytes / 1e6:.0f} MB"
            raise OSError(
                error.errno, f"no room for {size} of embeddings; free some, or set MEMLM_HOME", str(self.folder)
            ) from error
        return array

    def read(self) -> Vectors:
        """The vectors, memory-mapped."""
        try:
            return np.load(self.vectors, mmap_mode="r")
        except ValueError as error:
            raise ValueError(f"{self.vectors} is damaged ({error}); delete {self.folder}") from None

    def save(self, done: int) -> None:
        self.done = done
        atomic_write(self._about, json.dumps({**asdict(self.entry), "done": done}) + "\n")

    def _read(self) -> int:
        if not self._about.exists():
            self.vectors.unlink(missing_ok=True)  # nobody has said how much of it is done
            return 0
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            done = int(about.pop("done"))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{self._about} is damaged ({error}); delete {self.folder}") from None
        if about != asdict(self.entry):
            wanted, found = self.entry.encoder, about.get("encoder")
            raise ValueError(
                f"{self.folder} holds embeddings of encoder {found}, not of {wanted}; delete it, or give another cache"
            )
        if not self.vectors.exists():
            return 0
        return done


def _fill(
    encoder: FrozenEncoder, views: Sequence[View], stores: Sequence[_Store], chunks: Chunks, title: str, quiet: bool
) -> None:
    """Compute what is missing, from the first chunk that any of the entries lacks."""
    num_chunks, chunk_len = chunks.tokens.shape
    start = min(store.done for store in stores)
    total, step = int(chunks.mask.sum()), max(1, _BATCH_TOKENS // chunk_len)
    arrays: list[np.memmap] = []
    saved = time.monotonic()
    with ExitStack() as stack:
        completed = int(chunks.mask[:start].sum())
        advance = stack.enter_context(track(title, total=total, unit="tokens", completed=completed, quiet=quiet))
        for begin in range(start, num_chunks, step):
            rows = slice(begin, begin + step)
            made = _embed(encoder, views, chunks, rows)
            arrays = arrays or [store.open(num_chunks, part) for store, part in zip(stores, made, strict=True)]
            for array, part in zip(arrays, made, strict=True):
                array[rows] = part
            done = min(begin + step, num_chunks)
            if time.monotonic() - saved > _SAVE_SECONDS or done == num_chunks:
                saved = time.monotonic()
                for array, store in zip(arrays, stores, strict=True):
                    array.flush()
                    store.save(max(done, store.done))
            advance(int(chunks.mask[rows].sum()))


def _embed(encoder: FrozenEncoder, views: Sequence[View], chunks: Chunks, rows: slice) -> list[Vectors]:
    tokens, mask = torch.from_numpy(chunks.tokens[rows]), torch.from_numpy(chunks.mask[rows])
    made = [vectors.cpu().numpy() for vectors in encoder.embed(tokens, mask, views)]
    for view, vectors in zip(views, made, strict=True):
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"{encoder.name} gives embeddings that are NaN or infinite ({view}); its weights may be damaged, or "
                "its numbers too large for its precision (try precision='fp32')"
            )
    return made


def _digest(chunks: Chunks) -> str:
    digest = hashlib.sha256(str(chunks.tokens.shape).encode())
    for part in (chunks.tokens, chunks.mask):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _key(entry: _Entry) -> str:
    return hashlib.sha256(json.dumps(asdict(entry)).encode()).hexdigest()[:16]
