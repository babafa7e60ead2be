"""The page: its tabs, its look, and what serves it."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

# Before Gradio is imported: nothing is reported to anyone, and no newer version is asked for.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from memlm.app.book_tab import BookTab
from memlm.app.embedding_tab import EmbeddingTab
from memlm.app.explorer import Explorer
from memlm.app.files import MOST_BYTES
from memlm.app.picture import asset
from memlm.app.write_tab import WriteTab

_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "DejaVu Sans Mono", "monospace"]
_INK = gr.themes.Color(
    *(
        "#f6f7f9",
        "#eceef1",
        "#dfe2e7",
        "#c8cdd5",
        "#9aa2ae",
        "#6f7885",
        "#525b68",
        "#3b434f",
        "#252b34",
        "#171b21",
        "#0f1216",
    ),
    name="ink",
)
_BLUE = gr.themes.Color(
    *(
        "#eef5fb",
        "#d8e8f6",
        "#b3d2ec",
        "#86b6df",
        "#5596cd",
        "#2677b8",
        "#0b5fa5",
        "#0a4f89",
        "#0b416f",
        "#0c365b",
        "#08233d",
    ),
    name="blue",
)
_DAY = 86_400


def create_page(explorer: Explorer) -> gr.Blocks:
    """The page, ready to be launched."""
    with gr.Blocks(
        title="memlm: what a vector holds", analytics_enabled=False, fill_width=False, delete_cache=(_DAY, _DAY)
    ) as page:
        gr.HTML(_header(explorer))
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Write and see", id="write"):
                WriteTab(explorer)
            with gr.Tab("What does an embedding hold?", id="held"):
                EmbeddingTab(explorer)
            with gr.Tab("A book in memory", id="book"):
                BookTab(explorer)

        def leave(request: gr.Request) -> None:
            explorer.jobs.leave(request.session_hash)

        page.unload(leave)
    return page


def _header(explorer: Explorer) -> str:
    shape = explorer.model.config.shape
    about = (
        f"{escape(explorer.name)}: up to {shape.chunk_len} tokens in {shape.num_slots * shape.memory_dim} dimensions"
    )
    return f'<header><h1>memlm</h1><p>What a vector holds</p><p class="about">{about}</p></header>'


def look() -> dict[str, Any]:
    """The theme and the style sheet, as `launch` takes them; of fonts, only those that the system has."""
    theme = gr.themes.Base(
        primary_hue=_BLUE, secondary_hue=_BLUE, neutral_hue=_INK, font=_SANS, font_mono=_MONO, radius_size="sm"
    ).set(
        body_background_fill="#fbfbfa",
        body_background_fill_dark="#0f1216",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b21",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="#ffffff",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )
    return {"theme": theme, "css": asset("style.css")}


@contextmanager
def served(page: gr.Blocks, host: str, port: int, *, opens: bool = False) -> Iterator[str]:
    """Serve the page within the block, at the address that it is given.

    Raises:
        ValueError: the port is taken, or there is no such port or host.
    """
    with tempfile.TemporaryDirectory(prefix="memlm-app-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page.GRADIO_CACHE = uploads
        page.launch(
            server_name=host,
            server_port=require_free(host, port),
            inbrowser=opens,
            quiet=True,
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            footer_links=[],
            show_error=True,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            max_file_size=MOST_BYTES,
            **look(),
        )
        try:
            yield str(page.local_url).rstrip("/")
        finally:
            page.close(verbose=False)


def require_free(host: str, port: int) -> int:
    """The port, or for 0 one that is free.

    Raises:
        ValueError: it cannot be listened on.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port is a number from 0 to {2**16 - 1}, not {port}")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
            return int(listening.getsockname()[1])
    except OSError as error:
        raise ValueError(f"cannot listen on port {port} of {host}: {error}; give another --port or --host") from None
