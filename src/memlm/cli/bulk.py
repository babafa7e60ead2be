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

    It is done in parts, each a file that appears whole or not at all. If it is killed, the same command goes on, and
    does nothing twice; rows are the same whatever the number of workers. Several workers need pip install
    'memlm[ray]', Lance needs 'memlm[lance]'. Then memlm nearest searches in it.
    """

    source: tyro.conf.Positional[str]
    """A folder, a file, a glob, or the name of a Hugging Face data set. Parquet (.parquet) and JSON lines (.jsonl,
    .ndjson, .json) have a column of text; any other file is text in UTF-8. Of a folder, Parquet is read if there is
    any, else JSON lines, else text (.txt, .md)."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The folder to write: files part-*.parquet, or a Lance data set."""
    encoder: str = "english"
    """An autoencoder that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    text_column: str = "text"
    """Of Parquet and JSON lines."""
    subset: str | None = None
    """Of a data set, such as sample-10BT."""
    split: str | None = None
    """Of a data set; by default train."""
    format: Literal["parquet", "lance"] | None = None
    """What to write; by default Lance where the folder's name ends so, else Parquet."""
    dtype: Literal["float32", "float16", "bit"] | None = None
    """How numbers are stored: by default as float32; of encoders whose memories are signs (num_bits 1), as a bit."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products: bf16 takes half the time where processors have it, and moves memories by 0.003 of their root
    mean square."""
    text: bool = False
    """Keep the text of each chunk beside its memory."""
    bad_lines: Literal["stop", "skip"] = "stop"
    """Of JSON lines, what to do with one that holds no text: stop at it, or skip it; how many, and the first, is then
    said."""
    workers: int = 1
    """Processes, each with one core or one GPU; one needs no Ray."""
    ray_address: str | None = None
    """A Ray cluster to work on, such as auto; all its machines must see the same files. By default local: a Ray of its
    own on this machine."""
    part_mb: float = 8.0
    """Millions of bytes of text in a part: what a killed worker has to do again."""

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
            f"{self.out}; {answer['parts_before']} of {answer['parts']} parts were there before"
        )
        if answer["bad_lines"]:
            self.say(
                printable(f"{counted(answer['bad_lines'], 'bad line')} skipped; the first: {answer['first_bad_line']}")
            )
        return answer
