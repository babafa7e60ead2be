"""How much of a file of memories is what, and how much its vectors hold."""

from collections.abc import Mapping
from typing import Any

from memlm.store.file import MemoryFile


def summary(notes: MemoryFile) -> dict[str, Any]:
    """Counts of chunks by kind, bytes of each part, and `fidelity`, the share of all tokens that vectors give back.

    There is no fidelity to no text: then it is None.
    """
    chunks = notes.chunks
    num_tokens = sum(chunk.num_tokens for chunk in chunks)
    num_vectors = sum(chunk.kind != "raw" for chunk in chunks)
    return {
        "chunks": len(chunks),
        "fidelity": 1 - sum(chunk.num_wrong for chunk in chunks) / num_tokens if num_tokens else None,
        "exact_chunks": sum(chunk.is_exact for chunk in chunks),
        "patched_chunks": sum(chunk.kind == "patched" for chunk in chunks),
        "raw_chunks": len(chunks) - num_vectors,
        "text_bytes": sum(chunk.num_bytes for chunk in chunks),
        "memory_bytes": num_vectors * notes.vector_bytes,
        "patch_bytes": sum(chunk.payload_bytes for chunk in chunks if chunk.kind == "patched"),
        "raw_bytes": sum(chunk.payload_bytes for chunk in chunks if chunk.kind == "raw"),
        "file_bytes": notes.file_bytes,
    }


def fidelity_line(counts: Mapping[str, Any]) -> str:
    """The fidelity of a `summary`, in words."""
    if counts["fidelity"] is None:
        return "there is no text to remember"
    return f"{counts['fidelity']:.4f} of the tokens come back from the vectors alone"
