"""The command that writes the text of a file of memories."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from memlm.cli.command import Answer, FlawError, UsesModel

if TYPE_CHECKING:
    from memlm.store.file import MemoryFile

_LONG_BYTES = 1_000_000
"""Of text that is worth a progress bar."""


@dataclass(frozen=True, kw_only=True)
class ReadsMemories(UsesModel):
    """What every command has that reads a file of memories."""

    file: tyro.conf.Positional[Path]
    """What memlm remember has made."""
    model: str | None = None
    """The encoder, if it is no longer where the file says."""

    def open(self) -> "MemoryFile":
        """The file."""
        from memlm.store.file import MemoryFile

        return MemoryFile.open(self.file, self.model, device=self.device)


@dataclass(frozen=True, kw_only=True)
class Recall(ReadsMemories):
    """Write the text of a file of memories to standard output, byte for byte, and nothing else.

    memlm recall notes.memory --chunks 10:20

    A damaged chunk is an error, unless damaged ones are skipped.
    """

    chunks: str = ":"
    """Which chunks, as 10:20, 10: or :20; of the rest nothing is read."""
    vectors_only: bool = False
    """Only what the vectors give back, without patches and without what is stored as raw text."""
    skip_damaged: bool = False
    """Write all that is whole; if chunks are damaged, name them on standard error, with exit code 2."""

    def run(self) -> Answer:
        """Write it."""
        from memlm.runtime.progress import track
        from memlm.store.store import DamagedChunkError

        notes = self.open()
        if notes.torn_bytes:
            self.say(f"memlm: {torn(notes)}", aside=True)
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
        return answer


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
    return f"{counts['fidelity']:.4f} of the tokens come back from the vectors alone"


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
