"""Files of memories: how fast text is written and read, what bounds that, and what rounding costs."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from memlm.data.texts import evaluation_documents
from memlm.runtime.results import Provenance
from memlm.store.file import MemoryFile
from memlm.store.packing import Bits
from memlm.store.summary import summary
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.steps import operation_shares, timed

ROUNDS = 5
ALL_BITS: tuple[Bits, ...] = (32, 16, 8, 6, 4)
MANY_CHUNKS = 10_000


def memory_files(model: TextAutoencoder, texts: Sequence[str] = ()) -> dict[str, Any]:
    """Measure on some texts; on a novel that comes with memlm, without any.

    Returns:
        `mb_per_second` of text (10⁶ bytes), medians over rounds in turn: of the encoder alone and of the decoder alone,
        of `remember` and `recall` from text to file and back; `matrix_product_share` of the time of the first two, with
        what else takes it in `operation_shares`; `random_access_ratio`, seconds to read all of a file of 10,000 chunks
        over those for its last; `by_bits`, what files of each number of bits keep and take.
    """
    texts = [*texts] or [document.text for document in evaluation_documents("novel")]
    work = _Work(model, texts)
    with tempfile.TemporaryDirectory() as folder:
        notes = work.written(Path(folder) / "bench.memory", 8)
        numbers = itertools.count()
        jobs: dict[str, Callable[[], object]] = {
            "encode": work.encode,
            "regenerate": work.regenerate,
            "remember": lambda: work.written(Path(folder) / f"{next(numbers)}.memory", 8),
            "recall": notes.text,
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(ROUNDS):
            for name, job in jobs.items():
                seconds[name].append(timed(job)[1])
        shares = {name: operation_shares(jobs[name]) for name in ("encode", "regenerate")}
        return {
            "mb_per_second": {name: work.num_bytes / 1e6 / median(taken) for name, taken in seconds.items()},
            "matrix_product_share": {name: share["matrix products"] for name, share in shares.items()},
            "operation_shares": shares,
            "by_bits": [_row(work, bits, Path(folder) / f"{bits}-bits.memory") for bits in ALL_BITS],
            "num_bytes": work.num_bytes,
            **_random_access(notes),
            "provenance": asdict(Provenance.here(model=model.provenance, encoder=model.encoder_fingerprint)),
        }


class _Work:
    """A model, the texts, and their memories."""

    def __init__(self, model: TextAutoencoder, texts: Sequence[str]) -> None:
        self.model, self.texts = model, texts
        self.num_bytes = sum(len(text.encode()) for text in texts)
        self.num_characters = sum(map(len, texts))
        self.memory = model.encode(texts)

    def encode(self) -> None:
        self.model.encode(self.texts)

    def regenerate(self) -> None:
        self.model.regenerate(self.memory)

    def written(self, path: Path, bits: Bits) -> MemoryFile:
        documents = [(f"text {number}", text) for number, text in enumerate(self.texts)]
        return MemoryFile.create(path, self.model, documents, bits=bits)


def _row(work: _Work, bits: Bits, path: Path) -> dict[str, Any]:
    notes = work.written(path, bits)
    assert notes.text() == "".join(work.texts)
    kept = summary(notes)
    return {
        "bits": bits,
        "token_accuracy": kept["fidelity"],
        "exact_chunks": kept["exact_chunks"] / kept["chunks"],
        "chunks": kept["chunks"],
        "patch_bytes": kept["patch_bytes"],
        "file_bytes": kept["file_bytes"],
        "bits_per_character": 8 * kept["file_bytes"] / work.num_characters,
    }


def _random_access(notes: MemoryFile) -> dict[str, Any]:
    """The last chunk of many, in a file that was just opened."""
    while notes.num_chunks < MANY_CHUNKS:
        notes.extend(notes)
    last = [
        timed(lambda: MemoryFile.open(notes.path, notes.model).text(notes.num_chunks - 1))[1] for _ in range(ROUNDS)
    ]
    _, everything = timed(notes.text)
    return {
        "random_access_ratio": everything / median(last),
        "random_access_seconds": median(last),
        "random_access_chunks": notes.num_chunks,
    }
