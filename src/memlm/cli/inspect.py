"""The command that shows what a file of memories holds."""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from memlm.cli.command import Answer, FlawError
from memlm.cli.recall import ReadsMemories, fidelity_line, ranges, torn
from memlm.runtime.wording import counted

if TYPE_CHECKING:
    from memlm.store.file import MemoryFile

_BINS, _BAR = 10, 40


@dataclass(frozen=True, kw_only=True)
class Inspect(ReadsMemories):
    """Show what a file of memories holds, how much of it its vectors alone give back, and whether it is whole.

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
        self.say(f"encoder {answer['encoder']} ({answer['fingerprint']}), {answer['bits']} bits a dimension")
        self.say(f"{counted(answer['chunks'], 'chunk')} of {counted(len(answer['documents']), 'document')}")
        self.say(fidelity_line(answer))
        for fidelity, count in answer["fidelity_histogram"].items():
            bar = "█" * -(-_BAR * count // max(1, answer["chunks"]))
            self.say(f"  fidelity {fidelity:<10} {count:>7} chunks {bar}".rstrip())
        self.say("bytes: " + ", ".join(f"{name} {answer[f'{name}_bytes']}" for name in ("memory", "patch", "raw")))
        if answer.get("bits_per_character"):
            shares = (f"{name} {bits:.2f}" for name, bits in answer["bits_per_character"].items())
            self.say("bits a character: " + ", ".join(shares))
        for span in answer["spans"]:
            size = "" if span["kind"] == "lost" else f", {span['payload_bytes']} bytes"
            self.say(f"  chunks {span['start_chunk']}:{span['stop_chunk']} {span['kind']}{size}")
        if answer["damaged_chunks"]:
            self.say(f"DAMAGED: chunks {ranges(answer['damaged_chunks'])}; the others can be read")


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
    """Neighbouring chunks that needed the same, a patch or raw text, or that are lost."""
    start = 0
    for kind, group in groupby(notes.chunks, key=lambda chunk: chunk.kind):
        sizes = [chunk.payload_bytes for chunk in group]
        stop = start + len(sizes)
        if kind != "exact":
            yield {"start_chunk": start, "stop_chunk": stop, "kind": kind, "payload_bytes": sum(sizes)}
        start = stop
