"""What is asked of a probe: which views of an encoder, by which reader."""

from dataclasses import asdict, replace
from typing import Any, NamedTuple

from memlm.config import (
    READERS,
    Degradation,
    PretrainedReader,
    ProbeConfig,
    Reader,
    ReaderName,
    ReadingConfig,
    SettleConfig,
)
from memlm.models.load_pretrained import weights_fingerprint
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.results import View


class ReaderSpec(NamedTuple):
    """Which reader of what."""

    view: View
    reader: Reader
    seed: int
    degradation: Degradation | None = None
    control: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON; of a pretrained reader also its weights, by their fingerprint."""
        degradation, reader = asdict(self.degradation) if self.degradation else None, asdict(self.reader)
        if isinstance(self.reader, PretrainedReader):
            reader["weights"] = weights_fingerprint(self.reader.model)
        return {**self._asdict(), "view": str(self.view), "reader": reader, "degradation": degradation}

    def __str__(self) -> str:
        degraded = f", {self.degradation.kind}" if self.degradation else ""
        return f"{self.control or self.view}{degraded}, {self.reader.kind}, seed {self.seed}"


def reader_named(name: ReaderName, cfg: ProbeConfig | SettleConfig) -> Reader:
    """A reader by its name on the command line."""
    if name == "pretrained":
        return cfg.pretrained
    return cfg.parallel if name == "parallel" and isinstance(cfg, ProbeConfig) else READERS[name]


def drawn(cfg: ProbeConfig, chunk_len: int) -> ReadingConfig:
    """The budget by which chunks are chosen: as many as any reader draws; a pretrained one learns words from all."""
    reading = cfg.reading
    if "pretrained" not in cfg.readers:
        return reading
    all_of_them = -(-reading.max_chunks // reading.num_steps)
    return replace(reading, batch_chunks=max(reading.chunks_per_step(chunk_len), all_of_them))


def views_of(encoder: FrozenEncoder, cfg: ProbeConfig, chunk_len: int) -> list[View]:
    """The views asked for, or the encoder's own, resolved.

    Raises:
        ValueError: the encoder has no such view, or cannot read chunks of this length.
    """
    poolings = cfg.poolings or (encoder.default_view.pooling,)
    if cfg.layers != (-1,) and set(poolings) & {"memory", "sentence"}:
        raise ValueError(f"{poolings[0]} is made of the last layer alone; to read layers, choose last or mean pooling")
    asked = [View(layer, pooling) for pooling in poolings for layer in cfg.layers]
    return list(dict.fromkeys(encoder.resolve(view, chunk_len) for view in asked))
