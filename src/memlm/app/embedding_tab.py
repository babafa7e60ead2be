"""The tab that asks what an embedding holds: one text, given back from several models' vectors."""

from collections.abc import Iterator, Sequence
from html import escape
from threading import Event
from typing import Any

import gradio as gr

from memlm.app import shown
from memlm.app.curve import curves, measured, svg
from memlm.app.explorer import Explorer
from memlm.app.given_back import LENGTHS, WAYS, Card, How, read_back, recorded
from memlm.app.jobs import Done, Progress, StoppedError, followed

_OTHERS = ("minilm", "smollm2")
_FIRST = 16
_JOB = "reading"
_LEAD = (
    "Models that are trained to retrieve or to predict keep little of a text that can be read back. One that is "
    "trained to regenerate keeps all of it, in a vector of the same size. Here is one text, as each gives it back."
)
_COSTS = (
    "A small reader learns from 4,000 texts first, a minute or two for MiniLM and ten for SmolLM2, and is kept. "
    "A search tries up to 20,000 texts and finds more: ten minutes once, then one or two for each text."
)
_TITLES = {"minilm": "MiniLM", "smollm2": "SmolLM2"}


class EmbeddingTab:
    """The components, and what happens when they change."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        text, cards = recorded(_FIRST)
        gr.HTML(shown.lead(_LEAD))
        with gr.Row(elem_classes="bench"):
            with gr.Column(scale=5, min_width=320):
                self._build_question(text)
            with gr.Column(scale=6, min_width=320):
                self.cards = gr.HTML(_shown(cards), elem_id="cards")
        gr.HTML(shown.heading("Over length"))
        gr.HTML(svg(curves()) + shown.note(_said_of_curves()), elem_id="curve")
        self._connect()

    def _build_question(self, text: str) -> None:
        self.text = gr.Textbox(text, label="Text", lines=4, max_lines=6, elem_id="held-text")
        self.length = gr.Radio(
            list(LENGTHS), value=_FIRST, label="Tokens in the vector", info="of each model's own", elem_id="held-length"
        )
        self.models = gr.CheckboxGroup(
            [self.explorer.name, *_OTHERS],
            value=[self.explorer.name, *_OTHERS],
            label="Vectors of",
            elem_id="held-models",
        )
        self.own = gr.Textbox(
            "",
            label="A model of your own",
            placeholder="a folder, or a Hugging Face name",
            elem_id="held-own",
            max_lines=1,
        )
        self.how = gr.Radio(list(WAYS), value=WAYS[0], label="Read by", elem_id="held-how")
        gr.HTML(shown.note(_COSTS))
        with gr.Row():
            self.go = gr.Button("Read it back", variant="primary", elem_id="held-go")
            self.halt = gr.Button("Stop", interactive=False, elem_id="held-stop")
        self.state = gr.HTML(elem_id="held-state")

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        inputs = [self.text, self.length, self.models, self.own, self.how]
        outputs = [self.cards, self.state, self.go, self.halt]
        self.go.click(self._read, inputs, outputs, concurrency_limit=1, **private)
        self.halt.click(self._stop, None, self.state, queue=False, **private)
        self.length.change(self._example, [self.text, self.length], [self.cards, self.state], **private)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _read(
        self, text: str, length: int, models: Sequence[str], own: str, how: How, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Cards, one after another, with progress between them."""
        names = [*dict.fromkeys([*models, *filter(None, [own.strip()])])]
        if not names or not text.strip():
            what = "no model is chosen" if text.strip() else "the text is empty"
            yield gr.skip(), shown.error(ValueError(f"{what}: there is nothing to read")), gr.skip(), gr.skip()
            return
        stop, cards = self.explorer.jobs.begin(request.session_hash, _JOB), list[Card | str]()
        idle = gr.update(interactive=True), gr.update(interactive=False)
        busy = gr.update(interactive=False), gr.update(interactive=True)
        for name in names:
            try:
                for now in self._followed(name, text, int(length), how, stop):
                    if isinstance(now, Done):
                        cards.append(now.value)
                    else:
                        yield gr.skip(), shown.progress(now), *busy
            except StoppedError:
                yield (
                    _shown(cards) if cards else gr.skip(),
                    shown.note("Stopped. What has been learned so far is lost."),
                    *idle,
                )
                return
            except (ValueError, OSError) as error:
                cards.append(shown.card(_titled(name), "", shown.error(error)))
            yield _shown(cards), "", *busy
        yield _shown(cards), "", *idle

    def _followed(self, name: str, text: str, length: int, how: How, stop: Event) -> Iterator[Progress | Done]:
        return followed(lambda stop: read_back(self.explorer, name, text, length, how), stop, f"Loading {name}")

    def _stop(self, request: gr.Request) -> str:
        self.explorer.jobs.stop(request.session_hash, _JOB)
        return shown.note("Stopping.")

    def _example(self, text: str, length: int) -> tuple[Any, Any]:
        """What was recorded of the example at another length; of another text nothing is known yet."""
        example, cards = recorded(int(length))
        if text == example:
            return _shown(cards), ""
        return gr.skip(), shown.note("The cards are of another length: read it back again.")


def _shown(cards: Sequence[Card | str]) -> str:
    return "".join(card if isinstance(card, str) else _card(card) for card in cards)


def _card(card: Card) -> str:
    measures = [] if card.right is None else [f"<b>{card.right:.0%}</b> of the tokens in their place"]
    measures.append(f"<b>{card.f1:.2f}</b> F1 of the words")
    measures.append(f"read by {escape(card.how)}")
    measures.append("recorded" if card.recorded else f"{shown.duration(card.seconds)}")
    body = shown.text(card.text, name=f"What {card.model} gives back")
    return shown.card(_titled(card.model), card.vector, body, " · ".join(measures))


def _titled(name: str) -> str:
    return _TITLES.get(name, name)


def _said_of_curves() -> str:
    """What stands below the figure."""
    found = [each for each in measured()["searched"] if each["encoder"] == "minilm"]
    exact = ", ".join(f"{each['exact']:.0%} of those of {each['tokens']} tokens" for each in found)
    return (
        "Held-out text, with 95% intervals. Bits count from what the same reader says without the vector. Readers are "
        f"lower bounds: a search that may embed 20,000 texts for a vector of MiniLM finds exactly {exact}. So short "
        "texts are in an embedding, nearly whole; longer ones are not to be read from it by these means."
    )
