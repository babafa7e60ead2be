"""`memlm encode-corpus`."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from memlm.cli.command import Answer, UsesModel
from memlm.runtime.wording import counted, printable


@dataclass(frozen=True, kw_only=True)
class EncodeCorpus(UsesModel):
    """Encode a corpus of any size, one memory per chunk, into Parquet files or a Lance data set.

    memlm encode-corpus texts/ --out memories

    memlm encode-corpus 'crawl/*.jsonl.gz' --encoder english --out memories --workers 8 --dtype float16 --text

    memlm encode-corpus HuggingFaceFW/fineweb-edu --subset sample-10BT --out memories.lance --format lance

    The corpus is encoded in parts. Each part is a file that appears whole or not at all. If the command is killed, run
    it again: it continues, and encodes no finished part twice. The rows do not depend on the number of workers. Search
    them with memlm nearest. Several workers need pip install 'memlm[ray]', Lance needs 'memlm[lance]'.
    """

    source: tyro.conf.Positional[str]
    """A folder, a file, a glob, or the name of a Hugging Face data set. Parquet (.parquet) and JSON lines (.jsonl,
    .ndjson, .json) have a text column; any other file is text in UTF-8. In a folder, only one kind of file is read:
    Parquet if there is any, else JSON lines, else text (.txt, .md, .text)."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The folder to write: it will hold files part-*.parquet, or be a Lance data set."""
    encoder: str = "english"
    """An autoencoder that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    text_column: str = "text"
    """The column of Parquet or JSON lines that holds the text."""
    subset: str | None = None
    """The subset (configuration) of a Hugging Face data set, such as sample-10BT."""
    split: str | None = None
    """The split of a Hugging Face data set; by default train."""
    format: Literal["parquet", "lance"] | None = None
    """What to write. By default Lance if the name of the folder ends with .lance, else Parquet."""
    dtype: Literal["float32", "float16", "bit"] | None = None
    """How each number is stored. By default as float32; as a bit if the encoder's memories are signs (num_bits 1)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of matrix products. bf16 takes half the time on processors that support it, and changes memories by
    0.003 of their root mean square."""
    text: bool = False
    """Store the text of each chunk beside its memory."""
    bad_lines: Literal["stop", "skip"] = "stop"
    """What to do with a line of a JSON lines file that holds no text: stop there, or skip it. At the end the number of
    skipped lines and the first of them are printed."""
    workers: int = 1
    """Number of processes, each with one core or one GPU. More than one needs Ray."""
    ray_address: str | None = None
    """Address of the Ray cluster to run on, or auto; all its machines must see the same files. By default several
    workers run on a Ray started for this command on this machine."""
    part_mb: float = 8.0
    """Size of a part in megabytes of text. A killed worker has to encode its part again."""

    def run(self) -> Answer:
        """Encode what is left of it."""
        from memlm.bulk.encode import Job, encode_corpus, in_this_process
        from memlm.bulk.ray_workers import RayWorkers
        from memlm.bulk.source import open_source
        from memlm.runtime.cluster import LOCAL

        if self.workers < 1:
            raise ValueError(f"--workers must be positive, not {self.workers}")
        if not 0 < self.part_mb < math.inf:
            raise ValueError(f"--part-mb must be positive, not {self.part_mb}")
        part_bytes = max(1, int(self.part_mb * 1e6))
        which = {
            "text_column": self.text_column,
            "subset": self.subset,
            "split": self.split,
            "bad_lines": self.bad_lines,
        }
        source = open_source(self.source, **which, part_bytes=part_bytes)  # type: ignore[arg-type]
        how = {
            "format": self.format or ("lance" if self.out.suffix == ".lance" else "parquet"),
            "dtype": self.dtype,
            "text": self.text,
            "device": self.device,
            "precision": self.precision,
        }
        job = Job.of(source, self.out, encoder=self.encoder, **how)  # type: ignore[arg-type]
        alone, begin = self.workers == 1 and self.ray_address is None, time.monotonic()
        workers = in_this_process if alone else RayWorkers(self.workers, self.ray_address or LOCAL)
        answer = encode_corpus(job, workers)
        answer |= {"out": str(self.out), "workers": self.workers, "seconds": time.monotonic() - begin}
        self.say(
            f"{answer['chunks']} chunks of {answer['documents']} documents, {answer['row_bytes']} bytes each, in "
            f"{self.out}; {answer['parts_before']} of {answer['parts']} parts were already there"
        )
        if answer["bad_lines"]:
            self.say(
                printable(f"{counted(answer['bad_lines'], 'bad line')} skipped; the first: {answer['first_bad_line']}")
            )
        return answer
