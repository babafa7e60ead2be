"""`memlm serve`."""

import os
from dataclasses import dataclass
from ipaddress import ip_address

import tyro

from memlm.cli.command import Answer, UsesModel


@dataclass(frozen=True, kw_only=True)
class Serve(UsesModel):
    """Serve models over HTTP: OpenAI's embeddings and chat, memories and their texts.

    memlm serve --model english --port 8000

    memlm serve --model english --model runs/mine/model --host 0.0.0.0

    memlm serve --reader smollm2-english    # /v1/chat/completions as well, with memories in place of text

    Then http://127.0.0.1:8000/v1 is a base_url of the openai package. Only this machine can reach it unless --host is
    given. SIGTERM or Ctrl-C stops it when what it has accepted is answered, or after a minute. Needs pip install
    'memlm[serve]'.
    """

    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name; clients call it so.
    Several by repeating --model; by default english."""
    reader: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A language model that reads memories and answers chats: smollm2-english, which ships with memlm, or the folder
    model of what memlm adapt has made. Several by repeating."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is every one of this machine."""
    port: int = 8000
    """0 is any that is free."""
    api_key: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What clients must send as their key, or one of several by repeating; by default MEMLM_API_KEY, or none. Others on
    this machine can see options, but not variables."""
    queue: int = 128
    """Requests that may wait for the model; more are told to try again (429)."""
    batch: int = 64
    """Chunks that the model is given at once, from as many requests as wait."""
    max_body: int = 4 * 2**20
    """Bytes that a request may have."""
    max_inputs: int = 2048
    """Texts that a request may have."""
    max_chunks: int = 4096
    """Chunks that a request may have, of all its texts: the others wait for it."""

    def run(self) -> Answer:
        """Serve until told to stop."""
        import memlm

        try:
            import orjson  # noqa: F401
            import prometheus_client  # noqa: F401
            import starlette  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise ValueError(f"memlm serve needs {error.name}: pip install 'memlm[serve]'") from None
        from memlm.serve.app import Limits, create_app
        from memlm.serve.model import ServedModel
        from memlm.serve.reader import ServedReader
        from memlm.serve.server import listen, serve

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
                    self.say("anyone who reaches this machine may use it: there is no --api-key", aside=True)

            serve(app, listening, ready)
        answered = app.state.metrics.answered
        self.say(f"stopped; requests answered: {answered}", aside=True)
        return {"address": address, "models": [*names, *readers], "answered": answered}
