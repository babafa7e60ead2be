"""`memlm bench probe`."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from memlm.cli.command import Answer
from memlm.config import NamedCorpus, ParallelReader, ReadingConfig
from memlm.data.corpus import read_documents
from memlm.probing.embed import Vectors, embed_chunks
from memlm.probing.encoders import FrozenEncoder, load_encoder
from memlm.probing.results import View
from memlm.probing.texts import ProbeData, ProbeTexts
from memlm.probing.trained_reader import codes_of, train_reader
from memlm.probing.transform import Transform
from memlm_evidence.benchmarks.measuring import Benchmark, made_here, side_by_side

ROUNDS = 3
STEPS = 8


@dataclass(frozen=True, kw_only=True)
class ProbeSpeed(Benchmark):
    """Measure how much faster a reader's step is with cached embeddings than with the encoder run at every step."""

    encoder: str = "smollm2"
    """Any encoder that memlm probe takes."""
    chunk_len: int = 32
    """Tokens per chunk."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of a pretrained encoder's weights."""

    def run(self) -> Answer:
        """Train the same reader for the same steps on cached and on fresh embeddings, in turn; medians over rounds.

        Both times hold all of a step: drawing chunks, embedding or looking up, whitening, forward, backward, update.
        """
        model = load_encoder(self.encoder, precision=self.precision)
        cfg = ReadingConfig(num_steps=STEPS, test_chunks=60)
        texts = ProbeTexts(model.tokenizer, list(read_documents(NamedCorpus())), cfg.test_fraction)
        data = texts.split_into_chunks(self.chunk_len, cfg)
        view = model.resolve(model.default_view, self.chunk_len)
        cached = data.chunks.map(lambda part: embed_chunks(model, [view], part)[0])
        live = cached._replace(train=_Live(model, view, data, cached.train))  # type: ignore[arg-type]
        codes = codes_of(model.token_table)[torch.from_numpy(data.types)]
        train = partial(train_reader, data, transform=Transform(cached.train), quiet=True)
        ways = {"cached": cached, "encoded": live}
        work = {name: partial(train, embedded, codes, ParallelReader(), cfg) for name, embedded in ways.items()}
        step = {name: seconds / STEPS for name, seconds in side_by_side(work, ROUNDS).items()}
        return {
            "cache_speedup": step["encoded"] / step["cached"],
            "seconds_per_step": step,
            "encoder": model.name,
            "chunk_len": self.chunk_len,
            "batch_chunks": cfg.chunks_per_step(self.chunk_len),
            "vocab_size": len(codes),
            **made_here(precision=self.precision),
        }


class _Live:
    """Embeddings that are made whenever they are looked up, as without a cache."""

    def __init__(self, encoder: FrozenEncoder, view: View, data: ProbeData, like: Vectors) -> None:
        self.encoder, self.view, self.chunks, self.shape = encoder, view, data.chunks.train, like.shape

    def __getitem__(self, rows: Any) -> Vectors:
        tokens, mask = (torch.from_numpy(np.asarray(part[rows])) for part in (self.chunks.tokens, self.chunks.mask))
        return self.encoder.embed(tokens, mask, [self.view])[0].cpu().numpy()
