"""`memlm invert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from memlm.cli.command import Answer, ReadsText

if TYPE_CHECKING:
    from memlm.probing.inversion.results import InversionResult


@dataclass(frozen=True, kw_only=True)
class Invert(ReadsText):
    """Recover texts from their embeddings by search, as anyone could who has the vectors and the encoder.

    memlm invert minilm --text README.md --chunk-len 16 --max-chunks 30

    memlm invert minilm --vectors store.npy

    memlm invert https://api.example.com/v1 --endpoint-model text-embedding-3-small --vectors store.safetensors

    With --text, pieces of the text are embedded, and what comes back is compared with them. A memlm autoencoder's
    memories are simply decoded. The first run with an encoder learns to read words from its vectors, with some 100,000
    encodings, and keeps that for later runs.
    """

    encoder: tyro.conf.Positional[str]
    """A sentence-transformers or Hugging Face model (folder or hub name), minilm, smollm2, a GGUF file, a memlm
    checkpoint (folder, or english), or the address of an endpoint in OpenAI's form (its key in OPENAI_API_KEY)."""
    text: tuple[str, ...] = ()
    """Embed pieces of this text and invert the embeddings: files, globs, or - for standard input."""
    vectors: Path | None = None
    """Invert the embeddings in this .npy or .safetensors file, of shape [text dim], or [dim] for a single one."""
    chunk_len: int | None = None
    """Tokens in each text. With --text, 16 by default. With --vectors, give it only if you know that all the texts have
    this length."""
    max_chunks: int = 30
    """Invert at most this many embeddings."""
    length_unknown: bool = False
    """With --text, do not tell the search how many tokens the texts have."""
    black_box: bool = False
    """Attack a memlm autoencoder's memories by search too, instead of decoding them."""
    encodings: int = 20_000
    """Budget of the search: the number of texts that may be embedded to find one text."""
    language_model: str = "smollm2"
    """A causal language model for the language of the texts: a folder, hub name or .gguf file."""
    reader_steps: int = 0
    """Train the language model for this many steps (of 16 pairs) to read embeddings of texts of --chunk-len tokens, so
    that what it proposes fits the vector. 160 steps take one core ten minutes for 16 tokens, and are kept. 0 leaves
    this out."""
    endpoint_model: str = ""
    """The name of the endpoint's model; required for an endpoint."""
    seed: int = 0
    """Random seed for the choice of pieces and for the search."""

    def run(self) -> Answer:
        """Invert and show."""
        if bool(self.text) == (self.vectors is not None):
            raise ValueError("give either --text, to embed and invert, or --vectors")
        if self.length_unknown and not self.text:
            raise ValueError(
                "--length-unknown is of --text: of --vectors the length is unknown unless --chunk-len says it"
            )
        for name in ("encodings", "max_chunks"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}")
        from memlm.probing.inversion.vectors import read_vectors

        # What cannot be read is refused before torch is loaded.
        texts = self.documents(self.text) if self.text else []
        given = None if self.vectors is None else read_vectors(self.vectors)
        from memlm.probing.inversion.invert import Inverter
        from memlm.probing.inversion.measure import invert_texts, summary

        if given is not None and len(given) > self.max_chunks:
            self.say(f"the first {self.max_chunks} of {len(given)} vectors are inverted (--max-chunks)", aside=True)
            given = given[: self.max_chunks]
        inverter = Inverter.of(
            self.encoder,
            self.language_model,
            endpoint_model=self.endpoint_model,
            black_box=self.black_box,
            reader_steps=self.reader_steps,
            quiet=False,
        )
        budget = {"encodings": self.encodings, "seed": self.seed}
        if given is not None:
            rows = inverter.invert(given, chunk_len=self.chunk_len, quiet=False, **budget)
            result = summary(inverter, rows, chunk_len=self.chunk_len, **budget)
        else:
            length = 16 if self.chunk_len is None else self.chunk_len
            result = invert_texts(
                inverter,
                texts,
                chunk_len=length,
                max_chunks=self.max_chunks,
                length_known=not self.length_unknown,
                quiet=False,
                **budget,
            )
        self._show(result)
        return result.to_dict()

    def _show(self, result: "InversionResult") -> None:
        from memlm.runtime.wording import printable

        for row in result.texts:
            if row.original is not None:
                self.say(f"- {printable(row.original)}")
            self.say(f"{'=' if row.found else '+'} {printable(row.text)}  ({row.cosine:.3f})")
        names = ("f1", "exact", "bleu", "cosine", "encodings_per_text", "seconds_per_text")
        for name in names:
            value = getattr(result, name)
            if value is not None:
                between = result.intervals.get(name)
                shown = f" [{between.low:.3g}, {between.high:.3g}]" if between else ""
                self.say(f"{name}: {value:.3f}{shown}")
