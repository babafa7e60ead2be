"""The command that writes texts into a file of memories."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.cli.recall import fidelity_line


@dataclass(frozen=True, kw_only=True)
class Remember(UsesModel, ReadsText):
    """Write texts into a file of memories, one vector a chunk, each checked as it is made.

    memlm remember notes.txt 'chapters/*.txt' -o notes.memory

    What a vector does not give back is stored beside it, so that memlm recall writes the texts exactly, in UTF-8.
    """

    out_is_folder = False

    files: tyro.conf.Positional[tuple[str, ...]]
    """Files, globs, or - for standard input. Each is a document."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file of memories to make."""
    append: bool = False
    """Add to a file that exists, with its encoder and its bits."""
    model: str | None = None
    """An autoencoder that ships with memlm (english, the default), a checkpoint folder, or a Hugging Face hub name."""
    bits: Literal[32, 16, 8, 6, 4] | None = None
    """Of each dimension of a memory; by default 8."""
    target: float = 0.9
    """Chunks of which a vector gives back less than this share of tokens are made shorter."""

    def run(self) -> Answer:
        """Write it."""
        from memlm.data.corpus import FileReader
        from memlm.runtime.progress import track
        from memlm.store.file import MemoryFile

        if self.out.is_file() and not self.append:
            raise ValueError(f"{self.out} exists; append to it (--append), or choose another name")
        if not self.files:
            raise ValueError("nothing to remember: name files, or - for standard input")
        reader = FileReader(self.corpus(self.files))
        documents, before, begin = reader.whole_texts(), 0, time.monotonic()
        with track("Remembering", total=reader.num_bytes, unit="bytes") as advance:
            if self.append:
                notes = MemoryFile.open(self.out, self.model, device=self.device)
                if self.bits not in (None, notes.about.bits):
                    raise ValueError(f"{self.out} keeps {notes.about.bits} bits, not {self.bits}; leave out --bits")
                before = notes.num_chunks
                notes.append_all(documents, target=self.target, advance=advance)
            else:
                how = {"bits": self.bits or 8, "target": self.target, "device": self.device, "advance": advance}
                notes = MemoryFile.create(self.out, self.model or "english", documents, **how)  # type: ignore[arg-type]
        seconds = time.monotonic() - begin
        num_bytes = sum(chunk.num_bytes for chunk in notes.chunks[before:])
        answer = notes.summary() | {
            "added_chunks": notes.num_chunks - before,
            "mb_per_second": num_bytes / 1e6 / seconds,
        }
        self.say(
            f"{fidelity_line(answer)}, {answer['exact_chunks']} of {answer['chunks']} chunks are exact; "
            f"{answer['file_bytes']} bytes for {answer['text_bytes']} of text"
        )
        return answer
