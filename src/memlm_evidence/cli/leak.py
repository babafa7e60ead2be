"""`memlm leak`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from memlm.cli.command import Answer, HasWorkers, ReadsText, write_result
from memlm.config import LeakConfig

if TYPE_CHECKING:
    from memlm.probing.leak.results import LeakResult


@dataclass(frozen=True, kw_only=True)
class Leak(ReadsText, HasWorkers):
    """Measure what a vector store gives away, by length of text and precision, and what would hide it.

    memlm leak minilm --out runs/leak

    memlm leak minilm --text 'notes/*.md' --chunk-len 32 128 --bits 8 1 --noise 0.5 1

    memlm leak https://api.example.com/v1 --endpoint-model text-embedding-3-small --text 'notes/*.md' --out runs/leak

    Pieces of the text are embedded, and their vectors stored in several ways: as float32, rounded, and with noise. A
    linear map reads single words from all of them. A search, as in memlm invert, tries to recover some whole pieces
    from float32 and rounded vectors. Recall@10 shows what each way of storing costs in retrieval.

    minilm takes about ten minutes on two cores. If the command is interrupted, run it again with the same --out: it
    continues. Several processes may share that folder.
    """

    encoder: tyro.conf.Positional[str]
    """A sentence-transformers or Hugging Face model (folder or hub name), minilm, smollm2, a GGUF file, a memlm
    checkpoint (folder, or english), or the address of an endpoint in OpenAI's form (its key in OPENAI_API_KEY)."""
    text: tuple[str, ...] = ()
    """Text like that in your vector store: files, globs, or - for standard input; by default a novel."""
    cfg: tyro.conf.OmitArgPrefixes[LeakConfig] = field(default_factory=LeakConfig)
    language_model: str = "smollm2"
    """A causal language model for the language of the texts: a folder, hub name or .gguf file."""
    endpoint_model: str = ""
    """The name of the endpoint's model; required for an endpoint."""
    black_box: bool = False
    """Attack a memlm autoencoder's memories by search too, instead of decoding them."""
    workers: int = 0
    """Number of processes; 0 is one per core."""
    out: Path | None = None
    """Folder for leak.json and report.html. It keeps finished parts, so that an interrupted run can continue."""

    def run(self) -> Answer:
        """Measure and show."""
        import memlm
        from memlm_evidence.pages.leak import leak_page

        result = memlm.leak(
            self.encoder,
            self.documents(self.text) if self.text else None,
            cfg=self.cfg,
            language_model=self.language_model,
            endpoint_model=self.endpoint_model,
            black_box=self.black_box,
            folder=self.out,
            quiet=False,
            **self.who(self.workers),
        )
        self._show(result)
        if self.out:
            write_result(result, self.out / "leak.json")
            self.say(f"The whole report: {leak_page(result).write(self.out)}")
        return result.to_dict()

    def _show(self, result: "LeakResult") -> None:
        from memlm.cli.show import INTERVALS, print_table
        from memlm.probing.leak.results import KINDS
        from memlm_evidence.pages.leak import cost_table, given_table, kind_table

        read, given = result.of("words", "guess"), result.of("search", "decoder")
        tables = [kind_table(read, kind) for kind in KINDS] if read else []
        for table in (*tables, *([given_table(given)] if given else []), cost_table(result)):
            print_table(self.console(), table, f"{table.caption} {INTERVALS[0].upper()}{INTERVALS[1:]}.")
        self.say(f"\n{result.conclusion}")
