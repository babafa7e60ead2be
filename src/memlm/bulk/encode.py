"""A corpus encoded: part by part, in this process or by Ray's actors; what is finished is not done again."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa

from memlm.bulk.destination import DESTINATIONS, Counts, Destination, Format
from memlm.bulk.rows import COLUMNS, MEMORY, TEXT, About, Dtype, about_memories, sign_size
from memlm.bulk.source import Part, Source
from memlm.data.documents import Document, in_batches, split_document
from memlm.runtime.cpu import one_thread
from memlm.runtime.extras import extra
from memlm.runtime.progress import track
from memlm.runtime.wording import counted
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Memory
from memlm.text.model import default_device

_BATCH_BYTES = 1 << 20
"""Text that is held, tokenized and encoded at once, roughly; a longer document is cut there."""
_VERSION = 1
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be encoded, and how: all that a worker needs to know."""

    source: Source
    folder: Path
    format: Format
    encoder: str
    """What `memlm.load` takes."""
    device: str
    about: About
    text: bool
    """Whether chunks' texts are kept."""
    precision: Precision = "fp32"
    """Of matrix products."""

    @classmethod
    def of(
        cls,
        source: Source,
        folder: Path,
        *,
        encoder: str,
        format: Format = "parquet",
        dtype: Dtype | None = None,
        text: bool = False,
        device: str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Look at the encoder.

        Raises:
            ValueError: there is none of this name; it cannot be stored as `dtype`; Lance is wanted and not installed.
        """
        if format == "lance":
            extra("lance", "--format lance")
        model = TextAutoencoder.from_pretrained(encoder, device="cpu")
        memory = model.encode(["a"])
        signs = sign_size(memory) if model.config.shape.num_bits == 1 else None
        return cls(
            source=source,
            folder=folder.resolve(),
            format=format,
            encoder=model.source,
            device=device or default_device(),
            about=about_memories(memory, model.source, dtype, signs=signs),
            text=text,
            precision=precision,
        )

    @property
    def destination(self) -> Destination:
        """Where it goes."""
        return DESTINATIONS[self.format](self.folder)

    @property
    def schema(self) -> pa.Schema:
        """Of its rows."""
        return self.about.schema([*COLUMNS, *([TEXT] if self.text else [])])

    def plan(self, parts: list[Part]) -> dict[str, Any]:
        """What tells this run from others; not where its encoder is, nor who does it."""
        return {
            "version": _VERSION,
            "encoder": self.about.fingerprint,
            "part_bytes": self.source.part_bytes,
            "source": self.source.digest(parts),
            "format": self.format,
            "dtype": self.about.dtype,
            "text": self.text,
            "num_parts": len(parts),
            "precision": self.precision,
        }


class PartEncoder:
    """Encodes parts, each as a function of itself alone: on one thread of a CPU, so that sums have one order."""

    def __init__(self, job: Job) -> None:
        self.job, self.destination = job, job.destination

    @cached_property
    def model(self) -> TextAutoencoder:
        """The encoder.

        Raises:
            ValueError: it is another by now.
        """
        model = TextAutoencoder.from_pretrained(self.job.encoder, device=self.job.device)
        if model.encoder_fingerprint != self.job.about.fingerprint:
            raise ValueError(f"{self.job.encoder} is another encoder here than where the run was begun")
        return model

    def __call__(self, part: Part) -> Counts:
        """Encode a part, and write it."""
        with one_thread():
            return self.destination.write(part.number, self.job.schema, self._tables(part))

    def _tables(self, part: Part) -> Iterator[tuple[pa.Table, Counts]]:
        chunks, bad = dict[str, int](), Counts()

        def skipped(line: str) -> None:
            nonlocal bad
            bad = bad.plus(Counts(bad_lines=1, first_bad_line=line))

        pieces = (
            piece._replace(name=document.name)
            for document in self.job.source.documents(part, skipped)
            for piece in split_document(document, _BATCH_BYTES)
        )
        for some in in_batches(pieces, _BATCH_BYTES):
            yield self._table(some, chunks)
        yield self.job.schema.empty_table(), bad

    def _table(self, documents: list[Document], chunks: dict[str, int]) -> tuple[pa.Table, Counts]:
        """The rows of some documents; `chunks` says how many of the last document's came before."""
        tokens = self.model.tokenizer.encode_batch([document.text for document in documents])
        memory: Memory = self.model.encode_tokens([ids.tolist() for ids in tokens], precision=self.job.precision)
        names, numbers, new = list[str](), list[int](), 0
        for document, count in zip(documents, memory.num_chunks, strict=True):
            begin = chunks.get(document.name, 0)
            new += begin == 0
            names += [document.name] * count
            numbers += range(begin, begin + count)
            chunks.clear()
            chunks[document.name] = begin + count
        columns: dict[str, Any] = {"document": names, "chunk": numbers, "num_tokens": memory.num_tokens.numpy()}
        if self.job.text:
            columns["text"] = self._texts(tokens)
        columns[MEMORY] = self.job.about.column(memory.numpy().reshape(len(names), -1))
        counts = Counts(new, len(names), int(memory.num_tokens.sum()), sum(each.num_bytes for each in documents))
        return pa.table(columns, schema=self.job.schema), counts

    def _texts(self, tokens: list[Any]) -> list[str]:
        """The text of each chunk."""
        length, tokenizer = self.model.config.shape.chunk_len, self.model.tokenizer
        return [
            text
            for ids in tokens
            for text in tokenizer.decode_pieces([ids[begin : begin + length] for begin in range(0, len(ids), length)])
        ]


Finished = Generator[tuple[Part, Counts]]
Workers = Callable[[Job, list[Part]], Finished]
"""Who encodes parts: gives each that is finished, in any order."""


def in_this_process(job: Job, parts: list[Part]) -> Finished:
    """One part after another."""
    encode = PartEncoder(job)
    return ((part, encode(part)) for part in parts)


def encode_corpus(job: Job, workers: Workers = in_this_process) -> dict[str, Any]:
    """Encode what is not encoded yet, and tell how much there is.

    Raises:
        ValueError: a file is damaged, or has no text column; the folder holds another run; a text cannot be read, and
            is no line to skip; no document holds any text.
        OSError: the disk is full or not writable. What was finished before is kept, and not done again.
    """
    parts = job.source.parts()
    if not parts:
        raise ValueError("there is no text to encode: all files are empty")
    destination = job.destination
    with destination.begin(job.plan(parts)):
        done = {part.number: counts for part in parts if (counts := destination.counts(part.number)) is not None}
        before, left = len(done), [part for part in parts if part.number not in done]
        num_bytes = sum(part.num_bytes for part in parts)
        finished = num_bytes - sum(part.num_bytes for part in left)
        with (
            closing(workers(job, left)) as work,
            track("Encoding", total=num_bytes, unit="bytes", completed=finished) as advance,
        ):
            for part, counts in work:
                done[part.number] = counts
                advance(part.num_bytes)
        total = reduce(Counts.plus, (counts for _, counts in sorted(done.items())), Counts())
        if not total.documents:
            bad = f"; {counted(total.bad_lines, 'bad line')}, the first: {total.first_bad_line}"
            raise ValueError(f"there is no text to encode in any document{bad if total.bad_lines else ''}")
        destination.sweep()
        destination.complete(len(parts), job.schema)
    return {**total._asdict(), "parts": len(parts), "parts_before": before, "row_bytes": job.about.row_bytes}
