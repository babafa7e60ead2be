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

    With --text, pieces of it are embedded, inverted and compared. A memlm autoencoder's memories are simply decoded.
    The first time, what reads words off the encoder's vectors is learned, from some 100,000 encodings, and kept.
    """

    encoder: tyro.conf.Positional[str]
    """A sentence-transformers or Hugging Face model (folder or hub name), minilm, smollm2, a GGUF file, a memlm
    checkpoint (folder, or english), or the address of an endpoint in OpenAI's form (its key in OPENAI_API_KEY)."""
    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input: pieces of them are embedded, and their embeddings inverted."""
    vectors: Path | None = None
    """A file of embeddings [text dim], or of one [dim], .npy or .safetensors."""
    chunk_len: int | None = None
    """Tokens of each text: of --text 16 by default; of --vectors, if all texts have as many, and that is known."""
    max_chunks: int = 30
    """Embeddings to invert at most."""
    length_unknown: bool = False
    """With --text, do not tell the search how many tokens the texts have."""
    black_box: bool = False
    """Search also for a memlm autoencoder's memories, instead of decoding them."""
    encodings: int = 20_000
    """Texts that may be embedded for each."""
    language_model: str = "smollm2"
    """A causal language model of the texts' language: a folder, hub name or .gguf file."""
    reader_steps: int = 0
    """Let the language model first learn, in so many steps of 16 pairs, to read embeddings of texts of --chunk-len
    tokens (160: ten minutes on a core for 16 tokens; kept): what it proposes then goes with the vector."""
    endpoint_model: str = ""
    """The name of the endpoint's model, which an endpoint must be given."""
    seed: int = 0
    """Of the pieces and of the search."""

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
            self.say(f"the first {self.max_chunks} of {len(given)} vectors are inverted: see --max-chunks", aside=True)
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
