"""`memlm.leak`: how much text comes back from an encoder's embeddings, and what would hide it at what loss."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memlm.config import LeakConfig
from memlm.data.texts import evaluation_documents
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.inversion.embedder import Embedder
from memlm.probing.inversion.invert import Inverter
from memlm.probing.leak.conclusion import conclusion
from memlm.probing.leak.parts import Parts
from memlm.probing.leak.results import LeakResult
from memlm.probing.leak.summary import attack_rows, found_texts, storage_rows, texts_of
from memlm.runtime.executor import Row, Workers, require_workers, run_jobs
from memlm.runtime.results import Provenance


def leak(
    encoder: str | Path | FrozenEncoder | Embedder,
    texts: Sequence[str] | None = None,
    *,
    cfg: LeakConfig | None = None,
    language_model: str = "smollm2",
    endpoint_model: str = "",
    black_box: bool = False,
    folder: Path | None = None,
    num_workers: int = 1,
    ray_address: str | None = None,
    cache: Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> LeakResult:
    """Measure what a vector store gives away: text, names and numbers, by length and precision, beside Recall@10.

    Pieces of the texts are embedded, stored (float32, rounded, with noise), and attacked: words are read off all of
    them at once by a linear map, a few are searched for as `memlm.invert` does, and a memlm autoencoder's memories are
    decoded. Whatever stronger attacks there are get more.

    ```python
    memlm.leak("minilm", texts, chunk_lens=(16, 64), noise=(1.0,)).conclusion
    ```

    Args:
        encoder: any that `memlm.invert` takes.
        texts: documents of the kind that the store holds; by default a novel.
        cfg: lengths, precisions, noise and budget; by default `LeakConfig()`.
        language_model: a causal language model of the texts' language.
        endpoint_model: the name of the endpoint's model.
        black_box: search, even for a memlm autoencoder's memories.
        folder: keeps what is measured, part by part, so that an interrupted measurement goes on.
        num_workers: processes; 0 is one for each core.
        ray_address: of the Ray whose processes they are, `local` or a cluster's, which then needs a shared `folder`.
        cache: folder for what is fitted once for each encoder, and for an endpoint's answers.
        quiet: show no progress.
        settings: fields of `LeakConfig` to set anew.

    Raises:
        ValueError: no such encoder, too little text, an option that cannot be, an endpoint that does not answer, or a
            folder with parts that were measured otherwise.
    """
    require_workers(num_workers, ray_address)
    cfg = replace(cfg or LeakConfig(), **settings)
    given = [document.text for document in evaluation_documents("novel")] if texts is None else texts
    options: dict[str, Any] = {"endpoint_model": endpoint_model, "black_box": black_box, "cache": cache, "quiet": quiet}
    parts = Parts(
        open=partial(Inverter.of, encoder, language_model, **options),
        texts=tuple(" ".join(text.split()) for text in given),
        cfg=cfg,
    )
    jobs = parts.jobs()
    if not parts.own:
        _ = parts.inverter.missing  # trained once, before workers want it
    with TemporaryDirectory() as made:
        who = Workers(num_workers=num_workers, ray_address=ray_address)
        rows = run_jobs(jobs, folder or Path(made), **who, title="Attacking", quiet=quiet)
    return _result(parts, {job.name: row for job, row in zip(jobs, rows, strict=True)})


def _result(parts: Parts, done: Mapping[str, Row]) -> LeakResult:
    """What the parts' rows, by their names, say together."""
    texts, cfg = texts_of(done), parts.cfg
    result = LeakResult(
        encoder=parts.inverter.embedder.name,
        dim=parts.dim,
        rows=tuple(attack_rows(texts, cfg)),
        stored=tuple(storage_rows(texts, done.get("recall"), cfg)),
        texts=tuple(found_texts(texts, cfg)),
        provenance=Provenance.here(**asdict(cfg), language_model=parts.inverter.language_model),
    )
    return replace(result, conclusion=conclusion(result))
