"""The commands of files of memories: `memlm remember`, `memlm recall` and `memlm inspect`."""

import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from memlm.cli.command import Answer, Command, FlawError, ReadsText, UsesModel
from memlm.data.corpus import FileReader
from memlm.runtime.progress import track
from memlm.runtime.wording import counted, printable

if TYPE_CHECKING:
    from memlm.store.file import MemoryFile
    from memlm.text.memory import Memory

_LONG_BYTES = 1_000_000
"""Of text that is worth a progress bar."""
_BINS, _BAR = 10, 40


@dataclass(frozen=True, kw_only=True)
class Remember(UsesModel, ReadsText):
    """Write texts into a memory file, one vector per chunk, each checked as it is written.

    memlm remember notes.txt 'chapters/*.txt' -o notes.memory

    A patch beside each vector stores what the vector misses, so memlm recall writes the texts exactly, in UTF-8.
    """

    out_is_folder = False

    files: tyro.conf.Positional[tuple[str, ...]]
    """The texts: files, globs, or - for standard input. Each file becomes one document."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The memory file to write."""
    append: bool = False
    """Append to an existing memory file, with its encoder and its bits."""
    model: str | None = None
    """An autoencoder that ships with memlm (english, the default), a checkpoint folder, or a Hugging Face hub name."""
    bits: Literal[32, 16, 8, 6, 4, 3, 2, 1] | None = None
    """Bits per dimension of a memory. By default the number that the model was trained for, else 8. english is not
    trained for fewer than 4: with fewer, its files grow."""
    target: float | None = None
    """The share of a chunk's tokens that its vector must give back; otherwise the chunk is cut into shorter ones. By
    default 0.9. With the bits that the model was trained for there is none by default: chunks stay whole, and the file
    becomes as small as possible."""

    def run(self) -> Answer:
        """Write it."""
        from memlm.store.file import MemoryFile

        if self.out.is_file() and not self.append:
            raise ValueError(f"{self.out} exists; append to it (--append), or choose another name")
        if not self.files:
            raise ValueError("nothing to remember: name files, or - for standard input")
        reader = FileReader(self.corpus(self.files))
        reader.require_text()
        documents, begin = reader.whole_texts(), time.monotonic()
        before = {"chunks": 0, "text_bytes": 0}
        with track("Remembering", total=reader.num_bytes, unit="bytes") as advance:
            if self.append:
                notes = MemoryFile.open(self.out, self.model, device=self.device)
                if self.bits not in (None, notes.about.bits):
                    raise ValueError(f"{self.out} keeps {notes.about.bits} bits, not {self.bits}; leave out --bits")
                before = notes.summary()
                notes.append_all(documents, target=self.target, advance=advance)
            else:
                how = {"bits": self.bits, "target": self.target, "device": self.device, "advance": advance}
                notes = MemoryFile.create(self.out, self.model or "english", documents, **how)  # type: ignore[arg-type]
        seconds = time.monotonic() - begin
        answer = notes.summary()
        answer["added_chunks"] = answer["chunks"] - before["chunks"]
        answer["mb_per_second"] = (answer["text_bytes"] - before["text_bytes"]) / 1e6 / seconds
        self.say(
            f"{fidelity_line(answer)}; "
            f"the file has {answer['file_bytes']} bytes for {answer['text_bytes']} bytes of text"
        )
        return answer


@dataclass(frozen=True, kw_only=True)
class ReadsMemories(UsesModel):
    """What every command has that reads a file of memories."""

    file: tyro.conf.Positional[Path]
    """A memory file that memlm remember wrote."""
    model: str | None = None
    """The encoder, needed only if it is no longer where the memory file says."""

    def open(self) -> "MemoryFile":
        """The file."""
        from memlm.store.file import MemoryFile

        return MemoryFile.open(self.file, self.model, device=self.device)


@dataclass(frozen=True, kw_only=True)
class Recall(ReadsMemories):
    """Write the text of a memory file to standard output, byte for byte.

    memlm recall notes.memory --chunks 10:20

    A damaged chunk is an error, unless you give --skip-damaged. If the end of the file is missing, the rest is written,
    with exit code 2.
    """

    chunks: str = ":"
    """Which chunks to write, as 10:20, 10: or :20. Nothing else is read."""
    vectors_only: bool = False
    """Write only what the vectors give back, without patches and without chunks stored as raw text."""
    skip_damaged: bool = False
    """Write all undamaged chunks. If there are damaged ones, name them on standard error, with exit code 2."""

    def run(self) -> Answer:
        """Write it."""
        from memlm.store.store import DamagedChunkError

        notes = self.open()
        start, stop = chunk_range(self.chunks, notes.num_chunks)
        total = sum(chunk.num_bytes for chunk in notes.chunks[start:stop])
        num_bytes, damage = 0, list[DamagedChunkError]()
        pieces = notes.vectors_only if self.vectors_only else notes.pieces
        out = sys.stderr.buffer if self.json else sys.stdout.buffer
        # A bar is of use where the text itself does not show how far it is.
        quiet = total < _LONG_BYTES or self.json or sys.stdout.isatty()
        with track("Recalling", total=total, unit="bytes", quiet=quiet) as advance:
            try:
                for piece in pieces(start, stop, on_damage=damage.append if self.skip_damaged else None):
                    num_bytes += out.write(piece)
                    advance(len(piece))
            except DamagedChunkError as error:
                raise ValueError(f"{error.where} is {error.why}; --skip-damaged writes the others") from None
        out.flush()
        answer = {"chunks": [start, stop], "bytes": num_bytes, "damaged_chunks": [error.number for error in damage]}
        if damage:
            reasons = dict.fromkeys(error.why for error in damage)
            numbers = {why: ranges([error.number for error in damage if error.why == why]) for why in reasons}
            told = "; ".join(f"chunks {some} are {why}" for why, some in numbers.items())
            raise FlawError(f"{notes.path}: {told}; the others are written", answer)
        if notes.torn_bytes:
            raise FlawError(f"{torn(notes)}; what stands before is written", answer)
        return answer


@dataclass(frozen=True, kw_only=True)
class Inspect(ReadsMemories):
    """Show what a memory file holds, how much the vectors alone give back, and whether it is whole.

    memlm inspect notes.memory
    """

    def run(self) -> Answer:
        """Read all of it, and show."""
        notes = self.open()
        damaged = notes.damaged()
        try:
            compared = {} if damaged else _compared(notes)
        except ValueError as error:  # all else can be told without the text
            self.say(f"sizes are not compared with those of the text: {error}", aside=True)
            compared = {}
        answer = notes.summary() | {
            **compared,
            "damaged_chunks": damaged,
            "torn_bytes": notes.torn_bytes,
            "encoder": notes.about.encoder,
            "fingerprint": notes.about.fingerprint,
            "bits": notes.about.bits,
            "documents": [document._asdict() for document in notes.documents],
            "fidelity_histogram": _histogram(notes),
            "spans": list(_spans(notes)),
        }
        self._show(answer)
        if damaged:
            raise FlawError(
                f"{notes.path}: {len(damaged)} of {answer['chunks']} chunks are damaged: {ranges(damaged)}; "
                "memlm recall --skip-damaged writes the others",
                answer,
            )
        if notes.torn_bytes:
            raise FlawError(torn(notes), answer)
        return answer

    def _show(self, answer: dict[str, Any]) -> None:
        encoder = printable(f"encoder {answer['encoder']} ({answer['fingerprint']})")
        self.say(f"{encoder}, {answer['bits']} bits per dimension")
        self.say(f"{counted(answer['chunks'], 'chunk')} of {counted(len(answer['documents']), 'document')}")
        self.say(fidelity_line(answer))
        for fidelity, count in answer["fidelity_histogram"].items():
            bar = "█" * -(-_BAR * count // max(1, answer["chunks"]))
            self.say(f"  fidelity {fidelity:<10} {count:>7} chunks {bar}".rstrip())
        self.say("bytes: " + ", ".join(f"{name} {answer[f'{name}_bytes']}" for name in ("memory", "patch", "raw")))
        if answer.get("bits_per_character"):
            shares = (f"{name} {bits:.2f}" for name, bits in answer["bits_per_character"].items())
            self.say("bits per character: " + ", ".join(shares))
        for span in answer["spans"]:
            size = "" if span["kind"] == "lost" else f", {span['payload_bytes']} bytes"
            self.say(f"  chunks {span['start_chunk']}:{span['stop_chunk']} {span['kind']}{size}")
        if answer["damaged_chunks"]:
            self.say(f"DAMAGED: chunks {ranges(answer['damaged_chunks'])}; the others can be read")


def torn(notes: "MemoryFile") -> str:
    """Says that a file does not end as it should."""
    return (
        f"{notes.path}: its last {notes.torn_bytes} bytes are of an append that did not finish, or the file was cut "
        "short there; they are not read, and the next append removes them"
    )


def fidelity_line(counts: Mapping[str, Any]) -> str:
    """The fidelity of a `MemoryFile.summary`, in words."""
    if counts["fidelity"] is None:
        return "there is no text to remember"
    if not counts["memory_bytes"]:
        return "all of it is stored as compressed text: there are no vectors"
    share, exact = f"{counts['fidelity']:.4f}", f"{counts['exact_chunks']} of {counts['chunks']}"
    return f"{share} of the tokens come back from the vectors alone, {exact} chunks exactly"


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, as `--chunks` names them: `3, 7:12`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return ", ".join(f"{start}:{stop}" if stop > start + 1 else str(start) for start, stop in found)


def chunk_range(chunks: str, num_chunks: int) -> tuple[int, int]:
    """What `10:20`, `10:` and `:20` mean.

    Raises:
        ValueError: it is none of these.
    """
    start, colon, stop = chunks.partition(":")
    if not colon or not all(end.isdecimal() or not end for end in (start, stop)):
        raise ValueError(f"--chunks {chunks!r} is no range; write 10:20, 10: or :20")
    return int(start or 0), int(stop) if stop else num_chunks


def memories_of(command: Command, path: Path, chunks: str, most: int = sys.maxsize) -> "tuple[Memory, Answer]":
    """The last memories, at most so many, of a range of a file's chunks; and how many there are. Raw chunks have none.

    Raises:
        ValueError: the range is none, or a chunk of it is damaged.
    """
    from memlm.store.file import MemoryFile
    from memlm.store.store import DamagedChunkError

    notes = MemoryFile.open(path)
    start, stop = chunk_range(chunks, notes.num_chunks)
    kinds = [chunk.kind for chunk in notes.chunks[start:stop]]
    with_memory = [number for number, kind in enumerate(kinds, start) if kind in ("exact", "patched")]
    try:
        memory = notes.memories(with_memory[-most] if len(with_memory) > most else start, stop)
    except DamagedChunkError as error:
        raise ValueError(f"{error.where} is {error.why}; give --chunks without it") from None
    if raw := kinds.count("raw"):
        command.say(f"{raw} of {len(kinds)} chunks are raw text: they have no memory and are not read", aside=True)
    return memory, {"past_chunks": len(with_memory), "raw_chunks": raw}


def _compared(notes: "MemoryFile") -> dict[str, Any]:
    """What the whole file takes beside the text itself, and the text compressed as one stream."""
    import zstandard

    packers: dict[str, Any] = {
        "gzip": zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS + 16),  # gzip's own format
        "zstd": zstandard.ZstdCompressor(level=19).compressobj(),
    }
    sizes, num_characters = Counter[str](), 0
    for piece in notes.pieces():
        sizes["text"] += len(piece)
        num_characters += len(piece.decode())
        for name, packer in packers.items():
            sizes[name] += len(packer.compress(piece))
    for name, packer in packers.items():
        sizes[name] += len(packer.flush())
    sizes["file"] = notes.file_bytes
    return {
        "gzip_bytes": sizes["gzip"],
        "zstd_bytes": sizes["zstd"],
        "bits_per_character": {name: 8 * sizes[name] / num_characters for name in ("file", "text", "gzip", "zstd")}
        if num_characters
        else None,
    }


def _histogram(notes: "MemoryFile") -> dict[str, int]:
    """Chunks by what their vectors give back: exactly 1 apart, the rest in tenths."""
    places = Counter(
        -1 if chunk.is_exact else int(chunk.fidelity * _BINS) for chunk in notes.chunks if chunk.kind != "lost"
    )
    bins = {f"{place / _BINS:.1f} to {(place + 1) / _BINS:.1f}": places[place] for place in reversed(range(_BINS))}
    return {"1": places[-1], **bins}


def _spans(notes: "MemoryFile") -> Iterator[dict[str, Any]]:
    """Neighbouring chunks of one kind."""
    start = 0
    for kind, group in groupby(notes.chunks, key=lambda chunk: chunk.kind):
        sizes = [chunk.payload_bytes for chunk in group]
        stop = start + len(sizes)
        yield {"start_chunk": start, "stop_chunk": stop, "kind": kind, "payload_bytes": sum(sizes)}
        start = stop
