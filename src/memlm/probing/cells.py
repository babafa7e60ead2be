"""A probe: how much of a text an encoder's embeddings hold, at every chunk length, with controls and baselines."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from memlm.config import ProbeConfig
from memlm.data.cache import default_cache
from memlm.probing.encoders import FrozenEncoder, load_encoder
from memlm.probing.probe import CONTROLS, EncoderProbe
from memlm.probing.results import ProbeResult
from memlm.probing.specs import ReaderSpec
from memlm.probing.texts import ProbeTexts, documents_of
from memlm.runtime.cache import digest
from memlm.runtime.executor import Job, Row, Workers, require_workers, run_jobs
from memlm.runtime.results import Provenance
from memlm.text.model import default_device


def probe(
    encoder: str | Path | FrozenEncoder,
    texts: Sequence[str] | None = None,
    *,
    train_texts: Sequence[str] | None = None,
    cfg: ProbeConfig | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    num_workers: int = 1,
    ray_address: str | None = None,
    cache: Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> ProbeResult:
    """Measure how much of a text an encoder's embeddings hold.

    The encoder is frozen and embeds the texts once. Readers are trained to regenerate other texts from the embeddings
    alone, and measured on these; if these are long (2 MB or more), readers are trained further on a part of them first.
    What has been embedded or read before and the readers are taken from the cache, so that an interrupted probe goes on
    where it was, and another text takes about a minute.

    ```python
    memlm.probe("minilm", texts, chunk_lens=(16, 32)).rows
    ```

    Args:
        encoder: a memlm checkpoint, a Hugging Face or sentence-transformers model (folder or hub name), a GGUF file.
        texts: documents; by default the presidential addresses that come with memlm.
        train_texts: what readers learn from, by default the addresses. Where they are the texts, some are held out.
        cfg: what to read; by default `ProbeConfig()`.
        precision: of a pretrained encoder's weights.
        num_workers: processes that measure combinations and controls side by side; 0 is one for each core.
        ray_address: of the Ray whose processes they are, `local` or a cluster's, which then must share the cache.
        cache: folder; by default memlm's own.
        quiet: show no progress.
        settings: fields of `ProbeConfig` to set anew.

    Returns:
        Rows, one for each combination, controls and baselines.

    Raises:
        ValueError: the encoder, a layer, a pooling or a chunk length is impossible, or there is too little text.
    """
    cfg = replace(cfg or ProbeConfig(), **settings)
    require_workers(num_workers, ray_address)
    cells = _Cells(encoder, texts, train_texts, cfg, precision, cache or default_cache(), quiet)
    for doubt in cells.doubts():
        warnings.warn(doubt, stacklevel=2)
    if num_workers != 1 or ray_address is not None:  # what they measure is then remembered
        who = Workers(num_workers=num_workers, ray_address=ray_address)
        run_jobs(cells.jobs(), cells.folder, **who, title=f"Probing {cells.encoder.name}", quiet=quiet)
    return cells.result()


@dataclass(frozen=True)
class _Cells:
    """All that is measured of an encoder; a worker gets what was given, and opens the encoder itself."""

    given: str | Path | FrozenEncoder
    texts: Sequence[str] | None
    train_texts: Sequence[str] | None
    cfg: ProbeConfig
    precision: Literal["fp32", "bf16"]
    cache: Path
    quiet: bool

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"quiet": True}

    @cached_property
    def encoder(self) -> FrozenEncoder:
        """The encoder, where it runs."""
        if isinstance(self.given, FrozenEncoder):
            return self.given
        return load_encoder(self.given, precision=self.precision).to(default_device())

    @cached_property
    def read(self) -> ProbeTexts:
        """The texts, for the encoder's tokenizer."""
        learned, documents = documents_of(self.train_texts), documents_of(self.texts)
        return ProbeTexts.after(learned, documents, self.encoder.tokenizer, self.cfg.reading.test_fraction)

    @cached_property
    def lengths(self) -> dict[int, EncoderProbe]:
        """By chunk length. All are built at once, so that what cannot be done is refused before anything that takes
        long is begun."""
        opened = partial(EncoderProbe, self.encoder, self.read, self.cfg, cache=self.cache, quiet=self.quiet)
        return {length: opened(length) for length in self.cfg.chunk_lens}

    def doubts(self) -> Iterator[str]:
        """What may be wrong with the texts."""
        return (doubt for each in self.lengths.values() for doubt in self.read.doubts(each.data, self.cfg.reading))

    def jobs(self) -> list[Job]:
        """A job for each row; its file is the one in which it is remembered."""
        reading, made = self.cfg.reading, dict[str, Job]()
        for chunk_len, length in self.lengths.items():
            tokens = reading.num_steps * reading.chunks_per_step(chunk_len) * chunk_len
            beside = (*length.control_specs(), length.causal_spec) if self.cfg.controls else ()
            for spec in (*length.specs(), *beside):
                name = digest(length.key(spec))
                made[name] = Job(name=name, run=partial(self.entry, chunk_len, spec), num_tokens=tokens)
        return [*made.values()]

    @property
    def folder(self) -> Path:
        """Where rows are remembered."""
        return next(iter(self.lengths.values())).memory.folder

    def result(self) -> ProbeResult:
        """All rows; what has not been measured yet is."""
        lengths, encoder = [*self.lengths.values()], self.encoder
        rows = tuple(row for length in lengths for row in length.rows())
        controls = tuple(row for length in lengths for row in length.controls()) if self.cfg.controls else ()
        dtype = str(encoder.token_table.dtype).removeprefix("torch.")
        return ProbeResult(
            encoder=encoder.name,
            rows=rows,
            controls={str(row.control): row for row in controls[: len(CONTROLS)]},
            control_rows=controls,
            baselines={str(length.chunk_len): length.baselines() for length in lengths if self.cfg.controls},
            round_trips=all(length.data.round_trips for length in lengths),
            provenance=Provenance.here(config=asdict(self.cfg), encoder=encoder.fingerprint, dtype=dtype),
        )

    def entry(self, chunk_len: int, spec: ReaderSpec) -> Row:
        """A row as it is remembered, measured if it has not been."""
        length = self.lengths[chunk_len]
        return {"key": length.key(spec), "value": length.remembered(spec)}
