"""A probe: how much of a text an encoder's embeddings hold, at every chunk length, with controls and baselines."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from memlm.config import NamedCorpus, ProbeConfig
from memlm.data.cache import default_cache
from memlm.data.corpus import read_documents
from memlm.data.documents import Document
from memlm.probing.encoder_probe import CONTROLS, EncoderProbe
from memlm.probing.encoders import FrozenEncoder, load_encoder
from memlm.probing.results import ProbeResult
from memlm.probing.texts import ProbeTexts
from memlm.runtime.results import Provenance


def probe(
    encoder: str | Path | FrozenEncoder,
    texts: Sequence[str] | None = None,
    *,
    cfg: ProbeConfig | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    cache: Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> ProbeResult:
    """Measure how much of a text an encoder's embeddings hold.

    The encoder is frozen and embeds the texts once; readers are trained to regenerate them from the embeddings alone,
    and measured on held-out documents. What has been embedded or read before is taken from the cache, so that an
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
        Rows, one for each combination, controls and baselines.

    Raises:
        ValueError: the encoder, a layer, a pooling or a chunk length is impossible, or there is too little text.
    """
    cfg = replace(cfg or ProbeConfig(), **settings)
    documents = documents_of(texts)
    if not isinstance(encoder, FrozenEncoder):
        encoder = load_encoder(encoder, precision=precision)
    read = ProbeTexts(encoder.tokenizer, documents, cfg.reading.test_fraction)
    options: Any = {"cache": cache or default_cache(), "quiet": quiet}
    # All are built first, so that what cannot be done is refused before anything that takes long is begun.
    lengths = [EncoderProbe(encoder, read, cfg, chunk_len, **options) for chunk_len in cfg.chunk_lens]
    rows = tuple(row for length in lengths for row in length.rows())
    controls = tuple(row for length in lengths for row in length.controls()) if cfg.controls else ()
    dtype = str(encoder.token_table.dtype).removeprefix("torch.")
    return ProbeResult(
        encoder=encoder.name,
        rows=rows,
        controls={str(row.control): row for row in controls[: len(CONTROLS)]},
        control_rows=controls,
        baselines={str(length.chunk_len): length.baselines() for length in lengths if cfg.controls},
        round_trips=all(length.data.round_trips for length in lengths),
        provenance=Provenance.here(config=asdict(cfg), encoder=encoder.fingerprint, dtype=dtype),
    )


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
