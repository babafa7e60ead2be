"""A page: a title, a lead and sections of blocks, as one self-contained HTML file or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from memlm.runtime.files import atomic_write
from memlm_evidence.pages import html, markdown
from memlm_evidence.pages.blocks import Block, Prose


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs (separated by an empty line) and blocks."""

    title: str
    text: str = ""
    blocks: Sequence[Block] = ()

    @property
    def content(self) -> tuple[Block, ...]:
        """The text and the blocks, in reading order."""
        return (Prose(self.text), *self.blocks)


@dataclass(frozen=True)
class Page:
    """What a report says, whatever it is about."""

    title: str
    lead: str
    sections: Sequence[Section]

    def to_html(self) -> str:
        """One HTML file that needs nothing else: light and dark, phone and paper."""
        sections = "\n".join(_html_section(index, section) for index, section in enumerate(self.sections, 1))
        return Template(_resource("page.html")).substitute(
            title=html.escaped(self.title),
            style=_resource("page.css"),
            lead=html.block(Prose(self.lead), "lead"),
            sections=sections,
        )

    def write(self, folder: Path) -> Path:
        """Write `report.html` into a folder, whole or not at all, and return its path."""
        path = folder / "report.html"
        atomic_write(path, self.to_html())
        return path

    def to_markdown(self) -> str:
        """The same content as GitHub-flavoured Markdown; a figure is told in words."""
        parts = [f"# {markdown.escaped(self.title)}", markdown.block(Prose(self.lead))]
        for section in self.sections:
            parts += [f"## {markdown.escaped(section.title)}", *map(markdown.block, section.content)]
        return "\n\n".join(filter(None, parts)) + "\n"


def _html_section(index: int, section: Section) -> str:
    name = f"section-{index}"
    blocks = (html.block(block, f"{name}-{place}") for place, block in enumerate(section.content))
    heading = f'<h2 id="{name}">{html.escaped(section.title)}</h2>'
    return "\n".join(filter(None, (f'<section aria-labelledby="{name}">', heading, *blocks, "</section>")))


def _resource(name: str) -> str:
    return resources.files("memlm_evidence.pages").joinpath(name).read_text(encoding="utf-8")
