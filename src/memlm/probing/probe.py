"""One encoder probed at one chunk length: how much of a text its embeddings hold, with controls and baselines.

For each combination of view, reader, degradation and seed a reader is trained and measured, and so for each control.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import AutoregressiveReader, PretrainedReader, ProbeConfig, Quantization
from memlm.data.chunks import Chunks, concat_chunks
from memlm.models.batch import batches
from memlm.models.load_pretrained import tokenizer_of
from memlm.probing.controls import CodeAutoencoder, constant, shuffled, train_autoencoder, untrained_autoencoder
from memlm.probing.embed import NO_VECTORS, Vectors, embed_chunks
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.language_reader import TrainedLanguageReader, train_language_reader
from memlm.probing.language_texts import LanguageTexts
from memlm.probing.results import Baselines, ProbeRow, View
from memlm.probing.specs import ReaderSpec, drawn, reader_named, views_of
from memlm.probing.texts import ProbeData, ProbeTexts, Splits
from memlm.probing.trained_reader import LEAST_STEPS, LearnedReader, TrainedReader, codes_of, steps_once, train_reader
from memlm.probing.transform import Transform
from memlm.runtime.cache import Arrays, Cache

CONTROLS = ("untrained", "shuffled", "constant", "random_tokens", "positive")
_FORMAT = 11
"""Of what is remembered; one more whenever a reader would learn or be measured otherwise."""
_LM_BATCH = 64

Trained = TrainedReader | TrainedLanguageReader


class EncoderProbe:
    """One encoder at one chunk length; what was measured before is remembered."""

    def __init__(
        self, encoder: FrozenEncoder, texts: ProbeTexts, cfg: ProbeConfig, chunk_len: int, *, cache: Path, quiet: bool
    ) -> None:
        """`texts` are for the encoder's own tokenizer, and may serve several encoders that have the same.

        Raises:
            ValueError: as `views_of`, or there is too little text.
        """
        self.encoder, self.cfg, self.chunk_len = encoder, cfg, chunk_len
        self.cache, self.quiet = cache, quiet
        self.views = views_of(encoder, cfg, chunk_len)
        if "pretrained" in cfg.readers:
            tokenizer_of(cfg.pretrained.model)  # one that is not there is refused before anything that takes long
        self.data: ProbeData = texts.split_into_chunks(chunk_len, drawn(cfg, chunk_len))
        self.before: EncoderProbe | None = None
        if texts.before:
            self.before = EncoderProbe(encoder, texts.before, cfg, chunk_len, cache=cache, quiet=quiet)
            self.data = replace(self.data, before=self.before.data)
        self._trained: dict[ReaderSpec, tuple[Trained, Splits[Vectors]]] = {}

    def specs(self) -> Iterator[ReaderSpec]:
        """All combinations."""
        cfg = self.cfg
        for view, reader, degradation, seed in product(self.views, cfg.readers, cfg.degradations, cfg.seeds):
            yield ReaderSpec(view, reader_named(reader, cfg), seed, degradation)

    def control_specs(self, names: Sequence[str] = CONTROLS) -> Iterator[ReaderSpec]:
        """The controls, for the first view and reader."""
        return (self._first._replace(control=name) for name in names)

    def rows(self) -> Iterator[ProbeRow]:
        """A row for each combination."""
        return map(self.row, self.specs())

    def controls(self, names: Sequence[str] = CONTROLS) -> Iterator[ProbeRow]:
        """A row for each control."""
        return map(self.row, self.control_specs(names))

    def row(self, spec: ReaderSpec) -> ProbeRow:
        """What one reader makes of what it is given, or what is remembered of it."""
        return replace(ProbeRow.from_dict(self.remembered(spec)), encoder=self.encoder.name)

    def baselines(self) -> Baselines:
        """What the text costs without any memory.

        The language model is the encoder itself if it is one, else a reader of tokens before each, without a memory.
        """
        first = self.row(self._first)
        names = ("unconditional_nats_per_token", "num_train_chunks", "num_chunks", "num_documents", "vocab_size")
        return Baselines(**{name: getattr(first, name) for name in names}, **self.remembered(self.causal_spec))

    @property
    def causal_spec(self) -> ReaderSpec:
        """The baselines' language model."""
        reader = self._first.reader
        reader = reader if isinstance(reader, PretrainedReader) else AutoregressiveReader()
        return self._first._replace(reader=reader, control="causal")

    @property
    def _first(self) -> ReaderSpec:
        """The reader that controls and baselines are set beside."""
        return ReaderSpec(self.views[0], reader_named(self.cfg.readers[0], self.cfg), self.cfg.seeds[0])

    @property
    def _home(self) -> "EncoderProbe":
        """Where readers learn last: here, unless there is too little text to learn more than they have before."""
        too_little = steps_once(self.data.chunks.train, self.cfg.reading) < LEAST_STEPS
        return self.before if self.before and too_little else self

    # --- one reader --------------------------------------------------------------------------------------------

    def _measured(self, spec: ReaderSpec) -> ProbeRow:
        reader, embeddings = self.trained(spec)
        test, vectors = self.data.numbered.test, embeddings.test
        if spec.control == "random_tokens":
            chunks = self.data.random_tokens()
            (vectors,) = self._embed(self.encoder, [spec.view], chunks, "random tokens")
            test = self.data.number(chunks)
        values, intervals = reader.measure(test, vectors, self.data.test_bytes)
        if isinstance(spec.degradation, Quantization):
            dims = values["num_slots"] * values["memory_dim"]
            stored = spec.degradation.num_bits * dims
            values |= {"stored_bits": stored, "storage_efficiency": values["bits_per_dim"] * dims / stored}
        about = {
            "encoder": self.encoder.name,
            "layer": spec.view.layer,
            "pooling": spec.view.pooling,
            "reader": spec.reader.kind,
            "chunk_len": self.chunk_len,
            "seed": spec.seed,
            "degradation": spec.degradation,
            "control": spec.control,
            "num_train_chunks": len(self._home.data.learned_tokens),
        }
        return ProbeRow.from_dict({**about, **values, "intervals": intervals})

    def trained(self, spec: ReaderSpec) -> tuple[Trained, Splits[Vectors]]:
        """A trained reader, and what it was trained on; those that may be asked for again stay in memory."""
        if spec.control == "random_tokens":
            spec = spec._replace(control=None)  # only what it is measured on differs
        if spec.control == "constant" and isinstance(spec.reader, PretrainedReader):
            spec = spec._replace(view=self.views[0], control="causal", degradation=None)  # which is the same
        if spec in self._trained:
            return self._trained[spec]
        without: Trained | None = None
        if isinstance(spec.reader, AutoregressiveReader | PretrainedReader) and spec.control != "causal":
            # Without a memory it is a language model, which has to be trained; others only know tokens' frequencies.
            without, _ = self.trained(spec._replace(view=self.views[0], control="causal", degradation=None))
        embeddings = self._given(spec)
        trained: Trained
        if isinstance(spec.reader, PretrainedReader):
            assert not isinstance(without, TrainedReader)
            trained = self.language_reader(spec, spec.reader, without)
        else:
            assert not isinstance(without, TrainedLanguageReader)
            trained = self.learned(spec).calibrated(self.data, embeddings.validation, self.codes, without)
        if spec.control in (None, "causal"):
            self._trained[spec] = trained, embeddings
        return trained, embeddings

    def learned(self, spec: ReaderSpec) -> LearnedReader:
        """What a reader learns from this text, and from that before it; this is kept for other texts to be read."""
        if self._home is not self:
            return self._home.learned(spec)

        def train() -> Arrays:
            embeddings = self._given(spec)
            return train_reader(
                self.data,
                embeddings,
                self.codes,
                spec.reader,
                self.cfg.reading,
                transform=Transform(embeddings.train, spec.degradation),
                start=self.before.learned(spec) if self.before else None,
                seed=spec.seed,
                title=f"Reading {self.chunk_len} tokens, {spec}",
                quiet=self.quiet,
            ).to_arrays()

        kept = self._kept(spec.to_dict(), train)
        return LearnedReader.from_arrays(kept, self.data, self.codes, spec.reader, spec.degradation)

    def language_reader(
        self, spec: ReaderSpec, reader: PretrainedReader, without: TrainedLanguageReader | None = None
    ) -> TrainedLanguageReader:
        """A language model that has learned from this text and from that before it; to be measured, it needs the same
        one `without` an embedding."""
        chunks, vectors = self._learned_pairs(spec)
        return train_language_reader(
            self.data.numbered._replace(train=chunks),
            self._given(spec)._replace(train=vectors),
            LanguageTexts(self.data.types, self.encoder.tokenizer, tokenizer_of(reader.model)),
            reader,
            self.cfg.reading,
            codes=None if spec.control == "causal" else self.codes,
            degradation=spec.degradation,
            without=without,
            seed=spec.seed,
            title=f"Reading {self.chunk_len} tokens, {spec}",
            cache=self.cache / "language-readers",
            key={**spec.to_dict(), "encoder": self.encoder.fingerprint},
            quiet=self.quiet,
        )

    def _learned_pairs(self, spec: ReaderSpec) -> tuple[Chunks, Vectors]:
        """All chunks that there are to learn from, this text's after those of the text before, and what is given."""
        if self._home is not self:
            return self._home._learned_pairs(spec)
        own = self.data.numbered.train, self._given(spec).train
        if not self.before:
            return own
        before = self.before._learned_pairs(spec)
        return concat_chunks([before[0], own[0]]), np.concatenate([before[1], own[1]])

    def _given(self, spec: ReaderSpec) -> Splits[Vectors]:
        """What a reader is given; for any control, the codes are those of the encoder that is probed."""
        match spec.control:
            case "untrained":
                return self._embed_all(self.encoder.untrained(spec.seed), [spec.view])[spec.view]
            case "shuffled":
                return shuffled(self.embeddings[spec.view], spec.seed)
            case "constant" | "causal":
                return constant(self.embeddings[spec.view])
            case "positive":
                return (self.before or self).autoencoder(spec.seed).memories(self.data, self.codes)
            case _:
                return self.embeddings[spec.view]

    def autoencoder(self, seed: int) -> CodeAutoencoder:
        """The positive control's autoencoder, which is kept too."""
        model = untrained_autoencoder(self.data, self.codes, seed)

        def train() -> Arrays:
            train_autoencoder(model, self.data, self.cfg.reading, seed, quiet=self.quiet)
            return model.to_arrays()

        model.load(self._kept({"autoencoder": seed}, train))
        return model

    def _causal(self, spec: ReaderSpec) -> dict[str, Any]:
        found = [
            nats.cpu().numpy()
            for batch in batches(self.data.chunks.test, "cpu", _LM_BATCH)
            if (nats := self.encoder.next_token_nats(batch.tokens, batch.mask)) is not None
        ]
        if found:
            name, each = self.encoder.name, np.concatenate(found)
        else:
            reader, embeddings = self.trained(spec)
            name = f"the {spec.reader.kind} reader without a memory"
            each = reader.nats(self.data.numbered.test, embeddings.test)
        each = each[np.isfinite(each)]  # a token without any before it has none
        return {"causal_nats_per_token": float(each.mean()) if len(each) else None, "causal_model": name}

    # --- what is read ------------------------------------------------------------------------------------------

    @cached_property
    def embeddings(self) -> Mapping[View, Splits[Vectors]]:
        """The encoder's embeddings, by view."""
        return self._embed_all(self.encoder, self.views)

    @cached_property
    def codes(self) -> Float[Tensor, "vocab code"]:
        """What readers write the vocabulary's tokens with."""
        return codes_of(self.encoder.token_table)[torch.from_numpy(self.data.types)]

    def _embed_all(self, encoder: FrozenEncoder, views: Sequence[View]) -> dict[View, Splits[Vectors]]:
        named = zip(("training", "validation", "test"), self.data.chunks, strict=True)
        made = [self._embed(encoder, views, part, f"{name} chunks of {self.chunk_len}") for name, part in named]
        return {view: Splits(*vectors) for view, *vectors in zip(views, *made, strict=True)}

    def _embed(self, encoder: FrozenEncoder, views: Sequence[View], chunks: Chunks, what: str) -> list[Vectors]:
        title = f"Embedding {what} with {encoder.name}"
        if not len(chunks.tokens):
            return [NO_VECTORS] * len(views)
        return embed_chunks(encoder, views, chunks, cache=self.cache / "embeddings", title=title, quiet=self.quiet)

    def remembered(self, spec: ReaderSpec) -> dict[str, Any]:
        """What is measured, from the cache if it has been before of the same encoder, text and settings."""

        def make() -> dict[str, Any]:
            return self._causal(spec) if spec.control == "causal" else self._measured(spec).to_dict()

        return self.memory.get(self.key(spec), make)

    @property
    def memory(self) -> Cache:
        """Where rows are remembered."""
        return Cache(self.cache / "probes")

    def key(self, spec: ReaderSpec) -> dict[str, Any]:
        """By which a row is remembered: all that it depends on."""
        key = {"format": _FORMAT, "encoder": self.encoder.fingerprint, "text": self.data.digest}
        return {**key, **spec.to_dict(), "budget": asdict(self.cfg.reading)}

    def _kept(self, what: Mapping[str, Any], train: Callable[[], Arrays]) -> Arrays:
        """What `train` learns, from the cache if it has been learned before from the same text in the same way."""
        cfg = self.cfg.reading
        budget = {"steps": cfg.num_steps, "chunks": cfg.chunks_per_step(self.chunk_len)}
        key = {"format": _FORMAT, "encoder": self.encoder.fingerprint, "text": self.data.learned_digest}
        return Cache(self.cache / "readers").arrays({**key, **what, "budget": budget}, train)
