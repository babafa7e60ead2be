"""The tab with a book in memory: remembered, searched, opened, and asked about."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from memlm.app import shown
from memlm.app.answers import Answer, Answers, ask
from memlm.app.book import SAMPLE, Book, Hit, Opened, is_memory_file, opened, remember, sample, whole_sample
from memlm.app.explorer import Explorer
from memlm.app.files import text_of
from memlm.app.jobs import Progress, StoppedError, followed
from memlm.app.picture import drawn, picture

_REMEMBERING, _ASKING = "remembering", "asking"
_QUERY, _QUESTION = "vanity of person", "Who was Sir Walter Elliot?"
_RATIOS = {"as few as fit (4 or more)": None, "2": 2, "4": 4, "8": 8, "16": 16, "one position a memory": 0}
_CHUNKS = 24
_MOST_CHUNKS = 256
_CLICKED = """element.addEventListener("click", event => {
  const hit = event.target.closest("button");
  if (hit) trigger("click", { chunk: +hit.dataset.chunk });
});"""
_LEAD = (
    "A file of memories holds one vector for each chunk of a text, each checked when it is written. Any chunk comes "
    "back from its vector, and a language model reads the vectors in place of the text."
)


class BookTab:
    """The components, and what happens when they change."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.first = sample(explorer)
        hits = self.first.search(_QUERY)
        opened = self.first.open(hits[0].chunk if hits else 0)
        gr.HTML(shown.lead(_LEAD))
        self.book = gr.State(self.first, time_to_live=None)
        with gr.Row(elem_classes="bench"):
            with gr.Column(scale=5, min_width=320):
                self._build_file()
                self._build_search(hits)
            with gr.Column(scale=6, min_width=320):
                self._build_chunk(opened)
        gr.HTML(shown.heading("Ask it"))
        self._build_question()
        self._connect()

    def _build_file(self) -> None:
        self.file = gr.File(
            label="A book: a file of text, or of memories", height=92, type="filepath", elem_id="book-file"
        )
        with gr.Row():
            self.whole = gr.Button(
                f"Take {SAMPLE} ({shown.size(len(whole_sample()))})", size="sm", elem_id="book-sample"
            )
            self.halt = gr.Button("Stop", size="sm", interactive=False, elem_id="book-stop")
        self.state = gr.HTML(_facts(self.first), elem_id="book-state")

    def _build_search(self, hits: Sequence[Hit]) -> None:
        self.query = gr.Textbox(
            _QUERY, label="Search", max_lines=1, elem_id="book-query", placeholder="words in the book"
        )
        self.hits = gr.HTML(_listed(hits), js_on_load=_CLICKED, elem_id="book-hits")

    def _build_chunk(self, first: Opened) -> None:
        self.number = gr.Number(first.chunk, label=_numbered(self.first), precision=0, minimum=0, elem_id="book-chunk")
        self.picture = picture(_pictured(first), editable=False, elem_id="book-picture")
        self.chunk = gr.HTML(_chunk(first), elem_id="book-text")

    def _build_question(self) -> None:
        with gr.Row(elem_classes="bench"):
            self.question = gr.Textbox(_QUESTION, label="Question", max_lines=2, scale=5, elem_id="book-question")
            self.ratio = gr.Dropdown(
                list(_RATIOS),
                value=next(iter(_RATIOS)),
                label="Tokens that share a position",
                scale=3,
                elem_id="book-ratio",
            )
            self.chunks = gr.Slider(
                1, _MOST_CHUNKS, _CHUNKS, step=1, label="Chunks to read", scale=3, elem_id="book-chunks", buttons=[]
            )
        with gr.Row():
            self.go = gr.Button("Ask", variant="primary", elem_id="book-ask")
            self.quiet = gr.Button("Stop", interactive=False, elem_id="book-ask-stop")
        self.asked = gr.HTML(shown.note(_about_reader(self.explorer)), elem_id="book-asked")
        self.answers = gr.HTML(elem_id="book-answers")

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shown_chunk = [self.picture, self.chunk]
        made = [self.book, self.state, self.number, self.hits, *shown_chunk, self.whole, self.halt]
        self.file.upload(self._dropped, [self.file, self.book, self.query], made, **private)
        self.whole.click(self._sampled, [self.book, self.query], made, **private)
        self.halt.click(self._stop_remembering, None, None, queue=False, **private)
        live: dict[str, Any] = {**private, "trigger_mode": "always_last"}
        self.query.change(self._searched, [self.book, self.query], self.hits, **live)
        self.hits.click(self._chosen, None, self.number, **private)
        self.number.change(self._open, [self.book, self.number], shown_chunk, **live)
        asked = [self.book, self.question, self.chunks, self.ratio]
        told = [self.asked, self.answers, self.go, self.quiet]
        gr.on([self.go.click, self.question.submit], self._ask, asked, told, concurrency_limit=1, **private)
        self.quiet.click(self._stop_asking, None, None, queue=False, **private)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _dropped(self, path: str, before: Book, query: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """A file becomes a book."""

        def work() -> Book:
            file = Path(path)
            return (
                opened(self.explorer, file)
                if is_memory_file(file)
                else remember(self.explorer, file.name, text_of(file))
            )

        yield from self._made(work, before, query, request)

    def _sampled(self, before: Book, query: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        yield from self._made(lambda: remember(self.explorer, SAMPLE, whole_sample()), before, query, request)

    def _made(
        self, work: Callable[[], Book], before: Book, query: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """A book, with progress while it is made; where that fails, the one before stays."""
        stop = self.explorer.jobs.begin(request.session_hash, _REMEMBERING)
        busy, idle = ([gr.update(interactive=each) for each in pair] for pair in ((False, True), (True, False)))
        same = [gr.skip()] * 4
        try:
            for now in followed(lambda stop: work(), stop, "Reading the file"):
                if isinstance(now, Progress):
                    yield gr.skip(), shown.progress(now), *same, *busy
                    continue
                book: Book = now.value
                number, hits = gr.update(value=0, label=_numbered(book)), _listed(book.search(query), query)
                yield book, _facts(book), number, hits, *self._open(book, 0), *idle
        except StoppedError:
            yield gr.skip(), shown.note("Stopped; nothing was kept of it.") + _facts(before), *same, *idle
        except (ValueError, OSError) as error:
            yield gr.skip(), shown.error(error) + _facts(before), *same, *idle

    def _searched(self, book: Book, query: str) -> str:
        return _listed(book.search(query), query)

    def _chosen(self, event: gr.EventData) -> Any:
        return gr.update(value=event.chunk)

    def _open(self, book: Book, number: float | None) -> tuple[dict[str, Any], str]:
        """A chunk, from its vector."""
        if not book.texts:
            return drawn(None, ""), shown.note("The book is empty: it has no chunk.", "empty")
        try:
            found = book.open(min(int(number or 0), len(book.texts) - 1))
        except ValueError as error:
            return drawn(None, ""), shown.error(error)
        return _pictured(found), _chunk(found)

    def _ask(
        self, book: Book, question: str, chunks: float, ratio: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Two answers, as they are written."""
        stop = self.explorer.jobs.begin(request.session_hash, _ASKING)
        told = Answers(Answer(), Answer())
        busy, idle = ([gr.update(interactive=each) for each in pair] for pair in ((False, True), (True, False)))
        work = partial(ask, self.explorer, book, question, int(chunks), _RATIOS[ratio], told)
        try:
            for now in followed(work, stop, "Loading the reader"):
                if isinstance(now, Progress):
                    yield shown.progress(now._replace(title=_doing(told))), _answered(told), *busy
            yield "", _answered(told), *idle
        except StoppedError:
            yield shown.note("Stopped."), _answered(told), *idle
        except (ValueError, OSError) as error:
            yield shown.error(error), "", *idle

    def _stop_remembering(self, request: gr.Request) -> None:
        self.explorer.jobs.stop(request.session_hash, _REMEMBERING)

    def _stop_asking(self, request: gr.Request) -> None:
        self.explorer.jobs.stop(request.session_hash, _ASKING)


def _numbered(book: Book) -> str:
    return f"Chunk, from 0 to {max(0, len(book.texts) - 1):,}"


def _facts(book: Book) -> str:
    """What there is to say of a book."""
    counts, about = book.notes.summary(), book.notes.about
    fidelity = "none" if counts["fidelity"] is None else f"{counts['fidelity']:.2%}"
    title = f"<h3>{escape(book.name)}</h3>"
    return title + shown.figures(
        [
            ("text", shown.size(counts["text_bytes"]), f"remembered in {shown.duration(book.seconds)}"),
            ("chunks", f"{counts['chunks']:,}", f"{counts['exact_chunks']:,} exact from their vectors alone"),
            ("file", shown.size(counts["file_bytes"]), f"{about.bits} bits a dimension"),
            ("tokens", fidelity, "come back from vectors alone"),
        ]
    )


def _listed(hits: Sequence[Hit], query: str = "") -> str:
    """Buttons that open chunks."""
    if not hits:
        return shown.note(
            "No chunk has any of these words." if query.strip() else "Write words to search for.", "empty"
        )
    rows = "".join(
        f'<li><button type="button" data-chunk="{hit.chunk}"><span>chunk {hit.chunk}</span>'
        f"{shown.marked(hit.excerpt, hit.spans)}</button></li>"
        for hit in hits
    )
    return f'<ol class="hits" aria-label="Chunks that were found">{rows}</ol>'


def _pictured(found: Opened) -> dict[str, Any]:
    return drawn(found.memory.vectors[0] if len(found.memory.vectors) else None, str(found.chunk))


def _chunk(found: Opened) -> str:
    """The text of a chunk, and how good it is."""
    if found.back is None:
        told = "<b>Kept as text</b>: its vector would have given back too little, so that the file has none for it."
        return shown.note(told, "poor") + shown.text(found.exact, name="The chunk")
    took = f"decoded from {found.memory.vectors[0].numel()} dimensions in {shown.duration(found.seconds)}"
    if found.back == found.exact:
        verdict = shown.note(f"<b>Exact</b>, from its vector alone; {took}.", "good")
    else:
        share, patch = f"{found.about.fidelity:.0%}", f"{found.about.payload_bytes} bytes"
        told = f"{share} of its tokens come back from the vector alone, and a patch of {patch} mends the rest"
        verdict = shown.note(f"<b>Not exact</b>: {told}; {took}.", "poor")
    return verdict + shown.regenerated(found.back, name="The chunk, from its vector alone")


def _about_reader(explorer: Explorer) -> str:
    return (
        f"The language model is that of the reader <b>{escape(explorer.reader_name)}</b>, and is loaded with the "
        "first question (half a minute). The one that ships is small: it finds facts, and is no assistant. For one "
        "of your own: <code>memlm adapt MODEL --out FOLDER</code>, then <code>memlm app --reader FOLDER/model</code>."
    )


def _doing(told: Answers) -> str:
    if not told.chunks:
        return "Loading the reader"
    return "Answering with the text" if told.memory.done else "Answering from memories"


def _answered(told: Answers) -> str:
    """Both answers, side by side."""
    if not told.chunks:
        return ""
    shared = "one position for each memory" if told.ratio == 0 else f"{told.ratio} tokens share a position"
    from_memory = _answer("Reads the memories", shared, told.memory)
    return (
        f'<div class="pair">{from_memory}{_answer("Reads the text", f"the same {told.chunks} chunks", told.text)}</div>'
    )


def _answer(title: str, of: str, answer: Answer) -> str:
    if answer.failed:
        return shown.card(title, of, shown.error(answer.failed))
    first = "…" if answer.first_seconds is None else shown.duration(answer.first_seconds)
    cache = "…" if answer.first_seconds is None else shown.size(answer.cache_bytes)
    numbers = shown.figures(
        [
            ("first token", first, "after the question"),
            ("cache", cache, f"{answer.positions:,} positions" if answer.positions else ""),
        ]
    )
    return shown.card(title, of, shown.text(answer.text or "…", name=title) + numbers)
