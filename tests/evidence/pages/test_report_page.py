import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlm.runtime.tables import Table
from memlm_evidence.pages.figures import Figure
from memlm_evidence.pages.page import Format, Page, environment

VOID = {"meta", "br", "path", "use"}
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=30) | st.sampled_from(
    [
        "</script>",
        "]]>",
        "<!--",
        '" onload="x',
        "$title",
        "\x1b[31m",
        "\r\n",
        "\ud800",
        "`*_~|#",
        "\u202e",
        "&lt;",
        "{}",
    ]
)
SVG = '<svg viewBox="0 0 9 9"><defs><path id="a" d="M0 0"/></defs><use href="#a"/><g clip-path="url(#a)"/></svg>'


class Reader(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and what a reader sees or hears."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if ("role", "img") in attrs:
            self.said.append(dict(attrs)["aria-label"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"svg", "style", "head"} & set(self.open):
            self.said.append(data)


TEMPLATE = """
{% extends base %}
{% set title %}{{ text }}{% endset %}
{% set lead = text %}
{% block main %}
{% call m.section(text) %}
{{ m.p(text) }}
{% call m.p() %}Some {{ text }} inside.{% endcall %}
{{ m.key_numbers([(text, other)]) }}
{{ m.definitions([(other, text)]) }}
{% call m.terms() %}{% call m.term(text) %}It is {{ text }}.{% endcall %}{% endcall %}
{{ m.made_by([(text, other)]) }}
{{ m.table(table) }}
{{ m.figure(figure) }}
{{ m.figure(again) }}
{{ m.regenerated(sample) }}
{% endcall %}
{% endblock %}
"""


class Everything(Page):
    """A page of all that pages are made of."""

    def _render(self, kind: Format) -> str:
        return environment(kind).from_string(TEMPLATE).render(self.data)


def page_of(text: str, other: str = "other") -> Page:
    data = {
        "text": text,
        "other": other,
        "table": Table([text, "n"], [[text, "1.00"], [f"a\n{text}", other]], text),
        "figure": Figure(SVG, text, text),
        "again": Figure(SVG, "again"),
        "sample": sample(text, [(text, text), (text, other), (other, text), ("", text), (text, "")]),
    }
    return Everything("", data)


def sample(name: str, pieces: list[tuple[str, str]]) -> dict[str, Any]:
    return {"document": name, "pieces": pieces}


PLAIN = Reader(page_of("plain").to_html())


@given(any_text)
def test_any_text_is_escaped_and_the_page_stays_whole(text: str) -> None:
    page = page_of(text).to_html()
    read = Reader(page)
    assert set(read.tags) <= set(PLAIN.tags)
    assert {name for name, _ in read.attributes} <= {name for name, _ in PLAIN.attributes}
    page.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


@given(any_text)
def test_markdown_keeps_text_from_being_markup(text: str) -> None:
    written = page_of(text).to_markdown()
    written.encode("utf-8")
    tags = re.findall(r"(?<!\\)<[^>]*>?", written)
    assert set(tags) <= {"<br>", "<del>", "</del>", "<ins>", "</ins>"}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)


@given(any_text, any_text)
def test_a_right_text_is_said_unchanged(text: str, name: str) -> None:
    shown = "".join(Reader(page_of(text, name).to_html()).said)
    if text.isprintable():
        assert text in shown


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@given(st.text("ab c1.<&*_|\n", max_size=20))
def test_markdown_says_what_html_says(text: str) -> None:
    page = page_of(text)
    markdown = re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)</?(?:br|del|ins)>", " ", page.to_markdown()))
    markdown = re.sub(r"\| --.*\|", "", markdown)
    html = Reader(page.to_html())
    assert sorted(words("".join(markdown))) == sorted(words(" ".join(html.said)))


def test_the_page_needs_nothing_else() -> None:
    targets = [value or "" for name, value in PLAIN.attributes if name in {"src", "href", "xlink:href"}]
    assert all(target.startswith("#") for target in targets)
    page = page_of("plain").to_html()
    assert "@import" not in page
    assert "url(http" not in page
    assert "default-src 'none'" in page


def test_it_is_made_for_light_dark_paper_and_ears() -> None:
    page = page_of("plain").to_html()
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert '<html lang="en">' in page
    assert 'role="img" aria-label="plain"' in page
    assert "line-through" in page
    assert "underline" in page


def test_the_same_drawing_twice_keeps_its_names_apart() -> None:
    names = [value for name, value in PLAIN.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert {f"#{name}" for name in names} >= {value for name, value in PLAIN.attributes if name == "href"}


def test_a_common_space_stays_outside_the_marks() -> None:
    page = page_of("x")
    wrong = sample("name", [("of", "of"), (" the", " a"), ("\n", "  ")])
    for kept in (
        Everything("", {**page.data, "sample": wrong}).to_html(),
        Everything("", {**page.data, "sample": wrong}).to_markdown(),
    ):
        assert "of <del>a</del> <ins>the</ins><del>␣␣</del><ins>↵</ins>" in kept
        assert "wrong in 2 places" in kept


def test_a_row_must_fit_its_header() -> None:
    with pytest.raises(ValueError, match="2 cells, its header 1"):
        Table(["one"], [["1", "2"]])
