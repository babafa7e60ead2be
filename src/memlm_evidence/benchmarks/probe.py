"""What the cache of embeddings saves: a reader's steps from the cache, and encoding anew at every step."""

from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from memlm.config import NamedCorpus, ParallelReader, ReadingConfig
from memlm.data.corpus import read_documents
from memlm.probing.embed import Vectors, embed_chunks
from memlm.probing.encoders import FrozenEncoder, View, load_encoder
from memlm.probing.texts import ProbeData, ProbeTexts
from memlm.probing.trained_reader import codes_of, train_reader
from memlm.probing.transform import Transform
from memlm.runtime.results import Provenance
from memlm_evidence.benchmarks.steps import timed

ROUNDS = 3
STEPS = 8


def probe_speed(encoder: str, *, chunk_len: int, precision: Literal["fp32", "bf16"]) -> dict[str, Any]:
    """The same reader trained for the same steps on cached and on fresh embeddings, in turn; medians over rounds.

    Both times hold all of a step: drawing chunks, embedding or looking up, whitening, forward, backward, update.
    """
    model = load_encoder(encoder, precision=precision)
    cfg = ReadingConfig(num_steps=STEPS, test_chunks=60)
    data = ProbeTexts(model.tokenizer, list(read_documents(NamedCorpus())), cfg.test_fraction).split_into_chunks(
        chunk_len, cfg
    )
    view = model.resolve(model.default_view, chunk_len)
    cached = data.chunks.map(lambda part: embed_chunks(model, [view], part)[0])
    live = cached._replace(train=_Live(model, view, data, cached.train))  # type: ignore[arg-type]
    codes = codes_of(model.token_table)[torch.from_numpy(data.types)]
    transform = Transform(cached.train)
    seconds: dict[str, list[float]] = {"cached": [], "encoded": []}
    for number in range(ROUNDS + 1):
        for name, embedded in (("cached", cached), ("encoded", live)):
            given = data, embedded, codes, ParallelReader(), cfg
            _, spent = timed(partial(train_reader, *given, transform=transform, quiet=True))
            if number:  # the first round warms up
                seconds[name].append(spent / STEPS)
    step = {name: median(times) for name, times in seconds.items()}
    return {
        "cache_speedup": step["encoded"] / step["cached"],
        "seconds_per_step": step,
        "encoder": model.name,
        "chunk_len": chunk_len,
        "batch_chunks": cfg.chunks_per_step(chunk_len),
        "vocab_size": len(codes),
        "num_threads": torch.get_num_threads(),
        "provenance": asdict(Provenance.here(precision=precision)),
    }


class _Live:
    """Embeddings that are made whenever they are looked up, as without a cache."""

    def __init__(self, encoder: FrozenEncoder, view: View, data: ProbeData, like: Vectors) -> None:
        self.encoder, self.view, self.chunks, self.shape = encoder, view, data.chunks.train, like.shape

    def __getitem__(self, rows: Any) -> Vectors:
        tokens, mask = (torch.from_numpy(np.asarray(part[rows])) for part in (self.chunks.tokens, self.chunks.mask))
        return self.encoder.embed(tokens, mask, [self.view])[0].numpy()
