"""`memlm bench size`."""

import itertools
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.data.corpus import FileReader
from memlm.runtime.progress import Advance, track
from memlm.store.file import MemoryFile
from memlm.store.packing import BITS, Bits
from memlm.store.range_coder import STATE_BYTES
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.measuring import made_here
from memlm_evidence.benchmarks.memory_files import written
from memlm_evidence.benchmarks.size_compressors import (
    Compress,
    total_bytes,
    trained_dictionary,
    whole_compressors,
    zstd,
)
from memlm_evidence.benchmarks.size_tables import print_sizes
from memlm_evidence.benchmarks.size_texts import SAMPLES, Sample

_UNTRAINED_BITS: tuple[Bits, ...] = (8, 4)
"""Of a dimension, where a model is not trained for a number of bits that files can have."""
_BAD_BYTES = 16_384
BAD_INPUTS = {
    "nothing": b"",
    "one byte": b"a",
    "one byte, repeated": b"a" * _BAD_BYTES,
    "random ASCII": bytes(random.Random(0).choices(range(32, 127), k=_BAD_BYTES)),
    "random bytes": random.Random(0).randbytes(_BAD_BYTES),
}


@dataclass(frozen=True, kw_only=True)
class Size(UsesModel, ReadsText):
    """Compare the size of a memory file with its text compressed by gzip, brotli, or zstd with a dictionary.

    memlm bench size --json

    memlm bench size --text README.md 'docs/*.md'

    The compressors are measured in two ways: on the chunks of the memory file, so that each chunk can be read alone,
    and on the whole text. zstd's dictionary is trained on other text of the same kind. Its bytes are not counted, and
    neither are the model's weights. Needs brotli: pip install 'memlm[bench]'.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Text to measure on: files, globs, or - for standard input; by default a novel, addresses, made-up e-mail, code
    and docstrings."""

    def run(self) -> Answer:
        """Ratios are bytes over bytes of the text, in UTF-8. `memory_ratio` counts the whole file, at the number of
        bits where it is least; `memory_bare_ratio` only what compressors are counted by, without index and checksums.
        `whole` is each compressor on the text as one stream, `exact` whether the file gave back every byte.
        `no_memory_ratio`: the file without vectors, its tokens coded by how frequent they are in what the model was
        trained on. A memory is worth its bytes where `memory_ratio` is less. A model that is trained for some number
        of bits is measured at that, any other at 8 and 4.
        """
        compressors = whole_compressors()
        samples = list(self._samples())
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        all_bits = bits_of(model)
        total = sum(len(sample.text.encode()) for sample in samples) * len(all_bits)
        with tempfile.TemporaryDirectory() as name, track("Measuring sizes", total=total, unit="bytes") as advance:
            rows = [
                _row(model, all_bits, sample, compressors, Path(name, str(number)), advance)
                for number, sample in enumerate(samples)
            ]
            bad_input = [
                _bad(model, min(all_bits), data, Path(name, what)) | {"text": what} for what, data in BAD_INPUTS.items()
            ]
        answer = {
            "rows": rows,
            "bad_input": bad_input,
            "summary": _summary(rows),
            "model_bytes": sum(parameter.nbytes for parameter in model.model.parameters()),
            **made_here(model=model.provenance, encoder=model.encoder_fingerprint),
        }
        print_sizes(self.console(), answer)
        return answer

    def _samples(self) -> Iterator[Sample]:
        if not self.text:
            yield from (sample() for sample in SAMPLES)
        for name, pieces in FileReader(self.corpus(self.text)).whole_texts() if self.text else ():
            text = "".join(pieces)
            if not text:
                raise ValueError(f"{name} is empty: there is nothing that its size could be compared with")
            yield Sample(name, text)


def bits_of(model: TextAutoencoder) -> tuple[Bits, ...]:
    """Those that files of a model are measured at."""
    trained = model.config.shape.num_bits
    return tuple(bits for bits in BITS if bits == trained) or _UNTRAINED_BITS


def _row(
    model: TextAutoencoder,
    all_bits: Sequence[Bits],
    sample: Sample,
    compressors: Mapping[str, Compress],
    path: Path,
    advance: Advance,
) -> dict[str, Any]:
    """A text's file at every number of bits, and the smallest of them beside what compresses its chunks."""
    data, by_bits, files = sample.text.encode(), [], []
    for bits in all_bits:
        files.append(written(path.with_suffix(f".{bits}"), model, [sample.text], bits))
        by_bits.append(_stored(files[-1], data))
        advance(len(data), f"{sample.name}, {bits} bits")
    best, notes = min(zip(by_bits, files, strict=True), key=lambda pair: pair[0]["memory_ratio"])
    chunks = chunk_texts(notes, data)
    zstd_bytes, dictionary = with_dictionary(chunks, sample)
    sizes = {name: total_bytes(compress, chunks) for name, compress in compressors.items()}
    return {
        "text": sample.name,
        **best,
        **{f"{name}_ratio": size / len(data) for name, size in (sizes | {"zstd_dictionary": zstd_bytes}).items()},
        "no_memory_ratio": no_memory(notes, chunks) / len(data),
        "whole": {f"{name}_ratio": len(compress(data)) / len(data) for name, compress in compressors.items()},
        "dictionary": dictionary,
        "by_bits": by_bits,
        "num_bytes": len(data),
    }


def _stored(notes: MemoryFile, data: bytes) -> dict[str, Any]:
    """Where the bytes of a file go, per chunk, and whether it gives back the text, opened anew."""
    about = notes.summary()
    parts = {name: about[f"{name}_bytes"] for name in ("memory", "patch", "raw")}
    bare, count = sum(parts.values()), about["chunks"]
    again = MemoryFile.open(notes.path, notes.model).text()
    return {
        "bits": notes.about.bits,
        "memory_ratio": about["file_bytes"] / len(data),
        "memory_bare_ratio": bare / len(data),
        "memory_bytes_per_chunk": about["file_bytes"] / count,
        "vector_bytes_per_chunk": parts["memory"] / count,
        "patch_bytes_per_chunk": parts["patch"] / count,
        "raw_bytes_per_chunk": parts["raw"] / count,
        "other_bytes_per_chunk": (about["file_bytes"] - bare) / count,
        "text_bytes_per_chunk": len(data) / count,
        "chunks": count,
        "raw_chunks": about["raw_chunks"],
        "token_accuracy": about["fidelity"],
        "exact": again.encode() == data,
    }


def chunk_texts(notes: MemoryFile, data: bytes) -> list[bytes]:
    """The text of each chunk of a file."""
    ends = list(itertools.accumulate(chunk.num_bytes for chunk in notes.chunks))
    return [data[start:end] for start, end in itertools.pairwise([0, *ends])]


def with_dictionary(chunks: list[bytes], sample: Sample) -> tuple[int, dict[str, Any]]:
    """Bytes of chunks compressed by zstd with a dictionary that has not seen them, and what is known of it."""
    if sample.other:
        other, length = sample.other.encode(), max(1, sum(map(len, chunks)) // len(chunks))
        parts = [(chunks, [other[start : start + length] for start in range(0, len(other), length)])]
    else:
        first, second = chunks[: len(chunks) // 2], chunks[len(chunks) // 2 :]
        parts = [(first, second), (second, first)]
    dictionaries = [trained_dictionary(samples) for _, samples in parts]
    size = sum(total_bytes(zstd(one), part) for one, (part, _) in zip(dictionaries, parts, strict=True))
    return size, {
        "text": sample.other_name,
        "text_bytes": sum(len(piece) for _, samples in parts for piece in samples),
        "bytes": sum(len(one) for one in dictionaries if one is not None),
    }


def no_memory(notes: MemoryFile, chunks: Sequence[bytes]) -> float:
    """Bytes of a file that has no vectors, and codes tokens by their frequencies alone."""
    model, parts = notes.model, notes.summary()
    around = notes.file_bytes - sum(parts[f"{name}_bytes"] for name in ("memory", "patch", "raw"))
    nats = -model.unconditional.numpy()
    tokens = model.tokenizer.encode_batch([chunk.decode() for chunk in chunks])
    codes = (STATE_BYTES + math.ceil(float(nats[some].sum()) / math.log(256)) for some in tokens)
    return around + sum(codes)


def _bad(model: TextAutoencoder, bits: Bits, data: bytes, path: Path) -> dict[str, Any]:
    """Bytes that need not be text are read as latin-1, in which each is a character."""
    text = data.decode("latin-1")
    notes = written(path, model, [text], bits)
    return {
        "input_bytes": len(data),
        "utf8_bytes": len(text.encode()),
        "file_bytes": notes.file_bytes,
        "over_input": notes.file_bytes / len(data) - 1 if data else None,
        "raw_chunks": notes.summary()["raw_chunks"],
        "chunks": notes.num_chunks,
        "exact": MemoryFile.open(path, model).text().encode("latin-1") == data,
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The text that takes most beside zstd with a dictionary."""
    times = {row["text"]: row["memory_ratio"] / row["zstd_dictionary_ratio"] for row in rows}
    worst = max(times, key=lambda text: times[text])
    return {"worst": worst, "times_zstd_dictionary": times, "exact": all(row["exact"] for row in rows)}
