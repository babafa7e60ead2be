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
_FORMAT = 3
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
    documents = documents_of(texts)
    if not isinstance(encoder, FrozenEncoder):
        encoder = load_encoder(encoder, precision=precision)
    texts_read = Texts(encoder.tokenizer, documents, cfg.reading.test_fraction)
    return Prober(encoder, texts_read, cfg, cache=cache or default_cache(), quiet=quiet).run()


def documents_of(texts: Sequence[str] | None) -> list[Document]:
    """Texts as documents; without any, the presidential addresses.

    Raises:
        ValueError: one string is given instead of a list.
    """
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, not one string; wrap it: [text]")
    if texts is None:
        return list(read_documents(NamedCorpus()))
    return [Document(f"text {number}", text) for number, text in enumerate(texts)]


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
        self,
        encoder: FrozenEncoder,
        texts: Texts,
        cfg: ProbeConfig,
        *,
        cache: Path,
        quiet: bool,
    ) -> None:
        """`texts` are for the encoder's own tokenizer, and may serve several encoders that have the same."""
        self.encoder, self.texts, self.cfg, self.cache, self.quiet = encoder, texts, cfg, cache, quiet
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
        dtype = str(self.encoder.token_table.dtype).removeprefix("torch.")
        settings = {"config": asdict(self.cfg), "encoder": self.encoder.fingerprint, "dtype": dtype}
        return Result(name="probe", measures=values, provenance=Provenance.here(**settings))

    def views(self, chunk_len: int) -> list[View]:
        """The views asked for, or the encoder's own."""
        default = self.encoder.default_view
        poolings = self.cfg.poolings or (default.pooling,)
        layers = self.cfg.layers
        if layers != (-1,) and set(poolings) & {"memory", "sentence"}:
            raise ValueError(
                f"{poolings[0]} is made of the last layer alone; to read layers, choose last or mean pooling"
            )
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
        """A reader trained for a task, and what it was trained on; what is asked for again is kept."""
        if task.control == "random_tokens":
            task = task._replace(control=None)  # only what it is measured on differs
        if task in self._trained:
            return self._trained[task]
        embedded = self._of_control(task)
        without = self._without(task) if isinstance(task.reading.reader, AutoregressiveReader) else None
        trained = self._train(task, embedded, without), embedded
        if task.control in (None, "causal"):
            self._trained[task] = trained
        return trained

    def _of_control(self, task: Task) -> Embedded:
        """What is read for a control; always with the codes of the encoder that is probed."""
        match task.control:
            case "untrained":
                return self._embed(self.encoder.untrained(task.seed), [task.view])[0]
            case "shuffled":
                return shuffled(self.embedded[task.view], task.seed)
            case "constant" | "causal":
                return constant(self.embedded[task.view])
            case "positive":
                return autoencoder_memories(self.material, self.codes, task.reading, seed=task.seed, quiet=self.quiet)
            case _:
                return self.embedded[task.view]

    def _without(self, task: Task) -> TrainedReader | None:
        """An autoregressive reader without a memory is a language model, and has to be trained."""
        if task.control == "causal":
            return None
        return self.trained(task._replace(view=self.views[0], control="causal", degradation=None))[0]

    def _train(self, task: Task, embedded: Embedded, without: TrainedReader | None) -> TrainedReader:
        what = task.control or str(task.view)
        degraded = f", {task.degradation.kind}" if task.degradation else ""
        return train_reader(
            self.material,
            embedded,
            self.codes,
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
        nats = float(reader.nats(test, embedded.test).mean())
        return {"causal_nats_per_token": nats, "causal_model": "the autoregressive reader without a memory"}

    @cached_property
    def codes(self) -> Float[Tensor, "vocab code"]:
        """What readers write the vocabulary's tokens with."""
        return codes_of(self.encoder.token_table)[torch.from_numpy(self.material.vocabulary.types)]

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

    More may be retained than is stored: a reader of tokens one by one counts what several tokens share once for each of
    them, and one that knows little of the language without an embedding gains from it what it could have known.
    """
    dims = values["num_slots"] * values["memory_dim"]
    stored = degradation.num_bits * dims
    return {"stored_bits": stored, "storage_efficiency": values["bits_per_dim"] * dims / stored}


def _language_model_nats(model: PretrainedModel, chunks: Chunks) -> float | None:
    """Nats a token of a pretrained language model; of the tokens that have others before them."""
    tokens, mask = torch.from_numpy(chunks.tokens), torch.from_numpy(chunks.mask)
    batches = zip(torch.split(tokens, _LM_BATCH), torch.split(mask, _LM_BATCH), strict=True)
    nats = np.concatenate([model.next_token_nats(*batch).numpy() for batch in batches])
    return float(np.nanmean(nats)) if np.isfinite(nats).any() else None
