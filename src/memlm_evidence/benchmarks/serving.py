"""`memlm bench serve`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float

from memlm.cli.command import Answer, UsesModel
from memlm.config.base import require
from memlm.data.texts import evaluation_documents
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.measuring import Benchmark, made_here
from memlm_evidence.benchmarks.serving_load import Load, apart, distances, is_wrong, load, middle_and_tail, question
from memlm_evidence.benchmarks.serving_server import Server, serving
from memlm_evidence.benchmarks.serving_soak import Plan, soak

_BATCH = 64
"""Chunks that the library is given at once: as many as the server gives the model."""
_SAMPLE = 100
"""Requests of OpenAI's client."""
_DIFFERENT = 2000
"""Texts that are asked for in minutes of load, again and again."""
_LOADED = 0.8
"""The share of the requests that the server can answer at which it is loaded for minutes."""


@dataclass(frozen=True, kw_only=True)
class Serving(Benchmark, UsesModel):
    """Compare how fast memlm serve answers many clients with the library called in batches.

    memlm bench serve --json

    Server and clients run in separate processes. The clients ask for embeddings over loopback; each sends its next
    request when it has its answer. All answers are compared with the library's. Clients, HTTP and the model share the
    machine's cores; `cpu` gives the milliseconds of a core that each takes per text. Needs pip install
    'memlm[serve,bench]'.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    requests: int = 10_000
    """Number of texts to send, which is the number of requests with one text each."""
    clients: int = 64
    """Number of clients that send requests at the same time."""
    texts: tuple[int, ...] = (1, 16)
    """Texts per request; each value is measured. A text is a full chunk of a novel."""
    rounds: int = 3
    """Number of rounds; in each, the library and the server are measured in turn."""
    threads: int = 1
    """Threads of the model, in the server and in the library."""
    minutes: float = 0.0
    """Afterwards, load the server to 0.8 of its capacity for this many minutes, then stop it under load; 0 leaves this
    out."""
    leaving: float = 0.02
    """During these minutes, the share of requests whose client closes its connection instead of waiting."""

    def run(self) -> Answer:
        """A row for each number of texts: medians over rounds of what is measured, and all rounds' ratios.

        `ratio` is texts a second beside the library's, and depends on the cores that clients, HTTP and model find free;
        `cpu` is milliseconds of a core that each takes for a text, and `cpu_ratio` the library's beside the server's.
        """
        for name in ("requests", "clients", "rounds", "threads"):
            require(getattr(self, name) > 0, f"--{name} must be positive, not {getattr(self, name)}")
        require(0 <= self.minutes < float("inf"), f"--minutes must be 0 or more, not {self.minutes}")
        require(0 <= self.leaving <= 1, f"--leaving must lie in [0, 1], not {self.leaving}")
        require(min(self.texts, default=0) > 0, f"--texts takes positive numbers, not {[*self.texts]}")
        torch.set_num_threads(self.threads)
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        with serving(self.model, threads=self.threads, device=self.device) as server:
            beside = Beside(model, server, self)
            sample = beside.sample()
            rows = [beside.row(number) for number in self.texts]
            soaked = beside.soak() if self.minutes else {}
            if not soaked:
                server.stop()
        return {
            "rows": rows,
            "openai_client": sample,
            "soak": soaked,
            "clients": self.clients,
            **made_here(encoder=model.encoder_fingerprint, model=model.provenance),
        }


class Beside:
    """A server and the library, given the same texts."""

    def __init__(self, model: TextAutoencoder, server: Server, asked: Serving) -> None:
        self._model, self._server, self._asked = model, server, asked
        chunks = chunk_texts(model)
        self._texts = [chunks[place % len(chunks)] for place in range(asked.requests)]
        self._num_bytes = sum(len(text.encode()) for text in self._texts)
        self._expected = self._encoded()

    def sample(self) -> dict[str, Any]:
        """How far what OpenAI's client gets is from what the library gives."""
        import openai

        texts = self._texts[:_SAMPLE]
        with openai.OpenAI(base_url=f"{self._server.address}/v1", api_key="none", max_retries=0) as client:
            answers = [client.embeddings.create(model=self._asked.model, input=text) for text in texts]
        found = np.array([answer.data[0].embedding for answer in answers], np.float32)
        return {
            "requests": len(texts),
            "largest_difference": float(distances(found, self._expected[: len(found)]).max()),
        }

    def row(self, number: int) -> dict[str, Any]:
        """Requests of so many texts."""
        groups = [self._texts[start : start + number] for start in range(0, len(self._texts), number)]
        bodies = [question(self._asked.model, some) for some in groups]
        rounds = [self._round(bodies, number) for _ in range(self._asked.rounds)]
        middle = {name: median(each[name] for each in rounds) for name in rounds[0] if name != "cpu"}
        per_text = {
            name: 1000 * median(each["cpu"][name] for each in rounds) / len(self._texts) for name in rounds[0]["cpu"]
        }
        spent = per_text["http"] + per_text["model"]  # 0 where a clock ticks too seldom for few requests
        return {
            "texts_per_request": number,
            "requests": len(bodies),
            "requests_per_second": len(bodies) / middle["server_seconds"],
            "texts_per_second": len(self._texts) / middle["server_seconds"],
            "bytes_per_second": self._num_bytes / middle["server_seconds"],
            "library_texts_per_second": len(self._texts) / middle["library_seconds"],
            "ratio": median(ratios := [each["library_seconds"] / each["server_seconds"] for each in rounds]),
            "ratios": ratios,
            "p50_seconds": middle["p50"],
            "p99_seconds": middle["p99"],
            "errors": sum(each["errors"] for each in rounds),
            "wrong": sum(each["wrong"] for each in rounds),
            "cpu": per_text,
            "cpu_ratio": per_text["library"] / spent if spent else None,
        }

    def soak(self) -> dict[str, Any]:
        """Minutes of load, and a stop."""
        asked, texts = self._asked, self._texts[:_DIFFERENT]
        bodies = [question(asked.model, [text]) for text in texts]
        fastest = apart(load, self._server.address, bodies, asked.clients)
        plan = Plan(
            address=self._server.address,
            bodies=bodies,
            expected=self._expected[: len(texts)],
            clients=asked.clients,
            rate=_LOADED * len(texts) / fastest.seconds,
            seconds=60 * asked.minutes,
            leaving=asked.leaving,
        )
        return soak(self._server, plan, lambda line: asked.say(line, aside=True))

    def _encoded(self) -> Float[np.ndarray, "text dim"]:
        """What the library gives."""
        batches = [self._texts[start : start + _BATCH] for start in range(0, len(self._texts), _BATCH)]
        encoded = [self._model.encode(some, normalize=True, convert_to_numpy=True) for some in batches]
        return np.concatenate(encoded).reshape(len(self._texts), -1)

    def _round(self, bodies: Sequence[bytes], number: int) -> dict[str, Any]:
        began, cpu = time.perf_counter(), time.process_time()
        self._encoded()
        library, library_cpu = time.perf_counter() - began, time.process_time() - cpu
        before = self._server.cpu_seconds()
        found: Load = apart(load, self._server.address, bodies, self._asked.clients)
        after = self._server.cpu_seconds()
        p50, p99 = middle_and_tail(found.latencies, found.errors)
        return {
            "library_seconds": library,
            "server_seconds": found.seconds,
            "p50": p50,
            "p99": p99,
            "errors": len(found.errors),
            "wrong": self._wrong(found, number),
            "cpu": {"library": library_cpu, "clients": found.cpu_seconds}
            | {name: after[name] - before[name] for name in after},
        }

    def _wrong(self, found: Load, number: int) -> int:
        """Answers that are not the library's."""
        expected = {place: self._expected[place * number : (place + 1) * number] for place in found.answers}
        return sum(is_wrong(body, expected[place]) for place, body in found.answers.items())


def chunk_texts(model: TextAutoencoder) -> list[str]:
    """A novel in pieces that are a chunk each."""
    most, tokenizer = model.config.shape.chunk_len, model.tokenizer
    tokens = np.concatenate(tokenizer.encode_batch([document.text for document in evaluation_documents("novel")]))
    pieces = [tokenizer.decode(tokens[start : start + most]) for start in range(0, len(tokens) - most, most)]
    # A piece that begins or ends within a word may have other tokens, and more.
    return [piece for piece, ids in zip(pieces, tokenizer.encode_batch(pieces), strict=True) if len(ids) <= most]
