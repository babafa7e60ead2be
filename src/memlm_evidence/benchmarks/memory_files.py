"""`memlm bench memory`."""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.data.texts import evaluation_documents
from memlm.store.file import MemoryFile
from memlm.store.packing import Bits
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.measuring import Benchmark, made_here, operation_shares, seconds_of, side_by_side

ROUNDS = 5
ALL_BITS: tuple[Bits, ...] = (32, 16, 8, 6, 4)
MANY_CHUNKS = 10_000


@dataclass(frozen=True, kw_only=True)
class MemoryFiles(Benchmark, UsesModel, ReadsText):
    """How fast text is remembered and recalled, how much of that is matrix products, and what rounding memories costs.

    memlm bench memory --json

    memlm bench memory runs/mine/model --text README.md
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input; without any, a novel that comes with memlm."""

    def run(self) -> Answer:
        """Speed in `mb_per_second` of text (10⁶ bytes), medians over rounds in turn: of the encoder and of the decoder
        alone, with their `matrix_product_share`, and from text to file and back; `random_access_ratio`, seconds to read
        all of a file of many chunks over those for its last; `by_bits`, what files of each number of bits hold.
        """
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        texts = self.documents(self.text) if self.text else [each.text for each in evaluation_documents("novel")]
        num_bytes = sum(len(text.encode()) for text in texts)
        memory, numbers = model.encode(texts), itertools.count()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            notes = written(folder / "bench.memory", model, texts, 8)
            work = {
                "encode": lambda: model.encode(texts),
                "regenerate": lambda: model.regenerate(memory),
                "remember": lambda: written(folder / f"{next(numbers)}.memory", model, texts, 8),
                "recall": notes.text,
            }
            seconds = side_by_side(work, ROUNDS)
            shares = {name: operation_shares(work[name]) for name in ("encode", "regenerate")}
            return {
                "mb_per_second": {name: num_bytes / 1e6 / spent for name, spent in seconds.items()},
                "matrix_product_share": {name: share["matrix products"] for name, share in shares.items()},
                "operation_shares": shares,
                "by_bits": [_row(folder / f"{bits}-bits.memory", model, texts, bits) for bits in ALL_BITS],
                "num_bytes": num_bytes,
                **_random_access(notes),
                **made_here(model=model.provenance, encoder=model.encoder_fingerprint),
            }


def written(path: Path, model: TextAutoencoder, texts: Sequence[str], bits: Bits) -> MemoryFile:
    """A new file of these texts."""
    documents = [(f"text {number}", text) for number, text in enumerate(texts)]
    return MemoryFile.create(path, model, documents, bits=bits)


def _row(path: Path, model: TextAutoencoder, texts: Sequence[str], bits: Bits) -> dict[str, Any]:
    """What a file holds of its texts, and takes."""
    notes = written(path, model, texts, bits)
    assert notes.text() == "".join(texts)
    about = notes.summary()
    return {
        "bits": bits,
        "token_accuracy": about["fidelity"],
        "exact_chunks": about["exact_chunks"] / about["chunks"],
        "chunks": about["chunks"],
        "patch_bytes": about["patch_bytes"],
        "file_bytes": about["file_bytes"],
        "bits_per_character": 8 * about["file_bytes"] / sum(map(len, texts)),
    }


def _random_access(notes: MemoryFile) -> dict[str, Any]:
    """The last chunk of many, in a file that was just opened."""
    while notes.num_chunks < MANY_CHUNKS:
        notes.extend(notes)

    def read_last() -> None:
        MemoryFile.open(notes.path, notes.model).text(notes.num_chunks - 1)

    last = median(seconds_of(read_last) for _ in range(ROUNDS))
    return {
        "random_access_ratio": seconds_of(notes.text) / last,
        "random_access_seconds": last,
        "random_access_chunks": notes.num_chunks,
    }
