"""The page: its tabs, its look, and what serves it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from memlm.app.explorer import Explorer, own_folder

# Before Gradio is imported: nothing is reported to anyone, and no newer version is asked for.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_TEMP_DIR"] = str(own_folder())  # of uploads; the folder that Gradio would take stays behind

import gradio as gr

from memlm.app.book_tab import BookTab
from memlm.app.embedding_tab import EmbeddingTab
from memlm.app.files import MOST_BYTES
from memlm.app.look import look
from memlm.app.write_tab import WriteTab
from memlm.runtime.ports import require_free


def create_page(explorer: Explorer) -> gr.Blocks:
    """The page, ready to be launched."""
    with gr.Blocks(title="memlm: what a vector holds", analytics_enabled=False) as page:
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


@contextmanager
def served(page: gr.Blocks, host: str, port: int, *, opens: bool = False) -> Iterator[str]:
    """Serve the page within the block, at the address that it is given.

    Raises:
        ValueError: the port is taken, or there is no such port or host.
    """
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
