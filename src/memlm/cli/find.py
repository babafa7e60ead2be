"""`memlm find`: search in a file of memories."""

from dataclasses import dataclass

import tyro

from memlm.cli.command import Answer
from memlm.cli.memory import ReadsMemories, ranges
from memlm.runtime.wording import printable


@dataclass(frozen=True, kw_only=True)
class Find(ReadsMemories):
    """Search a memory file by meaning, and print what is found.

    memlm remember notes.txt -o notes.memory --model english-search

    memlm find notes.memory 'who pays for the repairs?'

    This needs a memory file whose model was trained for search, as english-search was. Each chunk found is printed on
    one line, with its similarity to the query (from -1 to 1) and its number. --json prints its exact text; so does
    memlm recall notes.memory --chunks 7:8 for chunk 7.
    """

    query: tyro.conf.Positional[str]
    """What to look for: words, a question or a sentence, at most one chunk long."""
    most: int = 5
    """Number of chunks to show, the most similar first."""

    def run(self) -> Answer:
        """Search, and show."""
        from memlm.store.store import DamagedChunkError

        notes, damage = self.open(), list[DamagedChunkError]()
        found = notes.find(self.query, self.most, on_damage=damage.append)
        damaged = [error.number for error in damage]
        if damaged:
            self.say(f"memlm: chunks {ranges(damaged)} of {notes.path} are damaged and were not searched", aside=True)
        for one in found:
            self.say(printable(f"{one.score:.3f}  {one.document or '(no name)'}, chunk {one.chunk}"))
            self.say(printable("    " + " ".join(one.text.split()) + "\n"))
        if not found:
            self.say(f"there is no text in {notes.path}", aside=True)
        return {"found": [one._asdict() for one in found], "damaged_chunks": damaged}
