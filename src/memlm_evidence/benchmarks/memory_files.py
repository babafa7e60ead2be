"""`memlm bench memory`."""

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.data.texts import evaluation_documents
from memlm.models.exact import has_exact_form
from memlm.models.exact_fused import load_kernels
from memlm.runtime.cpu import has_int8, precision_on
from memlm.store.file import MemoryFile
from memlm.store.packing import Bits
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.footprint import flop_counter
from memlm_evidence.benchmarks.measuring import Benchmark, made_here, operation_shares, seconds_of, side_by_side

ROUNDS = 5
ALL_BITS: tuple[Bits, ...] = (32, 16, 8, 6, 4)
MANY_CHUNKS = 10_000
SIDE = 1024
"""Rows and columns of large matrices."""


@dataclass(frozen=True, kw_only=True)
class MemoryFiles(Benchmark, UsesModel, ReadsText):
    """Measure how fast memlm remember and recall are, how much of it is matrix products, and what rounding costs.

    memlm bench memory --json

    memlm bench memory runs/mine/model --text README.md
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Text to measure on: files, globs, or - for standard input; by default a novel that comes with memlm."""

    def run(self) -> Answer:
        """Speed in `mb_per_s` of text (10⁶ bytes), medians over rounds in turn: of encoding, with its
        `matrix_product_share`, of regenerating, and from text to file and back. `limit_ratio` is that speed over what
        matrix products alone would allow, at the rates of large ones (`operations_per_second`, of the same rounds).
        `random_access_ratio` is seconds to read all of a file of many chunks over those for its last; `by_bits` what
        files of each number of bits hold.
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
            products = large_products(model.device)
            if find_spec("numba"):
                load_kernels()  # as the thousandth chunk would do
            seconds = side_by_side({**work, **products}, ROUNDS)
            rates = {name: 2 * SIDE**3 / seconds.pop(name) for name in products}
            limits = limit_seconds(model, texts, rates)
            shares = operation_shares(work["encode"])
            return {
                "mb_per_s": {name: num_bytes / 1e6 / spent for name, spent in seconds.items()},
                "limit_ratio": {name: limits[name] / spent for name, spent in seconds.items()},
                "operations_per_second": rates,
                "matrix_product_share": shares["matrix products"],
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


def large_products(device: torch.device) -> dict[str, Callable[[], object]]:
    """A product of two large matrices, of each type of numbers that models multiply here."""
    numbers = torch.randn(SIDE, SIDE, device=device)
    work: dict[str, Callable[[], object]] = {"fp32": lambda: numbers @ numbers.mT}
    if precision_on(device) == "bf16":
        halves = numbers.bfloat16()
        work["bf16"] = lambda: halves @ halves.mT
    if has_int8(device.type):
        whole = numbers.mul(30).to(torch.int8)
        work["int8"] = lambda: torch._int_mm(whole, whole.mT)
    return work


def limit_seconds(model: TextAutoencoder, texts: Sequence[str], rates: Mapping[str, float]) -> dict[str, float]:
    """What the matrix products of each kind of work would take at these rates, and nothing else."""
    shape, autoencoder = model.config.shape, model.model
    num_chunks = len(model.encode(texts).vectors)
    tokens = torch.zeros(1, shape.chunk_len, dtype=torch.long, device=model.device)
    memory = torch.zeros(1, shape.num_slots, model.config.vector_dim, device=model.device)
    flops = {}
    for name, compute in {
        "encode": lambda: autoencoder.encoder(tokens, tokens == 0),
        "decode": lambda: autoencoder.decoder(memory),
    }.items():
        with torch.no_grad(), flop_counter() as counter:
            compute()  # type: ignore[no-untyped-call]
        flops[name] = num_chunks * counter.get_total_flops()
    encode, half = (flops["encode"] / rates[precision] for precision in ("fp32", precision_on(model.device)))
    in_int8 = "int8" in rates and has_exact_form(model.config)
    exact = flops["decode"] / rates["int8" if in_int8 else "fp32"]
    guess = exact if in_int8 else flops["decode"] / rates[precision_on(model.device)]
    return {"encode": encode, "regenerate": guess + encode, "remember": half + exact, "recall": exact}


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
