"""The tab in which one writes a text and sees its memory."""

import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from memlm.app import shown
from memlm.app.change import FLOAT_BITS, MOST_CHUNKS, Change, Mixing, Seen, first_chunk, mixed, see
from memlm.app.explorer import Explorer
from memlm.app.files import text_of
from memlm.app.picture import asset, drawn, edits_in, picture

_TEXTS = json.loads(asset("samples.json"))
SAMPLES: Mapping[str, str] = _TEXTS["first"]
"""To begin with: kind → text."""
_FIRST, _SECOND = SAMPLES["a novel"], _TEXTS["second"]
_LEAD = (
    "A memory is one vector. The encoder makes it of a chunk of text; the decoder gets nothing but the vector, and "
    "gives the text back. Take bits from it, add noise, change a dimension, and see what is lost."
)
_EMPTY = shown.note(
    "Nothing is written yet, and an empty text has no memory. Write above, drop a file, or take a sample.", "empty"
)


def key_of(text: str, chunk: int) -> str:
    """What edits belong to."""
    return f"{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]} {chunk}"


class WriteTab:
    """The components, and what happens when they change."""

    def __init__(self, explorer: Explorer) -> None:
        self.model = explorer.model
        first = self._seen(_FIRST, FLOAT_BITS, 0.0, 1, None)
        gr.HTML(shown.lead(_LEAD))
        with gr.Row(elem_classes="bench"):
            with gr.Column(scale=5, min_width=320):
                self._build_text()
            with gr.Column(scale=6, min_width=320):
                self._build_memory(first)
        with gr.Row(elem_classes="bench"):
            self._build_damage()
        self.back = gr.HTML(first[1], elem_id="back")
        self.numbers = gr.HTML(first[2], elem_id="numbers")
        self._build_mixing()
        self._connect()

    def _build_text(self) -> None:
        self.text = gr.Textbox(
            _FIRST, label="Text", lines=8, max_lines=8, elem_id="text", placeholder="Write something"
        )
        with gr.Row(elem_classes="samples"):
            self.samples = [gr.Button(name, size="sm", min_width=60) for name in SAMPLES]
        self.file = gr.File(label="Or drop a file of text", height=92, elem_id="file", type="filepath")
        self.told = gr.HTML(elem_id="file-told")

    def _build_memory(self, first: tuple[Any, ...]) -> None:
        gr.HTML("<h3>Its memory</h3>")
        self.chunk = gr.Slider(1, MOST_CHUNKS, 1, step=1, label="Chunk", visible=False, elem_id="chunk")
        self.picture = picture(first[0], editable=True, elem_id="picture")

    def _build_damage(self) -> None:
        self.bits = gr.Slider(
            1,
            FLOAT_BITS,
            FLOAT_BITS,
            step=1,
            label="Precision",
            info="bits a dimension",
            elem_id="bits",
            buttons=["reset"],
        )
        self.noise = gr.Slider(
            0,
            1,
            0,
            step=0.01,
            label="Noise",
            info="standard deviation; a dimension's own is 1",
            elem_id="noise",
            buttons=["reset"],
        )

    def _build_mixing(self) -> None:
        gr.HTML(shown.heading("Two memories"))
        gr.HTML(
            shown.lead(
                "The same vectors, mixed with those of a second text. What does the decoder make of half a memory?"
            )
        )
        with gr.Row(elem_classes="bench"):
            with gr.Column(scale=5, min_width=320):
                self.other = gr.Textbox(_SECOND, label="Second text", lines=4, max_lines=8, elem_id="other")
                self.how = gr.Radio(["swap halves", "interpolate"], value="swap halves", label="Mix", elem_id="how")
                self.share = gr.Slider(
                    0, 100, 50, step=1, label="Share of the second memory", info="percent", elem_id="share"
                )
            with gr.Column(scale=6, min_width=320):
                first = self._mixed(_FIRST, _SECOND, "swap halves", 50)
                self.mix = gr.HTML(first, elem_id="mix")

    def _connect(self) -> None:
        live: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}
        inputs = [self.text, self.bits, self.noise, self.chunk, self.picture]
        outputs = [self.picture, self.back, self.numbers, self.chunk]
        changes = [self.text.change, self.bits.change, self.noise.change, self.chunk.change, self.picture.input]
        gr.on(changes, self._seen, inputs, outputs, **live)
        mixing = [self.text.change, self.other.change, self.how.change, self.share.change]
        gr.on(mixing, self._mixed, [self.text, self.other, self.how, self.share], self.mix, **live)
        for button, sample in zip(self.samples, SAMPLES.values(), strict=True):
            button.click(lambda sample=sample: (sample, ""), None, [self.text, self.told], **live)
        self.file.upload(self._dropped, self.file, [self.text, self.told, self.file], **live)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _seen(
        self, text: str, bits: float, noise: float, chunk: float, picture: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], str, str, Any]:
        """The picture, the text that comes back, the numbers, and which chunks there are to choose from."""
        place = int(chunk) - 1
        edits = edits_in(picture, key_of(text, place))
        try:
            found = see(self.model, text, Change(int(bits), float(noise), edits, place))
        except ValueError as error:
            return drawn(None, ""), shown.error(error), "", gr.update(visible=False)
        count = len(found.memory.vectors)
        if not count:
            return drawn(None, ""), _EMPTY, "", gr.update(visible=False, value=1)
        if place >= count:
            return self._seen(text, bits, noise, count, picture)
        # Its maximum stays: what is on its way from the page would be beyond a lower one.
        which = gr.update(visible=count > 1, label=f"Chunk, of {count}", value=place + 1)
        picture = drawn(found.memory.vectors[place], key_of(text, place), edits)
        return picture, shown.seen(found) + self._cut(found), shown.numbers(found), which

    def _cut(self, found: Seen) -> str:
        if not found.cut:
            return ""
        length = MOST_CHUNKS * self.model.config.shape.chunk_len
        return shown.note(
            f"The text goes on; these are its first {length} tokens. A whole book goes into <b>A book in memory</b>."
        )

    def _mixed(self, text: str, other: str, how: Mixing, share: float) -> str:
        """What mixed memories give back."""
        try:
            one, second = first_chunk(self.model, text), first_chunk(self.model, other)
            memory = mixed(one, second, how, share / 100)
        except ValueError as error:
            return shown.error(error)
        names = ["Between the two"]
        if how == "swap halves":
            names = [f"{100 - share:.0f}% of the first, then {share:.0f}% of the second"]
            names += [f"{100 - share:.0f}% of the second, then {share:.0f}% of the first"]
        texts = self.model.regenerate(memory)
        return "".join(
            f"<h4>{name}</h4>{shown.regenerated(each, name=name)}" for name, each in zip(names, texts, strict=True)
        )

    def _dropped(self, path: str) -> tuple[Any, str, None]:
        """The beginning of a file, and what is said of it."""
        try:
            text = text_of(Path(path))
        except ValueError as error:
            return gr.skip(), shown.error(error), None
        most = MOST_CHUNKS * self.model.config.shape.chunk_len
        ids = self.model.tokenizer.encode(text[: 16 * most])
        name, size = Path(path).name, shown.size(len(text.encode()))
        if len(ids) <= most:
            return text, shown.note(f"{escape(name)}, {size}."), None
        told = f"{escape(name)}, {size}; here is its beginning. All of it goes into <b>A book in memory</b>."
        return self.model.tokenizer.decode(ids[:most]), shown.note(told), None
