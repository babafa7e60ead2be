"""Blocks → GitHub-flavoured Markdown."""

import re
from collections.abc import Iterable

from memlm.runtime.wording import marked, printable
from memlm_evidence.pages.blocks import Block, Definitions, Figure, KeyNumbers, Prose, RegeneratedText, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#$])")
_STARTS_BLOCK = re.compile(r"^(\d*)([-+=]|(?<=\d)[.)](?=\s|$))")


def escaped(text: str) -> str:
    """Text on one line, without meaning to Markdown."""
    text = _SPECIAL.sub(r"\\\1", printable(text)).replace("\n", "<br>").strip()
    return _STARTS_BLOCK.sub(r"\1\\\2", text)


def block(part: Block) -> str:
    """One block."""
    match part:
        case Prose():
            return "\n\n".join(map(escaped, part.paragraphs))
        case KeyNumbers() | Definitions():
            return "\n".join(f"- **{escaped(term)}**: {escaped(what)}" for term, what in part.items)
        case Table():
            return _table(part)
        case Figure():
            return "\n\n".join(f"*{escaped(text)}*" for text in (part.alt, part.caption) if text)
        case RegeneratedText():
            pieces = "".join(_piece(*piece) for piece in part.pieces)
            return f"**{escaped(part.name)}** {escaped(part.verdict)}\n\n> {pieces}"


def _table(table: Table) -> str:
    rule = ["---", *("---:" for _ in table.header[1:])]
    rows = [_row(table.header), f"| {' | '.join(rule)} |", *map(_row, table.rows)]
    return "\n\n".join(filter(None, (escaped(table.caption), "\n".join(rows))))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def _piece(original: str, regenerated: str) -> str:
    if original == regenerated:
        return _inline(printable(original))
    space, wrong, right = marked(original, regenerated)
    parts = (f"<del>{_inline(wrong)}</del>" if wrong else "", f"<ins>{_inline(right)}</ins>" if right else "")
    return space + space.join(filter(None, parts))


def _inline(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "<br>")
