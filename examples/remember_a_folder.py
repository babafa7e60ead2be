"""Keep a folder's text files as vectors in one memory file, and read one line back without reading the rest.

Takes about ten seconds for memlm's own documentation. For other files:

    python examples/remember_a_folder.py notes --pattern '*.txt' --out notes.memory --document today.txt
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import memlm

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write the memory file if it is not there yet; then show one line of one document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS, help="folder with text files in UTF-8")
    parser.add_argument("--pattern", default="**/*.md", help="which of its files")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/folder.memory"), help="the memory file; opened if it exists"
    )
    parser.add_argument("--document", default="theory.md", help="the file to recall a line of")
    parser.add_argument("--line", type=int, default=3, help="its number, from 1")
    args = parser.parse_args()

    if not args.out.exists():
        args.out.parent.mkdir(parents=True, exist_ok=True)
        texts = {
            str(path.relative_to(args.folder)): path.read_text("utf-8") for path in files(args.folder, args.pattern)
        }
        memlm.MemoryFile.create(args.out, "english", texts).close()
    with memlm.MemoryFile.open(args.out) as memory:
        exact = sum(chunk.is_exact for chunk in memory.chunks)
        print(f"{args.out}: {len(memory)} documents in {memory.num_chunks} chunks, {exact} exact from the vector alone")
        line, chunks_read = recall_line(memory, args.document, args.line)
        print(f"{args.document}:{args.line}: {line}")
        print(f"read {chunks_read} of {memory.num_chunks} chunks")


def files(folder: Path, pattern: str) -> Iterator[Path]:
    """The folder's files, in order."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise SystemExit(f"no file in {folder} matches {pattern}")
    yield from found


def recall_line(memory: memlm.MemoryFile, name: str, line: int) -> tuple[str, int]:
    """A line of a document, and how many chunks were decoded to find it: those up to the line, and no more."""
    document = next((one for one in memory.documents if one.name == name), None)
    if document is None:
        raise SystemExit(f"{memory.path} has no document {name}; it has {', '.join(memory)}")
    text, chunk = "", document.start_chunk
    while text.count("\n") < line and chunk < document.stop_chunk:
        text += memory.text(chunk, chunk + 1)
        chunk += 1
    lines = text.split("\n")
    if line > len(lines):
        raise SystemExit(f"{name} has {len(lines)} lines, not {line}")
    return lines[line - 1], chunk - document.start_chunk


if __name__ == "__main__":
    main()
