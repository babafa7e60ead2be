"""Embeddings from an HTTP endpoint in OpenAI's form, asked patiently, and never twice for the same text."""

import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from memlm.data.cache import default_cache
from memlm.data.tokenizer import Tokenizer
from memlm.probing.inversion.embedder import Embedder, Ids, Unit
from memlm.runtime.cache import digest
from memlm.runtime.hub import said
from memlm.runtime.progress import console

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key, if the endpoint wants one."""
_BATCH = 256
_TRIES, _FIRST_WAIT, _LONGEST_WAIT, _TIMEOUT = 8, 0.5, 60.0, 60.0
_PASSING = (408, 409, 425, 429)


class EndpointEmbedder(Embedder):
    """An endpoint: `POST url/embeddings` with `input` and `model`. What it has answered is kept in a file, so that an
    interrupted inversion goes on from there."""

    def __init__(
        self,
        url: str,
        model: str,
        tokenizer: Tokenizer,
        *,
        cache: Path | None = None,
        quiet: bool = True,
        first_wait: float = _FIRST_WAIT,
    ) -> None:
        self.name, self.tokenizer, self.model = url, tokenizer, model
        self.address = url.rstrip("/").removesuffix("/embeddings") + "/embeddings"
        self.first_wait, self.max_len = first_wait, 256
        self.console, self.trouble = console(stderr=True, quiet=quiet), ""
        self.fingerprint = digest([self.address, model, tokenizer.fingerprint])
        folder = (cache or default_cache()) / "endpoints"
        folder.mkdir(parents=True, exist_ok=True)
        self.known = sqlite3.connect(folder / f"{digest([self.address, model])}.sqlite", timeout=60)
        self.known.execute("CREATE TABLE IF NOT EXISTS known (text TEXT PRIMARY KEY, vector BLOB)")

    def embed(self, texts: Sequence[Ids], *, exact: bool = True) -> Unit:
        """Embeddings of length 1.

        Raises:
            ValueError: the endpoint refuses, does not answer, or answers something else than embeddings.
        """
        written = [self.tokenizer.decode(text).strip() or " " for text in texts]
        self.num_encodings += len(written)
        missing = [text for text in dict.fromkeys(written) if self._known(text) is None]
        for at in range(0, len(missing), _BATCH):
            self._keep(missing[at : at + _BATCH])
        vectors = np.stack([np.frombuffer(self._known(text) or b"", dtype=np.float32) for text in written])
        return F.normalize(torch.from_numpy(vectors), dim=-1)

    def _known(self, text: str) -> bytes | None:
        row = self.known.execute("SELECT vector FROM known WHERE text = ?", (text,)).fetchone()
        return row[0] if row else None

    def _keep(self, texts: Sequence[str]) -> None:
        answer = self._ask({"input": list(texts), "model": self.model, "encoding_format": "float"})
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.address} answers no embeddings in OpenAI's form ({error!r})") from None
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ValueError(f"{self.address} answers {vectors.shape} for {len(texts)} texts, or numbers not finite")
        with self.known:
            kept = zip(texts, (vector.tobytes() for vector in vectors), strict=True)
            self.known.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", kept)

    def _ask(self, question: Mapping[str, Any]) -> Any:
        """The endpoint's answer; waits, longer each time, where it is slow, ill or asked too often."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.address, json.dumps(question).encode(), headers)
        for attempt in range(_TRIES):
            wait = min(_LONGEST_WAIT, self.first_wait * 2**attempt)
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                body = error.read(300).decode(errors="replace")
                why = f"{error.code} {error.reason}: {body}"
                if error.code < 500 and error.code not in _PASSING:
                    hint = f"; is its key in {KEY}?" if error.code in (401, 403) else ""
                    raise ValueError(f"{self.address} refuses: {why}{hint}") from None
                wait = max(wait, _seconds(error.headers.get("Retry-After")))
            except (OSError, ValueError) as error:
                why = said(getattr(error, "reason", error))
            if why != self.trouble:  # once for each kind of it
                self.trouble, told = why, f"{self.address} does not answer ({why}); it is asked up to {_TRIES} times"
                self.console.print(told, markup=False, highlight=False, soft_wrap=True)
            time.sleep(wait if attempt < _TRIES - 1 else 0)
        raise ValueError(
            f"{self.address} did not answer {_TRIES} times ({why}); run it again later: what it has answered is kept"
        )


def _seconds(said: str | None) -> float:
    """What an endpoint asks to wait, if it says so in seconds."""
    try:
        return min(_LONGEST_WAIT, float(said or 0))
    except ValueError:
        return 0.0
