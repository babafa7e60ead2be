"""What a campaign interrupts: work in a folder that can be stopped at any moment, and done again to the same end."""

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlm.bulk.encode import Job, encode_corpus
from memlm.bulk.source import open_source
from memlm.config import ParallelReader, ProbeConfig, ReadingConfig
from memlm.config.recipe import Recipe
from memlm.data.texts import everyday_lines
from memlm.probing.cells import probe
from memlm.runtime.files import atomic_folder, atomic_write
from memlm.runtime.results import read_json_lines
from memlm.store.file import MemoryFile
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.train import train

_CPU = "cpu"


@dataclass(frozen=True)
class Work(ABC):
    """Something that is done in a folder, in a process of its own."""

    base: Path
    """The folder of what it needs and what it tells; not the one that it is done in."""

    @abstractmethod
    def do(self, folder: Path, writer: int = 0) -> None:
        """Do it, or go on with it; `writer` tells those apart that do it at once."""

    @abstractmethod
    def result(self, folder: Path) -> str | None:
        """A digest of all that was to be made, None if it is not there yet."""

    def finished(self, folder: Path) -> dict[str, tuple[int, int]]:
        """The files that are made once and for all: which inode they are, and when they were written."""
        return {}

    def lost(self, folder: Path) -> str | None:
        """What it said was done and is not, if anything; may be asked at any moment."""
        return None

    def wrong(self, folder: Path, expected: str) -> str | None:
        """What is not as it is where nobody interrupts it, now that it is done."""
        return None if self.result(folder) == expected else "another result than without an interruption"

    def forget(self) -> None:
        """What it told, when it begins anew."""
        for said in self.base.glob("acknowledged-*"):
            said.unlink()


@dataclass(frozen=True)
class Training(Work):
    """A recipe, in as many stages as it has, which saves often."""

    recipe: Recipe[Any]

    def do(self, folder: Path, writer: int = 0) -> None:
        """Train."""
        train(self.recipe, folder, quiet=True)

    def result(self, folder: Path) -> str | None:
        """Of the weights, and of all losses on the way."""
        model = folder / "model"
        if not model.is_dir():
            return None
        told = [
            {name: value for name, value in row.items() if "second" not in name}
            for row in read_json_lines(folder / "metrics.jsonl")
        ]
        return _digest(json.dumps(told).encode(), *(path.read_bytes() for path in sorted(model.rglob("*.safetensors"))))


@dataclass(frozen=True)
class Appending(Work):
    """A file to which each writer appends its documents, one by one."""

    encoder: Path
    number: int = 8

    def do(self, folder: Path, writer: int = 0) -> None:
        """Make the file if there is none, and append what is not in it; tells of each document that is."""
        path, model = folder / "notes.memory", str(self.encoder)
        if not path.exists():
            try:
                MemoryFile.create(path, model, device=_CPU).close()
            except ValueError:  # another writer was first
                if not path.exists():
                    raise
        with MemoryFile.open(path, model, device=_CPU) as notes, self._acknowledged(writer).open("ab", 0) as said:
            have = {one.name for one in notes.documents}
            for name in self._names(writer):
                if name not in have:
                    notes.append(_text(name), name=name)
                    said.write(f"{name}\n".encode())

    def result(self, folder: Path) -> str | None:
        """Of the whole file, with the first writer's documents."""
        path = folder / "notes.memory"
        if not path.exists():
            return None
        with MemoryFile.open(path, _loaded(self.encoder)) as notes:
            there = {one.name for one in notes.documents}
        return _digest(path.read_bytes()) if there >= {*self._names(0)} else None

    def lost(self, folder: Path) -> str | None:
        """A document that was acknowledged and is not there, that is not what it was, or that is there twice."""
        path = folder / "notes.memory"
        said = {name for file in self.base.glob("acknowledged-*") for name in file.read_text().split()}
        if not path.exists():
            return f"the file is gone, with {len(said)} documents" if said else None
        with MemoryFile.open(path, _loaded(self.encoder)) as notes:
            names = [one.name for one in notes.documents]
            if gone := said - {*names}:
                return f"acknowledged, and not there: {', '.join(sorted(gone))}"
            if len(names) > len({*names}):
                return f"there more than once: {names}"
            if damage := notes.damaged():
                return f"damaged: {damage}"
            for one in notes.documents:
                if (text := notes.text(one.start_chunk, one.stop_chunk)) != _text(one.name):
                    return f"document {one.name} is {text[:100]!r}"
        return None

    def wrong(self, folder: Path, expected: str) -> str | None:
        """Of two writers' documents, nothing but that all are there is decided."""
        return None if self._acknowledged(1).exists() else super().wrong(folder, expected)

    def _acknowledged(self, writer: int) -> Path:
        return self.base / f"acknowledged-{writer}"

    def _names(self, writer: int) -> list[str]:
        return [f"{writer}-{number}" for number in range(self.number)]


@dataclass(frozen=True)
class Replacing(Work):
    """A folder that is replaced by another again and again, as a checkpoint that is saved where one is."""

    number: int = 400

    def do(self, folder: Path, writer: int = 0) -> None:
        """Replace it by one whose files all say the same, which is another thing each time."""
        for number in range(self.number):
            with atomic_folder(folder / "replaced") as new:
                for name in "ab":
                    (new / name).write_text(str(number), encoding="utf-8")
            (self.base / "acknowledged-0").touch()

    def result(self, folder: Path) -> str | None:
        """What the files say at last."""
        said = self._said(folder)
        return said[0] if said == [str(self.number - 1)] * 2 else None

    def lost(self, folder: Path) -> str | None:
        """Whether it is gone, though there was one, or half of one and half of another."""
        said = self._said(folder)
        if not said:
            return "the folder is gone" if (self.base / "acknowledged-0").exists() else None
        return None if len(said) == 2 and len({*said}) == 1 else f"its files say {said}"

    def _said(self, folder: Path) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in sorted((folder / "replaced").glob("*"))]


@dataclass(frozen=True)
class Encoding(Work):
    """A corpus, encoded in parts."""

    encoder: Path
    part_bytes: int = 2_000

    def do(self, folder: Path, writer: int = 0) -> None:
        """Encode what is not encoded."""
        which = {"text_column": "text", "subset": None, "split": None}
        source = open_source(str(self.base / "corpus"), **which, part_bytes=self.part_bytes)  # type: ignore[arg-type]
        job = Job.of(source, folder / "out", encoder=str(self.encoder), text=True, device=_CPU)
        encode_corpus(job)
        atomic_write(folder / "done", "")

    def result(self, folder: Path) -> str | None:
        """Of all parts, bit for bit."""
        if not (folder / "done").exists():
            return None
        return _digest(*(path.read_bytes() for path in _parts(folder)))

    def finished(self, folder: Path) -> dict[str, tuple[int, int]]:
        """Its parts."""
        return _written(_parts(folder))


@dataclass(frozen=True)
class Probing(Work):
    """A probe, with a small reader and all controls."""

    encoder: Path

    def do(self, folder: Path, writer: int = 0) -> None:
        """Probe, and write down what was found."""
        texts = [path.read_text(encoding="utf-8") for path in sorted((self.base / "corpus").iterdir())]
        reading = ReadingConfig(num_steps=3, max_chunks=300, test_chunks=20)
        small = ParallelReader(dim=32, num_layers=1, token_dim=8)
        cfg = ProbeConfig(chunk_lens=(8,), parallel=small, reading=reading)
        found = probe(self.encoder, texts, train_texts=texts, cfg=cfg, cache=folder / "cache").to_dict()
        found.pop("provenance")
        atomic_write(folder / f"probe-{writer}.json", json.dumps(found, sort_keys=True))

    def result(self, folder: Path) -> str | None:
        """Of all that it found."""
        path = folder / "probe-0.json"
        return _digest(path.read_bytes()) if path.exists() else None

    def finished(self, folder: Path) -> dict[str, tuple[int, int]]:
        """What it remembers."""
        return _written([*folder.glob("cache/probes/*.json"), *folder.glob("cache/readers/*.safetensors")])


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path) -> TextAutoencoder:
    """A model, loaded once."""
    return TextAutoencoder.from_pretrained(folder, device=_CPU)


def write_corpus(folder: Path, num_files: int) -> None:
    """A few everyday texts."""
    folder.mkdir()
    lines = everyday_lines("prose")
    for number in range(num_files):
        text = "\n".join(lines[number::num_files][:24])
        (folder / f"{number:02}.txt").write_text(text + "\n", encoding="utf-8")


def _text(name: str) -> str:
    return f"the memory {name} holds ünd 漢字 " * (1 + sum(name.encode()) % 4)


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("part-*.parquet"))


def _written(paths: Sequence[Path]) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
