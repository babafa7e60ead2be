"""Pages: a Jinja template and what it shows, as one self-contained HTML file or as GitHub-flavoured Markdown.

A template, in `templates/` or beside a module that makes a page, is written once for both formats: its macros
(`m.table`, `m.figure`, ...) are those of `macros.html.jinja` or of `macros.md.jinja`. What it prints is escaped, and
control characters are made visible.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from memlm.runtime import wording
from memlm.runtime.files import atomic_write
from memlm.runtime.results import Provenance, Result
from memlm.runtime.tables import REPORTED, Table, measure, present
from memlm.runtime.wording import human, printable, quantity
from memlm_evidence.pages.figures import Figure

Format = Literal["html", "md"]
_FILTERS = ("duration", "human", "in_words", "percent", "quantity", "verdict")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&#$])")
_STARTS_BLOCK = re.compile(r"^(\s*\d*)([-+=]|(?<=\d)[.)](?=\s|$))")
_NUMERIC = re.compile(r"[<>≤≥~±−+-]?\d[\d,.]*%?(\s.*)?|—", re.DOTALL)
_REFERENCE = re.compile(r"""(\bid="|href="#|url\(#)""")


@dataclass(frozen=True)
class Section:
    """Part of a page: under a title a paragraph, figures, a table, what terms mean, and regenerated passages."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    table: Table | None = None
    terms: Sequence[tuple[str, str]] = ()
    passages: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Page:
    """A template and the values that it shows."""

    template: str
    """Its path in `templates/` or in the package, without its ending."""
    data: Mapping[str, Any]

    @staticmethod
    def of(*sections: Section) -> "Page":
        """Sections one after the other, as a part of another page."""
        return Page("sections", {"sections": sections})

    def to_html(self) -> str:
        """One HTML file that needs nothing else: light and dark, phone and paper."""
        figures = count(1)
        page = self._render("html")
        return re.sub("<svg.*?</svg>", lambda svg: _own_names(svg[0], next(figures)), page, flags=re.DOTALL)

    def to_markdown(self) -> str:
        """The same content as GitHub-flavoured Markdown, with figures described in words."""
        lines = "\n".join(line.strip() for line in self._render("md").splitlines())
        return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"

    def write(self, folder: Path) -> Path:
        """Write `report.html` into a folder, whole or not at all, and return its path."""
        path = folder / "report.html"
        atomic_write(path, self.to_html())
        return path

    def _render(self, kind: Format) -> str:
        return environment(kind).get_template(f"{self.template}.jinja").render(self.data)


def markdown_escaped(text: str) -> str:
    """Text on one line, without meaning to Markdown."""
    return _STARTS_BLOCK.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", printable(text)).replace("\n", "<br>"))


@cache
def environment(kind: Format) -> Environment:
    """The templates' environment for a format."""
    plain = printable if kind == "html" else lambda text: Markup(markdown_escaped(text))
    made = Environment(
        loader=ChoiceLoader([PackageLoader("memlm_evidence.pages"), PackageLoader("memlm_evidence", "")]),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(str(value)),
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {name: getattr(wording, name) for name in _FILTERS} | {"trusted": Markup}
    made.filters["one_line"] = lambda text: type(text)(" ".join(text.split()))  # what is escaped already stays so
    made.filters["rendered"] = lambda page: Markup(made.get_template(f"{page.template}.jinja").render(page.data))
    made.globals |= {"base": f"base.{kind}.jinja", "marked": wording.marked, "measure": measure}
    made.globals["number_columns"] = lambda table: [
        all(_NUMERIC.fullmatch(row[place]) for row in table.rows) for place in range(len(table.header))
    ]
    made.globals["m"] = made.get_template(f"macros.{kind}.jinja").module
    return made


def _own_names(svg: str, number: int) -> str:
    """A figure whose own names are no other figure's."""
    return re.sub("<[^>]*>", lambda tag: _REFERENCE.sub(rf"\g<1>figure-{number}-", tag[0]), svg)


Pairs = list[tuple[str, str]]


def meanings(results: Sequence[Result]) -> Pairs:
    """What the measures that these results have mean."""
    shown = map(measure, present(results, REPORTED))
    return [(each.header, each.meaning) for each in shown if each.meaning]


def made_by(made: Provenance | None, speed: float | None = None) -> Pairs:
    """What made some numbers, and at how many tokens/s of training; nothing where it is not known."""
    if made is None:
        return []
    rate = [("training speed", f"{quantity(speed)} tokens/s")] if speed is not None else []
    return [
        ("memlm", f"{made.memlm}, commit {made.commit}" if made.commit else made.memlm),
        ("torch, Python", f"{made.torch}, {made.python}"),
        ("machine", f"{made.machine}, {made.num_threads} {'thread' if made.num_threads == 1 else 'threads'}"),
        *((human(name), _said(value)) for name, value in made.settings.items()),
        *rate,
    ]


def flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings as one list, so that each can be read on its own line."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, "" if name == "config" else f"{prefix}{name}: ")
        else:
            yield prefix + name, value


def _said(value: object) -> str:
    return f"{value:,}" if type(value) is int else value if type(value) is str else json.dumps(value)
