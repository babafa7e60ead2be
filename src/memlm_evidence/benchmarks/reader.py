"""`memlm bench reader`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.config import AS_TOKENS, MAX_RATIO
from memlm.data.corpus import read_documents
from memlm.data.texts import evaluation_documents
from memlm.data.token_store import TokenSplit, prepare, tokenize_documents
from memlm.recipes.reader import reader as reader_recipe
from memlm.runtime.cpu import precision_on
from memlm.runtime.executor import run_jobs
from memlm.runtime.progress import console
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.reader_losses import whole_windows
from memlm_evidence.benchmarks.measuring import Benchmark, made_here
from memlm_evidence.benchmarks.reader_parts import Parts
from memlm_evidence.benchmarks.reader_rows import Readers, Texts
from memlm_evidence.benchmarks.reader_tables import print_reader


@dataclass(frozen=True, kw_only=True)
class ReaderBenchmark(Benchmark, UsesModel, ReadsText):
    """Measure what a reader gains from memories, beside the same model adapted to recent tokens or to the whole past.

    memlm bench reader runs/smollm2/model --last runs/last/model --full runs/full/model --out runs/measured

    If the command is interrupted, run it again with the same --out: it continues. Several processes may share that
    folder.
    """

    reader: tyro.conf.Positional[str]
    """A reader: a checkpoint folder, or one that ships with memlm."""
    last: str
    """The same language model, adapted to see only recent tokens (from memlm adapt --arm last)."""
    full: str
    """The same language model, adapted to see the whole past as tokens (from memlm adapt --arm full)."""
    out: Path | None = None
    """Folder that keeps finished parts of the measurement; by default none are kept."""
    text: tuple[str, ...] = ()
    """Text to measure on: files, globs, or - for standard input; by default held-out addresses, a novel and source
    code."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the language model's matrix products. auto is bf16 if the processor supports it, else fp32. Memories
    are always made in fp32."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, 0)
    """Tokens of the past per position; each ratio is measured. 0 gives each memory one position."""
    num_memories: tuple[int, ...] = ()
    """Lengths of the past in memories; each is measured, before the same predicted tokens. By default the most memories
    that the reader was trained on."""
    num_windows: int = 64
    """Number of texts of each kind; each has a past, read as memories, and the tokens that follow it."""
    num_copies: int = 16
    """Number of memories of each kind that the language model regenerates, at each ratio; 0 for none."""
    num_needles: int = 5
    """Number of needles (facts to find) of each kind at each length of the past; 0 for none."""
    needle_tokens: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Lengths of the past for needles, in the language model's tokens."""
    time_tokens: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Lengths of the past for timing, in the language model's tokens. Give none to leave timing out."""

    def run(self) -> Answer:
        """Measure; intervals are 95% over documents.

        Raises:
            ValueError: a number is out of range, the readers adapt different language models or are no such arms, no
                text is long enough, or the folder's parts were measured with other readers, texts or options.
        """
        unknown = [ratio for ratio in self.ratios if not 0 <= ratio <= MAX_RATIO]
        if unknown or not self.ratios:
            raise ValueError(f"ratios must lie from 0 (one position a memory) to {MAX_RATIO}, not {unknown[:1]}")
        if self.num_windows < 1 or min(self.num_copies, self.num_needles) < 0:
            wrong = f"not {self.num_windows}, {self.num_copies} and {self.num_needles}"
            raise ValueError(f"num_windows must be positive, num_copies and num_needles not negative, {wrong}")
        readers = self._readers()
        parts = Parts(
            readers=readers,
            texts=self._texts(readers),
            ratios=self.ratios,
            num_copies=self.num_copies,
            num_needles=self.num_needles,
            needle_tokens=self.needle_tokens,
            time_tokens=self.time_tokens,
        )
        jobs = parts.jobs()
        with TemporaryDirectory() as made:
            rows = run_jobs(jobs, self.out or Path(made), title="Reading")
        done = {job.name: row for job, row in zip(jobs, rows, strict=True)}
        provenances = {name: getattr(readers, name).provenance for name in ("last", "full")}
        answer = {
            **parts.answer(done),
            "precision": readers.precision,
            "device": readers.memory.device.type,
            "reader": asdict(readers.memory.config),
            **made_here(reader=readers.memory.provenance, **provenances, precision=readers.precision),
        }
        print_reader(console(stderr=True), answer)
        return answer

    def _readers(self) -> Readers:
        memory, last, full = (
            TextMemoryReader.from_pretrained(path, device=self.device) for path in (self.reader, self.last, self.full)
        )
        names = {"memory": memory.config.decoder.name, "last": last.config.decoder.name}
        names["full"] = full.config.decoder.name
        if len(set(names.values())) > 1:
            raise ValueError(f"these adapt different language models: {names}")
        # Swapped or wrong, they would be measured all the same, and mean nothing.
        for name, arm, read in (("last", last, ()), ("full", full, (AS_TOKENS,))):
            if arm.config.ratios != read:
                path = getattr(self, name)
                raise ValueError(f"--{name} is what memlm adapt --arm {name} has made, and {path} is another reader")
        return Readers(memory, last, full, precision_on(memory.device, self.precision))

    def _texts(self, readers: Readers) -> dict[str, Texts]:
        """Kinds of text that the reader has not seen, each with the longest past that it has room for.

        Raises:
            ValueError: none has room for any.
        """
        lengths = sorted({*(self.num_memories or (readers.memory.config.window.max_memories,))})
        if lengths[0] < 1:
            raise ValueError(f"num_memories must be positive, not {lengths[0]}")
        texts, told = {}, ValueError()
        for kind, split in self._kinds(readers.memory).items():
            for longest in reversed(lengths):
                try:
                    whole_windows(split, readers.memory.config, 1, longest)
                except ValueError as error:
                    told = error
                    continue
                texts[kind] = Texts(readers, split, self.num_windows, tuple(n for n in lengths if n <= longest))
                break
            if lengths[-1] not in (texts[kind].memories if kind in texts else ()):
                self.say(f"{kind} has no text of {lengths[-1]} memories and a chunk: not measured there", aside=True)
        if not texts:
            raise told
        return texts

    def _kinds(self, reader: TextMemoryReader) -> dict[str, TokenSplit]:
        """Kinds of text that the reader has not seen, as tokens of its encoder."""
        tokenizer = reader.encoder.tokenizer
        if self.text:
            return {"text": tokenize_documents(tokenizer, read_documents(self.corpus(self.text)))}
        held_out = prepare(reader_recipe(encoder=reader.config.encoder).data).splits["test"]
        others = {kind: tokenize_documents(tokenizer, evaluation_documents(kind)) for kind in ("novel", "code")}
        return {"addresses": held_out, **others}
