"""Blocks → HTML. Every text is escaped here and nowhere else."""

import re
from collections.abc import Iterable
from html import escape

from memlm.runtime.wording import marked, printable
from memlm_evidence.pages.blocks import Block, Definitions, Figure, KeyNumbers, Prose, RegeneratedText, Table

_NUMERIC = re.compile(r"[<>≤≥~±−+-]?\d[\d,.]*%?(\s.*)?|—", re.DOTALL)
_REFERENCE = re.compile(r"""(\bid="|href="#|url\(#)""")


def escaped(text: str) -> str:
    """Text as HTML text or attribute value."""
    return escape(printable(text))


def block(part: Block, name: str) -> str:
    """One block; `name` is unique on the page and keeps a figure's own names apart."""
    match part:
        case Prose():
            return "\n".join(f"<p>{escaped(paragraph)}</p>" for paragraph in part.paragraphs)
        case KeyNumbers():
            pairs = (f"<div><dt>{escaped(what)}</dt><dd>{escaped(value)}</dd></div>" for value, what in part.items)
            return _element("dl", "key-numbers", pairs)
        case Definitions():
            pairs = (f"<div><dt>{escaped(term)}</dt><dd>{escaped(what)}</dd></div>" for term, what in part.items)
            return _element("dl", "definitions", pairs)
        case Table():
            return _table(part)
        case Figure():
            return _figure(part, name)
        case RegeneratedText():
            return _regenerated(part)


def _element(tag: str, css_class: str, content: Iterable[str]) -> str:
    return "\n".join((f'<{tag} class="{css_class}">', *content, f"</{tag}>"))


def _table(table: Table) -> str:
    columns = [[row[index] for row in table.rows] for index in range(len(table.header))]
    kinds = [' class="number"' if _is_numeric(column) else "" for column in columns]
    titles = zip(kinds, table.header, strict=True)
    head = "".join(f'<th scope="col"{kind}>{escaped(title)}</th>' for kind, title in titles)
    lines = (
        f"<figcaption>{escaped(table.caption)}</figcaption>" if table.caption else "",
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(table.caption or "Table")}">',
        f"<table><thead><tr>{head}</tr></thead>",
        "<tbody>",
        *(_row(row, kinds) for row in table.rows),
        "</tbody></table></div>",
    )
    return _element("figure", "table", filter(None, lines))


def _is_numeric(column: Iterable[str]) -> bool:
    return all(_NUMERIC.fullmatch(cell) for cell in column)


def _row(row: Iterable[str], kinds: Iterable[str]) -> str:
    cells = list(zip(kinds, row, strict=True))
    first = "".join(f'<th scope="row"{kind}>{_cell(cell)}</th>' for kind, cell in cells[:1])
    return f"<tr>{first}{''.join(f'<td{kind}>{_cell(cell)}</td>' for kind, cell in cells[1:])}</tr>"


def _cell(text: str) -> str:
    main, _, below = text.partition("\n")
    return escaped(main) + (f" <small>{escaped(below)}</small>" if below else "")


def _figure(figure: Figure, name: str) -> str:
    svg = re.sub("<[^>]*>", lambda tag: _REFERENCE.sub(rf"\g<1>{name}-", tag[0]), figure.svg)
    caption = f"<figcaption>{escaped(figure.caption)}</figcaption>" if figure.caption else ""
    return f'<figure><div class="plot" role="img" aria-label="{escaped(figure.alt)}">{svg}</div>{caption}</figure>'


def _regenerated(text: RegeneratedText) -> str:
    caption = f"<figcaption><b>{escaped(text.name)}</b> <span>{escaped(text.verdict)}</span></figcaption>"
    pieces = "".join(_piece(*piece) for piece in text.pieces)
    return f'<figure class="regenerated">{caption}<blockquote>{pieces}</blockquote></figure>'


def _piece(original: str, regenerated: str) -> str:
    if original == regenerated:
        return escaped(original)
    space, wrong, right = marked(original, regenerated)
    parts = (f"<del>{escape(wrong)}</del>" if wrong else "", f"<ins>{escape(right)}</ins>" if right else "")
    return space + space.join(filter(None, parts))
