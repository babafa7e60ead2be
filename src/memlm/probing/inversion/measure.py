"""Inversion measured on texts that are known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from memlm.evaluation.bootstrap import ratio_interval
from memlm.probing.inversion.invert import Inverter, pieces_of
from memlm.probing.inversion.likeness import bleu, f1
from memlm.probing.inversion.results import InversionResult, InvertedText
from memlm.runtime.results import Interval, Provenance

_MEASURES = {
    "cosine": "cosine", "encodings_per_text": "encodings", "seconds_per_text": "seconds",
    "f1": "f1", "exact": "exact", "bleu": "bleu",
}  # fmt: skip


def invert_texts(
    inverter: Inverter,
    texts: Sequence[str],
    *,
    chunk_len: int = 16,
    max_chunks: int = 30,
    length_known: bool = True,
    encodings: int = 20_000,
    seed: int = 0,
    quiet: bool = True,
) -> InversionResult:
    """Embed pieces of these texts, search for them by their embeddings alone, and compare.

    Raises:
        ValueError: no piece of `chunk_len` tokens; and as `invert`.
    """
    embedder = inverter.embedder
    pieces = pieces_of(embedder, texts, chunk_len, max_chunks, seed)
    vectors = embedder.embed([embedder.tokens(piece) for piece in pieces])
    known = chunk_len if length_known else None
    found = inverter.invert(vectors, chunk_len=known, encodings=encodings, seed=seed, quiet=quiet)
    rows = [
        replace(
            row,
            original=piece,
            f1=f1(row.text, piece),
            exact=embedder.tokens(row.text) == embedder.tokens(piece),
            bleu=bleu(row.text, piece),
        )
        for row, piece in zip(found, pieces, strict=True)
    ]
    return summary(inverter, rows, chunk_len=chunk_len, encodings=encodings, seed=seed)


def summary(
    inverter: Inverter, rows: Sequence[InvertedText], *, chunk_len: int | None, encodings: int, seed: int
) -> InversionResult:
    """Means over texts, with their intervals."""
    values: dict[str, Any] = {
        name: np.array([float(getattr(row, each)) for row in rows])
        for name, each in _MEASURES.items()
        if getattr(rows[0], each) is not None
    }
    intervals: dict[str, Interval] = {
        name: ratio_interval(np.column_stack((value, np.ones(len(value)))))
        for name, value in values.items()
        if len(value) > 1
    }
    means: dict[str, Any] = {name: float(value.mean()) for name, value in values.items()}
    return InversionResult(
        encoder=inverter.embedder.name,
        num_texts=len(rows),
        chunk_len=chunk_len,
        **means,
        prepared_encodings=inverter.prepared_encodings,
        intervals=intervals,
        texts=tuple(rows),
        provenance=Provenance.here(encodings=encodings, seed=seed, language_model=inverter.language_model),
    )


def read_vectors(path: Path) -> np.ndarray:
    """The vectors [text dim] of a .npy file, which may be one, or of a .safetensors file with one matrix (or one named
    `vectors`).

    Raises:
        ValueError: there is no such file, it is of another kind, or holds something else.
    """
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give a file of vectors, .npy or .safetensors")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; give one of vectors, .npy or .safetensors")
    if path.suffix == ".npy":
        return _read_npy(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{str(path)!r} is neither .npy nor .safetensors; write the vectors as .npy with numpy.save")
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except Exception as error:  # whatever its parser raises
        raise ValueError(f"{str(path)!r} is no .safetensors file ({error})") from None
    named = {"vectors": tensors["vectors"]} if "vectors" in tensors else tensors
    matrices = [tensor for tensor in named.values() if tensor.ndim > 1 and tensor.is_floating_point()]
    if len(matrices) != 1:
        shapes = [f"{name} {list(each.shape)} ({str(each.dtype).partition('.')[2]})" for name, each in tensors.items()]
        raise ValueError(
            f"{str(path)!r} holds {', '.join(shapes) or 'nothing'}; give one matrix of vectors, or call it vectors"
        )
    return np.asarray(matrices[0].float().numpy())


def _read_npy(path: Path) -> np.ndarray:
    try:
        matrix = np.load(path, allow_pickle=False)
        is_real = np.can_cast(matrix.dtype, np.float64, "same_kind")
    except Exception:  # of what is text, objects or cut short; numpy would advise to unpickle it
        is_real = False
    if not is_real:
        raise ValueError(
            f"{str(path)!r} is no whole .npy file of real numbers; write a matrix [text dim] with numpy.save"
        )
    return np.atleast_2d(matrix.astype(np.float32))
