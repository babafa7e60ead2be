"""`memlm app`."""

import signal
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from threading import Event

from memlm.cli.command import Answer, UsesModel
from memlm.runtime.files import BOXED_READER
from memlm.runtime.ports import require_free


@dataclass(frozen=True, kw_only=True)
class App(UsesModel):
    """Explore memories in the browser: what a vector holds, what an embedding holds, a book in memory.

    memlm app --open

    memlm app --model runs/mine/model --reader runs/smollm2/model --port 8123

    Only this machine can reach the page, unless you give --host. The page loads nothing from other machines. Ctrl-C
    stops it, and the texts and files that it was given are deleted. Needs pip install 'memlm[app]'.
    """

    model: str = "english"
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    reader: str = BOXED_READER
    """A language model that reads this autoencoder's memories: smollm2-english, which ships with memlm, or the folder
    OUT/model that memlm adapt wrote."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 stands for all addresses of this machine."""
    port: int = 7860
    """The port to listen on; 0 takes any free one."""
    open: bool = False
    """Also open the page in the browser."""

    def run(self) -> Answer:
        """Show the page until told to stop."""
        if find_spec("gradio") is None:
            raise ValueError("memlm app needs gradio: pip install 'memlm[app]'")
        port = require_free(self.host, self.port)  # before anything is loaded
        self.say("starting; this takes about ten seconds", aside=True)
        import memlm
        from memlm.app.explorer import Explorer
        from memlm.app.page import create_page, served
        from memlm.config import MemoryReaderConfig
        from memlm.text.checkpoint_folder import locate

        try:
            locate(self.reader, cls=MemoryReaderConfig)  # loaded when it is asked
        except ValueError as error:
            self.say(f"no language model to answer questions about a book: {error}", aside=True)
        model = memlm.load(self.model, device=self.device)
        explorer = Explorer(model=model, name=self.model, reader_name=self.reader, device=self.device)
        stopped = Event()
        signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
        with served(create_page(explorer), self.host, port, opens=self.open) as address:
            self.say(f"{self.model} at {address} (Ctrl-C stops it)", aside=True)
            if not _is_local(self.host):
                self.say("anyone who can reach this machine can use the page, and load models by name", aside=True)
            try:
                stopped.wait()  # or until Ctrl-C
            finally:
                explorer.jobs.end()
        return {"address": address, "model": self.model}


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
