"""A probe: every combination of view, reader, chunk length, degradation and seed, with its controls."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import (
    READERS,
    AutoregressiveReader,
    Degradation,
    NamedCorpus,
    ProbeConfig,
    Quantization,
    ReadingConfig,
)
from memlm.data.cache import default_cache
from memlm.data.chunks import Chunks
from memlm.data.corpus import Document, read_documents
from memlm.files import atomic_write
from memlm.models.pretrained import PretrainedModel
from memlm.probes.controls import autoencoder_memories, constant, shuffled
from memlm.probes.embed import embed_chunks
from memlm.probes.encoders import FrozenEncoder, StateEncoder, View, load_encoder
from memlm.probes.material import Material, Texts
from memlm.probes.reading import Embedded, TrainedReader, codes_of, train_reader
from memlm.probes.transform import Transform
from memlm.results import Provenance, Result

CONTROLS = ("untrained", "shuffled", "constant", "random_tokens", "positive")
_FORMAT = 2
_LM_BATCH = 64

Row = dict[str, Any]


def probe(
    encoder: str | Path | FrozenEncoder,
    texts: Sequence[str] | None = None,
    *,
    cfg: ProbeConfig | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    cache: Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Result:
    """Measure how much of a text an encoder's embeddings hold.

    The encoder is frozen and embeds the texts once; readers are trained to regenerate them from the embeddings alone,
    and measured on documents kept apart. What has been embedded or read before is taken from the cache, so that an
    interrupted probe goes on where it was.

    ```python
    memlm.probe("minilm", texts, chunk_lens=(16, 32)).rows
    ```

    Args:
        encoder: a memlm checkpoint, a Hugging Face or sentence-transformers model (folder or hub name), a GGUF file.
        texts: documents; by default the presidential addresses that come with memlm.
        cfg: what to read; by default `ProbeConfig()`.
        precision: of a pretrained encoder's weights.
        cache: folder; by default memlm's own.
        quiet: show no progress.
        settings: fields of `ProbeConfig` to set anew.

    Returns:
        `rows`, one for each combination, `controls` (at the first chunk length; `control_rows` has them all), and
        `baselines` by chunk length. Measures are those of `evaluation.metrics.measures`.

    Raises:
        ValueError: the encoder, a layer, a pooling or a chunk length is impossible, or there is too little text.
    """
    cfg = replace(cfg or ProbeConfig(), **settings)
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, not one string; wrap it: [text]")
    if not isinstance(encoder, FrozenEncoder):
        encoder = load_encoder(encoder, precision=precision)
    named = enumerate(texts) if texts is not None else None
    documents = [Document(f"text {i}", text) for i, text in named] if named else list(read_documents(NamedCorpus()))
    return Prober(encoder, documents, cfg, cache=cache or default_cache(), quiet=quiet).run()


class Task(NamedTuple):
    """One reading to be made."""

    view: View
    degradation: Degradation | None
    reading: ReadingConfig
    seed: int
    control: str | None = None


class Prober:
    """Makes all readings of one encoder on one body of text."""

    def __init__(
        self, encoder: FrozenEncoder, documents: Sequence[Document], cfg: ProbeConfig, *, cache: Path, quiet: bool
    ) -> None:
        self.encoder, self.documents, self.cfg, self.cache, self.quiet = encoder, documents, cfg, cache, quiet
        # Refuse what cannot be done before anything that takes long is begun.
        for chunk_len in cfg.chunk_lens:
            self.views(chunk_len)

    def run(self) -> Result:
        """Every row and control."""
        lengths = [Length(self, chunk_len) for chunk_len in self.cfg.chunk_lens]
        rows = [row for length in lengths for row in length.rows()]
        controls = [row for length in lengths for row in length.controls()] if self.cfg.controls else []
        first = {row["control"]: row for row in reversed(controls)}
        values: Row = {
            "encoder": self.encoder.name,
            "rows": rows,
            "controls": {name: first[name] for name in CONTROLS if name in first},
            "control_rows": controls,
            "baselines": {str(length.chunk_len): length.baselines() for length in lengths if self.cfg.controls},
            "round_trips": all(length.material.round_trips for length in lengths),
        }
        settings = {"config": asdict(self.cfg), "encoder": self.encoder.fingerprint}
        return Result(name="probe", measures=values, provenance=Provenance.here(**settings))

    @cached_property
    def texts(self) -> Texts:
        """The documents, in the encoder's tokens."""
        return Texts(self.encoder.tokenizer, self.documents, self.cfg.reading.test_fraction)

    def views(self, chunk_len: int) -> list[View]:
        """The views asked for, or the encoder's own."""
        default = self.encoder.default_view
        poolings = self.cfg.poolings or (default.pooling,)
        layers = self.cfg.layers
        asked = [View(layer, pooling) for pooling in poolings for layer in layers]
        return list(dict.fromkeys(self.encoder.resolve(view, chunk_len) for view in asked))


class Length:
    """The readings at one chunk length."""

    def __init__(self, prober: Prober, chunk_len: int) -> None:
        self.prober, self.chunk_len = prober, chunk_len
        self.encoder, self.cfg, self.quiet = prober.encoder, prober.cfg, prober.quiet
        self.views = prober.views(chunk_len)
        self._trained: dict[Task, tuple[TrainedReader, Embedded]] = {}

    @cached_property
    def material(self) -> Material:
        """Chunks of this length."""
        return self.prober.texts.cut(self.chunk_len, self.cfg.reading)

    @cached_property
    def embedded(self) -> dict[View, Embedded]:
        """The encoder's embeddings, by view."""
        return dict(zip(self.views, self._embed(self.encoder, self.views), strict=True))

    def rows(self) -> Iterator[Row]:
        """A row for each combination."""
        for view in self.views:
            for reader in self.cfg.readers:
                reading = replace(self.cfg.reading, reader=READERS[reader])
                for degradation in self.cfg.degradations:
                    for seed in self.cfg.seeds:
                        yield self.row(Task(view, degradation, reading, seed))

    def controls(self, names: Sequence[str] = CONTROLS) -> Iterator[Row]:
        """The controls, for the first view and reader."""
        reading = replace(self.cfg.reading, reader=READERS[self.cfg.readers[0]])
        for name in names:
            yield self.row(Task(self.views[0], None, reading, self.cfg.seeds[0], name))

    def row(self, task: Task) -> Row:
        """One reading, or what is remembered of it."""
        about = {
            "encoder": self.encoder.name,
            "layer": task.view.layer,
            "pooling": task.view.pooling,
            "reader": task.reading.reader.kind,
            "chunk_len": self.chunk_len,
            "seed": task.seed,
            "degradation": asdict(task.degradation) if task.degradation else None,
            "control": task.control,
        }
        return {**about, **self._remembered(task, lambda: self._measured(task))}

    def baselines(self) -> Row:
        """What the text costs without any memory: to the unconditional reader, and to a causal language model.

        The language model is the encoder itself if it is one, else an autoregressive reader without a memory.
        """
        own = replace(self.cfg.reading, reader=READERS[self.cfg.readers[0]])
        unconditional = self.row(Task(self.views[0], None, own, self.cfg.seeds[0]))
        names = ("unconditional_nats_per_token", "num_train_chunks", "num_chunks", "num_documents", "vocab_size")
        reading = replace(self.cfg.reading, reader=AutoregressiveReader())
        task = Task(self.views[0], None, reading, self.cfg.seeds[0], "causal")
        return {name: unconditional[name] for name in names} | self._remembered(task, lambda: self._causal(task))

    # --- one reading -------------------------------------------------------------------------------------------

    def _measured(self, task: Task) -> Row:
        reader, embedded = self.trained(task)
        test, vectors, sizes = (
            self.material.vocabulary.number(self.material.test),
            embedded.test,
            self.material.test_bytes,
        )
        if task.control == "random_tokens":
            chunks = self.material.random_tokens()
            (vectors,) = embed_chunks(self.encoder, [task.view], chunks, **self._embed_options("random tokens"))
            test = self.material.vocabulary.number(chunks)
        values, intervals = reader.measure(test, vectors, sizes)
        values |= {"curve": reader.curve, "num_train_chunks": len(self.material.train.tokens)}
        if isinstance(task.degradation, Quantization):
            values |= _storage(values, task.degradation)
        return {**values, "intervals": {name: list(interval) for name, interval in intervals.items()}}

    def trained(self, task: Task) -> tuple[TrainedReader, Embedded]:
        """A reader trained for a task, and what it was trained on; trained once, however often it is asked for."""
        if task.control == "random_tokens":
            task = task._replace(control=None)  # only what it is measured on differs
        if task not in self._trained:
            encoder, embedded = self._of_control(task)
            without = self._without(task) if isinstance(task.reading.reader, AutoregressiveReader) else None
            self._trained[task] = self._train(task, embedded, self._codes(encoder), without), embedded
        return self._trained[task]

    def _of_control(self, task: Task) -> tuple[FrozenEncoder, Embedded]:
        match task.control:
            case "untrained":
                encoder = self.encoder.untrained(task.seed)
                return encoder, self._embed(encoder, [task.view])[0]
            case "shuffled":
                return self.encoder, shuffled(self.embedded[task.view], task.seed)
            case "constant" | "causal":
                return self.encoder, constant(self.embedded[task.view])
            case "positive":
                codes = self._codes(self.encoder)
                memories = autoencoder_memories(self.material, codes, task.reading, seed=task.seed, quiet=self.quiet)
                return self.encoder, memories
            case _:
                return self.encoder, self.embedded[task.view]

    def _without(self, task: Task) -> TrainedReader | None:
        """An autoregressive reader without a memory is a language model, and has to be trained."""
        if task.control == "causal":
            return None
        return self.trained(task._replace(view=self.views[0], control="causal", degradation=None))[0]

    def _train(
        self, task: Task, embedded: Embedded, codes: Float[Tensor, "vocab code"], without: TrainedReader | None
    ) -> TrainedReader:
        what = task.control or str(task.view)
        degraded = f", {task.degradation.kind}" if task.degradation else ""
        return train_reader(
            self.material,
            embedded,
            codes,
            task.reading,
            transform=Transform(embedded.train, task.degradation),
            without=without,
            seed=task.seed,
            title=f"Reading {self.chunk_len} tokens, {what}{degraded}, {task.reading.reader.kind}, seed {task.seed}",
            quiet=self.quiet,
        )

    def _causal(self, task: Task) -> Row:
        model = self.encoder.model if isinstance(self.encoder, StateEncoder) else None
        if isinstance(model, PretrainedModel) and model.causal and model.head is not None:
            nats = _language_model_nats(model, self.material.test)
            return {"causal_nats_per_token": nats, "causal_model": self.encoder.name}
        reader, embedded = self.trained(task)
        test = self.material.vocabulary.number(self.material.test)
        nats = float(reader.predict(test, embedded.test).nats.mean())
        return {"causal_nats_per_token": nats, "causal_model": "the autoregressive reader without a memory"}

    def _codes(self, encoder: FrozenEncoder) -> Float[Tensor, "vocab code"]:
        return codes_of(encoder.token_table)[torch.from_numpy(self.material.vocabulary.types)]

    def _embed(self, encoder: FrozenEncoder, views: Sequence[View]) -> list[Embedded]:
        parts = (
            ("training", self.material.train),
            ("validation", self.material.validation),
            ("test", self.material.test),
        )
        made = [
            embed_chunks(encoder, views, chunks, **self._embed_options(f"{name} chunks of {self.chunk_len}", encoder))
            for name, chunks in parts
        ]
        return [Embedded(*vectors) for vectors in zip(*made, strict=True)]

    def _embed_options(self, what: str, encoder: FrozenEncoder | None = None) -> dict[str, Any]:
        title = f"Embedding {what} with {(encoder or self.encoder).name}"
        return {"cache": self.prober.cache / "embeddings", "title": title, "quiet": self.quiet}

    # --- memory of readings ------------------------------------------------------------------------------------

    def _remembered(self, task: Task, make: Callable[[], Row]) -> Row:
        """What `make` gives, from the cache if it has been made before from the same encoder, text and settings."""
        key = [_FORMAT, self.encoder.fingerprint, self._text, str(task.view), asdict(task.reading)]
        key += [asdict(task.degradation) if task.degradation else None, task.seed, task.control]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        path = self.prober.cache / "readings" / f"{name}.json"
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        row = make()
        atomic_write(path, json.dumps(row) + "\n")
        return row

    @cached_property
    def _text(self) -> str:
        digest = hashlib.sha256()
        for part in (self.material.train, self.material.validation, self.material.test):
            digest.update(part.tokens.tobytes())
        digest.update(self.material.test.document.tobytes() + self.material.test_bytes.tobytes())
        return f"{self.chunk_len} {digest.hexdigest()[:16]}"


def _storage(values: Row, degradation: Quantization) -> Row:
    """Bits that a quantized embedding takes, and retained bits for each of them.

    A reader of tokens one by one counts what several tokens share once for each of them, so that more may be retained
    than is stored; what an autoregressive reader retains cannot be more, for it counts on top of the tokens before.
    """
    dims = values["num_slots"] * values["memory_dim"]
    stored = degradation.num_bits * dims
    return {"stored_bits": stored, "storage_efficiency": values["bits_per_dim"] * dims / stored}


def _language_model_nats(model: PretrainedModel, chunks: Chunks) -> float:
    """Nats a token of a pretrained language model; of the tokens that have others before them."""
    tokens, mask = torch.from_numpy(chunks.tokens), torch.from_numpy(chunks.mask)
    batches = zip(torch.split(tokens, _LM_BATCH), torch.split(mask, _LM_BATCH), strict=True)
    return float(np.nanmean(np.concatenate([model.next_token_nats(*batch).numpy() for batch in batches])))
