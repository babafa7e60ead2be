"""The readings of one encoder at one chunk length: for each combination of view, reader, degradation and seed, a reader
is trained and measured, and so for each control and baseline."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import READERS, AutoregressiveReader, Degradation, ProbeConfig, Quantization, Reader
from memlm.data.chunks import Chunks
from memlm.models.pretrained import PretrainedModel
from memlm.probing.controls import autoencoder_memories, constant, shuffled
from memlm.probing.embed import embed_chunks
from memlm.probing.encoders import FrozenEncoder, StateEncoder, View
from memlm.probing.texts import ProbeData, ProbeTexts
from memlm.probing.trained_reader import Embeddings, TrainedReader, codes_of, train_reader
from memlm.probing.transform import Transform
from memlm.runtime.files import atomic_write

CONTROLS = ("untrained", "shuffled", "constant", "random_tokens", "positive")
_FORMAT = 6
_LM_BATCH = 64

Row = dict[str, Any]


class ReaderSpec(NamedTuple):
    """One reading to be made."""

    view: View
    reader: Reader
    seed: int
    degradation: Degradation | None = None
    control: str | None = None


class EncoderProbe:
    """The readings of one encoder at one chunk length; what was made before is remembered."""

    def __init__(
        self, encoder: FrozenEncoder, texts: ProbeTexts, cfg: ProbeConfig, chunk_len: int, *, cache: Path, quiet: bool
    ) -> None:
        """`texts` are for the encoder's own tokenizer, and may serve several encoders that have the same."""
        self.encoder, self.texts, self.cfg, self.chunk_len = encoder, texts, cfg, chunk_len
        self.cache, self.quiet = cache, quiet
        self.views = views_of(encoder, cfg, chunk_len)
        self._trained: dict[ReaderSpec, tuple[TrainedReader, Embeddings]] = {}

    @cached_property
    def data(self) -> ProbeData:
        """Chunks of this length."""
        return self.texts.split_into_chunks(self.chunk_len, self.cfg.reading)

    @cached_property
    def embedded(self) -> dict[View, Embeddings]:
        """The encoder's embeddings, by view."""
        return dict(zip(self.views, self._embed(self.encoder, self.views), strict=True))

    def rows(self) -> Iterator[Row]:
        """A row for each combination."""
        for view in self.views:
            for reader in self.cfg.readers:
                for degradation in self.cfg.degradations:
                    for seed in self.cfg.seeds:
                        yield self.row(ReaderSpec(view, READERS[reader], seed, degradation))

    def controls(self, names: Sequence[str] = CONTROLS) -> Iterator[Row]:
        """The controls, for the first view and reader."""
        for name in names:
            yield self.row(self._first._replace(control=name))

    def row(self, spec: ReaderSpec) -> Row:
        """One reading, or what is remembered of it."""
        about = {
            "encoder": self.encoder.name,
            "layer": spec.view.layer,
            "pooling": spec.view.pooling,
            "reader": spec.reader.kind,
            "chunk_len": self.chunk_len,
            "seed": spec.seed,
            "degradation": asdict(spec.degradation) if spec.degradation else None,
            "control": spec.control,
        }
        return {**about, **self._remembered(spec, lambda: self._measured(spec))}

    def baselines(self) -> Row:
        """What the text costs without any memory: to the unconditional reader, and to a causal language model.

        The language model is the encoder itself if it is one, else an autoregressive reader without a memory.
        """
        unconditional = self.row(self._first)
        names = ("unconditional_nats_per_token", "num_train_chunks", "num_chunks", "num_documents", "vocab_size")
        spec = self._first._replace(reader=AutoregressiveReader(), control="causal")
        return {name: unconditional[name] for name in names} | self._remembered(spec, lambda: self._causal(spec))

    @property
    def _first(self) -> ReaderSpec:
        """The reading that controls and baselines are set beside."""
        return ReaderSpec(self.views[0], READERS[self.cfg.readers[0]], self.cfg.seeds[0])

    # --- one reading -------------------------------------------------------------------------------------------

    def _measured(self, spec: ReaderSpec) -> Row:
        reader, embedded = self.trained(spec)
        test, vectors, sizes = (
            self.data.vocabulary.number(self.data.test),
            embedded.test,
            self.data.test_bytes,
        )
        if spec.control == "random_tokens":
            chunks = self.data.random_tokens()
            (vectors,) = embed_chunks(self.encoder, [spec.view], chunks, **self._embed_options("random tokens"))
            test = self.data.vocabulary.number(chunks)
        values, intervals = reader.measure(test, vectors, sizes)
        values |= {"curve": reader.curve, "num_train_chunks": len(self.data.train.tokens)}
        if isinstance(spec.degradation, Quantization):
            values |= _storage(values, spec.degradation)
        return {**values, "intervals": {name: list(interval) for name, interval in intervals.items()}}

    def trained(self, spec: ReaderSpec) -> tuple[TrainedReader, Embeddings]:
        """A reader trained for a spec, and what it was trained on; what is asked for again is kept."""
        if spec.control == "random_tokens":
            spec = spec._replace(control=None)  # only what it is measured on differs
        if spec in self._trained:
            return self._trained[spec]
        embedded = self._of_control(spec)
        without = self._without(spec) if isinstance(spec.reader, AutoregressiveReader) else None
        trained = self._train(spec, embedded, without), embedded
        if spec.control in (None, "causal"):
            self._trained[spec] = trained
        return trained

    def _of_control(self, spec: ReaderSpec) -> Embeddings:
        """What is read for a control; always with the codes of the encoder that is probed."""
        match spec.control:
            case "untrained":
                return self._embed(self.encoder.untrained(spec.seed), [spec.view])[0]
            case "shuffled":
                return shuffled(self.embedded[spec.view], spec.seed)
            case "constant" | "causal":
                return constant(self.embedded[spec.view])
            case "positive":
                return autoencoder_memories(self.data, self.codes, self.cfg.reading, seed=spec.seed, quiet=self.quiet)
            case _:
                return self.embedded[spec.view]

    def _without(self, spec: ReaderSpec) -> TrainedReader | None:
        """An autoregressive reader without a memory is a language model, and has to be trained."""
        if spec.control == "causal":
            return None
        return self.trained(spec._replace(view=self.views[0], control="causal", degradation=None))[0]

    def _train(self, spec: ReaderSpec, embedded: Embeddings, without: TrainedReader | None) -> TrainedReader:
        what = spec.control or str(spec.view)
        degraded = f", {spec.degradation.kind}" if spec.degradation else ""
        return train_reader(
            self.data,
            embedded,
            self.codes,
            spec.reader,
            self.cfg.reading,
            transform=Transform(embedded.train, spec.degradation),
            without=without,
            seed=spec.seed,
            title=f"Reading {self.chunk_len} tokens, {what}{degraded}, {spec.reader.kind}, seed {spec.seed}",
            quiet=self.quiet,
        )

    def _causal(self, spec: ReaderSpec) -> Row:
        model = self.encoder.model if isinstance(self.encoder, StateEncoder) else None
        if isinstance(model, PretrainedModel) and model.causal and model.head is not None:
            nats = _language_model_nats(model, self.data.test)
            return {"causal_nats_per_token": nats, "causal_model": self.encoder.name}
        reader, embedded = self.trained(spec)
        test = self.data.vocabulary.number(self.data.test)
        nats = float(reader.nats(test, embedded.test).mean())
        return {"causal_nats_per_token": nats, "causal_model": "the autoregressive reader without a memory"}

    @cached_property
    def codes(self) -> Float[Tensor, "vocab code"]:
        """What readers write the vocabulary's tokens with."""
        return codes_of(self.encoder.token_table)[torch.from_numpy(self.data.vocabulary.types)]

    def _embed(self, encoder: FrozenEncoder, views: Sequence[View]) -> list[Embeddings]:
        parts = (
            ("training", self.data.train),
            ("validation", self.data.validation),
            ("test", self.data.test),
        )
        made = [
            embed_chunks(encoder, views, chunks, **self._embed_options(f"{name} chunks of {self.chunk_len}", encoder))
            for name, chunks in parts
        ]
        return [Embeddings(*vectors) for vectors in zip(*made, strict=True)]

    def _embed_options(self, what: str, encoder: FrozenEncoder | None = None) -> dict[str, Any]:
        title = f"Embedding {what} with {(encoder or self.encoder).name}"
        return {"cache": self.cache / "embeddings", "title": title, "quiet": self.quiet}

    # --- memory of readings ------------------------------------------------------------------------------------

    def _remembered(self, spec: ReaderSpec, make: Callable[[], Row]) -> Row:
        """What `make` gives, from the cache if it has been made before from the same encoder, text and settings."""
        key = [_FORMAT, self.encoder.fingerprint, self._text, str(spec.view), asdict(spec.reader)]
        key += [
            asdict(self.cfg.reading),
            asdict(spec.degradation) if spec.degradation else None,
            spec.seed,
            spec.control,
        ]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        path = self.cache / "readings" / f"{name}.json"
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        row = make()
        atomic_write(path, json.dumps(row) + "\n")
        return row

    @cached_property
    def _text(self) -> str:
        digest = hashlib.sha256()
        for part in (self.data.train, self.data.validation, self.data.test):
            digest.update(part.tokens.tobytes())
        digest.update(self.data.test.document.tobytes() + self.data.test_bytes.tobytes())
        return f"{self.chunk_len} {digest.hexdigest()[:16]}"


def views_of(encoder: FrozenEncoder, cfg: ProbeConfig, chunk_len: int) -> list[View]:
    """The views asked for, or the encoder's own, resolved.

    Raises:
        ValueError: the encoder has no such view, or cannot read chunks of this length.
    """
    default = encoder.default_view
    poolings = cfg.poolings or (default.pooling,)
    layers = cfg.layers
    if layers != (-1,) and set(poolings) & {"memory", "sentence"}:
        raise ValueError(f"{poolings[0]} is made of the last layer alone; to read layers, choose last or mean pooling")
    asked = [View(layer, pooling) for pooling in poolings for layer in layers]
    return list(dict.fromkeys(encoder.resolve(view, chunk_len) for view in asked))


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
