"""The command that goes on from memories."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.cli.recall import chunk_range

if TYPE_CHECKING:
    from memlm.text.memory import Memory


@dataclass(frozen=True, kw_only=True)
class Generate(UsesModel, ReadsText):
    """Go on from a prompt, with past text read as one vector a chunk.

    memlm generate runs/memory/model --memory address.txt --prompt 'My fellow citizens,' --max-new-tokens 200

    memlm generate runs/memory/model --memory notes.memory --chunks 10:20
    """

    model: tyro.conf.Positional[str]
    """A memory model: a checkpoint folder, or a Hugging Face hub name."""
    prompt: str = ""
    """Text to go on from."""
    memory: tuple[str, ...] = ()
    """Files (globs, or - for standard input) of the text before it, which is read as memories; or one that memlm
    remember has made with this model's encoder, whose vectors are read as they are."""
    chunks: str = ":"
    """Which chunks of a file of memories, as 10:20, 10: or :20; the model reads the last of them."""
    max_new_tokens: int = 100
    temperature: float = 0.8
    """0 always takes the likeliest token."""
    top_p: float = 0.95
    """Draw among the likeliest tokens that have this probability together."""
    seed: int = 0

    def run(self) -> Answer:
        """Generate and show."""
        import torch

        from memlm.text.memory_model import TextMemoryModel

        model = TextMemoryModel.from_pretrained(self.model, device=self.device)
        past, told = self._past(model.config.max_memories)
        torch.manual_seed(self.seed)
        drawn = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        options = drawn if self.temperature else {"do_sample": False}
        text = model.generate(self.prompt, past=past, max_new_tokens=self.max_new_tokens, **options)
        self.say(self.prompt + text)
        return {"prompt": self.prompt, "text": text, **told}

    def _past(self, most: int) -> "tuple[str | Memory, Answer]":
        """What stands before the prompt, `most` memories of it, and what there is to say of it."""
        from memlm.store.file import MemoryFile
        from memlm.store.store import DamagedChunkError, file_version

        files = [path for path in map(Path, self.memory) if path.is_file() and file_version(path)]
        if not files:
            if self.chunks != ":":
                raise ValueError("--chunks is of a file of memories, and --memory names none")
            past = "".join(self.documents(self.memory)) if self.memory else ""
            return past, {"past_bytes": len(past.encode())}
        if len(self.memory) > 1:
            raise ValueError(f"{files[0]} is a file of memories: give it alone")
        notes = MemoryFile.open(files[0])
        start, stop = chunk_range(self.chunks, notes.num_chunks)
        kinds = [chunk.kind for chunk in notes.chunks[start:stop]]
        with_memory = [number for number, kind in enumerate(kinds, start) if kind in ("exact", "patched")]
        try:
            memory = notes.memories(with_memory[-most] if len(with_memory) > most else start, stop)
        except DamagedChunkError as error:
            raise ValueError(f"{error.where} is {error.why}; give --chunks without it") from None
        if raw := kinds.count("raw"):
            self.say(f"{raw} of {len(kinds)} chunks are raw text: they have no memory, and are not read", aside=True)
        return memory, {"past_chunks": len(with_memory), "raw_chunks": raw}
