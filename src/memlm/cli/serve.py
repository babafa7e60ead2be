"""`memlm serve`."""

import os
from dataclasses import dataclass
from ipaddress import ip_address

import tyro

from memlm.cli.command import Answer, UsesModel
from memlm.runtime.extras import extra
from memlm.runtime.ports import listen


@dataclass(frozen=True, kw_only=True)
class Serve(UsesModel):
    """Serve models over HTTP: OpenAI's embeddings and chat, memories and their texts.

    memlm serve --model english --port 8000

    memlm serve --model english --model runs/mine/model --host 0.0.0.0

    memlm serve --reader smollm2-english    # /v1/chat/completions as well, with memories in place of text

    Then give http://127.0.0.1:8000/v1 to the openai package as base_url. Only this machine can reach the server, unless
    you give --host. SIGTERM or Ctrl-C stops it once it has answered the requests that it accepted, after a minute at
    the latest. Needs pip install 'memlm[serve]'.
    """

    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name. Clients ask for it by
    this name. Repeat --model to serve several; by default english."""
    reader: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A language model that reads memories and answers chats: smollm2-english, which ships with memlm, or the folder
    OUT/model that memlm adapt wrote. Repeat --reader to serve several; by default none."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 stands for all addresses of this machine."""
    port: int = 8000
    """The port to listen on; 0 takes any free one."""
    api_key: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """The key that clients must send; repeat --api-key to accept several. By default the environment variable
    MEMLM_API_KEY; without either, no key is needed. Other users of this machine can see options, but not variables."""
    queue: int = 128
    """At most this many requests wait for the model; the others get the status 429 (try again)."""
    batch: int = 64
    """The most chunks in a batch, which joins waiting requests; a request with more is a batch by itself."""
    max_body: int = 4 * 2**20
    """The most bytes in a request."""
    max_inputs: int = 2048
    """The most texts in a request."""
    max_chunks: int = 4096
    """The most chunks in a request, over all its texts; other requests wait while they are encoded."""

    def run(self) -> Answer:
        """Serve until told to stop."""
        import memlm

        for module in ("orjson", "prometheus_client", "starlette", "uvicorn"):
            extra(module, "memlm serve", "serve")
        from memlm.serve.app import Limits, create_app
        from memlm.serve.model import ServedModel
        from memlm.serve.reader import ServedReader
        from memlm.serve.server import serve

        for name in ("queue", "batch", "max_body", "max_inputs", "max_chunks"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        names, readers = dict.fromkeys(self.model or ("english",)), dict.fromkeys(self.reader)
        if both := [name for name in names if name in readers]:
            raise ValueError(f"{both[0]} is given as --model and as --reader; it is one of them")
        keys = self.api_key or tuple(filter(None, [os.environ.get("MEMLM_API_KEY")]))
        if not all(keys):
            raise ValueError("an --api-key must not be empty")
        with listen(self.host, self.port) as listening:
            models = [ServedModel(name, memlm.load(name, device=self.device)) for name in names]
            served = [ServedReader(name, memlm.load_reader(name, device=self.device)) for name in readers]
            app = create_app(models, self.configured(Limits()), keys, served)
            host, port, *_ = listening.getsockname()
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

            def ready() -> None:
                self.say(f"serving {', '.join([*names, *readers])} at {address}", aside=True)
                if not keys and not ip_address(host).is_loopback:
                    self.say("anyone who can reach this machine can use the server: there is no --api-key", aside=True)

            serve(app, listening, ready)
        answered = app.state.metrics.answered
        self.say(f"stopped; requests answered: {answered}", aside=True)
        return {"address": address, "models": [*names, *readers], "answered": answered}
