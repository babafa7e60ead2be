"""Embeddings on disk: a frozen encoder reads every chunk once, however many readers are trained on it.

A folder for each encoder and text holds a memory-mapped file for each view. A chunk's vectors are NaN until they are
made, so that an interrupted run goes on from there.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Bool, Float, Int

from memlm.data.cache import default_cache
from memlm.data.chunks import Chunks
from memlm.models.batch import Batch
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.results import View
from memlm.runtime.files import atomic_file, make_folder
from memlm.runtime.progress import Advance, track

_BATCH_TOKENS = 4096

Vectors = Float[np.ndarray, "chunk slot dim"]
NO_VECTORS: Vectors = np.zeros((0, 1, 1), np.float32)
"""Of no chunks."""


def embed_chunks(
    encoder: FrozenEncoder,
    views: Sequence[View],
    chunks: Chunks,
    *,
    cache: Path | None = None,
    title: str = "Embedding",
    quiet: bool = False,
) -> list[Vectors]:
    """The embeddings of chunks of the encoder's own tokens, one memory-mapped array for each resolved view, in fp32.

    Views that are not in the `cache` yet are made together, by one pass of the encoder over the chunks. By default it
    is `embeddings` in memlm's cache.

    Raises:
        ValueError: an embedding is NaN or infinite, or a file in the cache is damaged.
        OSError: the disk is full; says so before anything else is computed.
    """
    content = hashlib.sha256(repr(chunks.tokens.shape).encode() + chunks.tokens.tobytes() + chunks.mask.tobytes())
    folder = default_cache() / "embeddings" if cache is None else cache
    folder = make_folder(folder / f"{encoder.fingerprint}-{content.hexdigest()[:16]}")
    paths = {view: folder / f"{view}.npy" for view in views}
    # Whoever comes second to the same chunks waits, and finds them embedded.
    with FileLock(folder / "lock"):
        missing = {view: _missing(path, len(chunks.mask)) for view, path in paths.items()}
        rows = np.flatnonzero(np.logical_or.reduce([*missing.values()]))
        if len(rows):
            unfinished = {view: path for view, path in paths.items() if missing[view].any()}
            total, left = int(chunks.mask.sum()), int(chunks.mask[rows].sum())
            with track(title, total=total, unit="tokens", completed=total - left, quiet=quiet) as advance:
                _fill(encoder, unfinished, chunks, rows, advance)
    return [np.load(paths[view], mmap_mode="r", allow_pickle=False) for view in views]


def _missing(path: Path, num_chunks: int) -> Bool[np.ndarray, " chunk"]:
    """Whose vectors are still to be made."""
    if not path.exists():
        return np.ones(num_chunks, dtype=np.bool_)
    try:
        return np.isnan(np.load(path, mmap_mode="r", allow_pickle=False).min(axis=(1, 2)))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it") from None


def _fill(
    encoder: FrozenEncoder, paths: Mapping[View, Path], chunks: Chunks, rows: Int[np.ndarray, " row"], advance: Advance
) -> None:
    """Make the vectors of these rows, batch by batch."""
    step = max(1, _BATCH_TOKENS // chunks.chunk_len)
    for some in np.split(rows, range(step, len(rows), step)):
        batch = Batch.of(chunks.rows(some))
        made = encoder.embed(batch.tokens, batch.mask, list(paths))
        for (view, path), tensor in zip(paths.items(), made, strict=True):
            vectors = tensor.cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ValueError(
                    f"{encoder.name} gives embeddings that are NaN or infinite ({view}); its weights may be damaged, "
                    "or its numbers too large for its precision (try precision='fp32')"
                )
            if not path.exists():
                _allocate(path, (len(chunks.mask), *vectors.shape[1:]))
            np.load(path, mmap_mode="r+", allow_pickle=False)[some] = vectors
        advance(batch.num_tokens)


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """A file of NaN, which takes its whole place on the disk at once."""
    with atomic_file(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        with temporary.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
        array[:] = np.nan
        array.flush()
