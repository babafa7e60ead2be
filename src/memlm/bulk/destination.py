"""Where the memories of a corpus go: part by part, each whole or not at all, so that what is finished can be told."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from memlm.bulk.rows import MEMORY
from memlm.runtime.extras import extra
from memlm.runtime.files import UNFINISHED, atomic_file, atomic_write, make_folder, write_failed
from memlm.runtime.untrusted import json_of

Format = Literal["parquet", "lance"]
_NOTES = "_memlm"
"""The folder of what is no data; readers of Parquet folders pass over it."""
_PLAN = "plan.json"
_COUNTS = b"memlm.counts"
ROW_GROUP = 4096
"""Rows of a Parquet file that are read together: a found row costs so many."""


class Counts(NamedTuple):
    """How much was encoded."""

    documents: int = 0
    chunks: int = 0
    tokens: int = 0
    text_bytes: int = 0
    bad_lines: int = 0
    """That were skipped."""
    first_bad_line: str = ""
    """Where it is, and what is wrong with it."""

    def plus(self, other: "Counts") -> "Counts":
        """Both together, of which this comes first."""
        sums = map(add, self[:-1], other[:-1])
        return Counts._make([*sums, self.first_bad_line or other.first_bad_line])


Batches = Iterable[tuple[pa.Table, Counts]]
"""Tables, and how much each holds."""


@dataclass(frozen=True)
class Destination(ABC):
    """A folder that is filled in parts."""

    folder: Path
    format: ClassVar[Format]

    @abstractmethod
    def write(self, number: int, schema: pa.Schema, batches: Batches) -> Counts:
        """Write a part, whole or not at all; same errors as `atomic_file`."""

    @abstractmethod
    def counts(self, number: int) -> Counts | None:
        """How much a part holds; None if it is not finished.

        Raises:
            ValueError: it is damaged.
        """

    @abstractmethod
    def complete(self, num_parts: int, schema: pa.Schema) -> None:
        """Make one whole of all parts, which are finished."""

    @property
    def notes(self) -> Path:
        """The folder of the plan."""
        return self.folder / _NOTES

    def begin(self, plan: Mapping[str, Any]) -> FileLock:
        """Write down what will be here, or see that it is what is here already; nobody else writes meanwhile.

        Raises:
            ValueError: something else is here, or somebody is writing it.
            OSError: it cannot be written.
        """
        path = self.notes / _PLAN
        if not path.is_file() and self.folder.is_dir() and any(self._others()):
            raise ValueError(f"{self.folder} holds something else already: give a new folder, or an empty one")
        lock = FileLock(self.notes / "lock")
        try:
            make_folder(self.notes)
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"somebody else is writing {self.folder}; wait for it, or give another folder") from None
        except OSError as error:
            raise write_failed(self.folder, error) from error
        try:
            self._require_same(path, plan)
            self.sweep()
        except BaseException:
            lock.release()
            raise
        return lock

    def sweep(self) -> None:
        """Remove what killed workers have left."""
        for left in [*self.folder.rglob(f".*{UNFINISHED}")]:
            shutil.rmtree(left, ignore_errors=True)

    def _others(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if path.name != _NOTES)

    def _require_same(self, path: Path, plan: Mapping[str, Any]) -> None:
        if not path.is_file():
            atomic_write(path, json.dumps(plan, indent=2) + "\n")
            return
        try:
            found = json_of(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        for name, value in plan.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{self.folder} holds another run: {name.replace('_', ' ')} was {found.get(name)!r} there, and is "
                    f"{value!r} now; give another folder"
                )


class ParquetFolder(Destination):
    """A file for each part."""

    format = "parquet"

    def path(self, number: int) -> Path:
        """Of a part."""
        return self.folder / f"part-{number:06}.parquet"

    def write(self, number: int, schema: pa.Schema, batches: Batches) -> Counts:
        """Write a part."""
        total = Counts()
        with atomic_file(self.path(number)) as path, parquet_writer(path, schema) as writer:
            for table, counts in batches:
                if len(table):  # none would be a group of rows, too
                    writer.write_table(table, row_group_size=ROW_GROUP)
                total = total.plus(counts)
            writer.add_key_value_metadata({_COUNTS: json.dumps(total)})
        return total

    def counts(self, number: int) -> Counts | None:
        """How much a part holds."""
        path = self.path(number)
        if not path.exists():
            return None
        try:
            said = pq.read_metadata(path).metadata or {}
            return Counts(*json_of(said[_COUNTS]))
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it, and it is made anew") from None

    def complete(self, num_parts: int, schema: pa.Schema) -> None:
        """Files are one whole as they are."""


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A file of rows; names and texts are compressed, memories cannot be."""
    compression = {name: "zstd" for name in schema.names if name != MEMORY} | {f"{MEMORY}.list.element": "none"}
    return pq.ParquetWriter(path, schema, compression=compression, use_dictionary=["document"])


class LanceFolder(Destination):
    """One Lance data set: parts are its fragments, which make a version when all are there."""

    format = "lance"

    def _path(self, number: int) -> Path:
        return self.notes / f"part-{number:06}.json"

    def write(self, number: int, schema: pa.Schema, batches: Batches) -> Counts:
        """Write a part."""
        extra("lance", "writing Lance")
        from lance.fragment import write_fragments

        total = Counts()

        def rows() -> Iterator[pa.RecordBatch]:
            nonlocal total
            for table, counts in batches:
                total = total.plus(counts)
                yield from table.to_batches()

        reader = pa.RecordBatchReader.from_batches(schema, rows())
        fragments = write_fragments(reader, str(self.folder), schema=schema, mode="create")
        # What a killed process leaves of its fragments no version names; Lance's own cleanup removes it.
        about = {"counts": total, "fragments": [fragment.to_json() for fragment in fragments if fragment.physical_rows]}
        atomic_write(self._path(number), json.dumps(about))
        return total

    def counts(self, number: int) -> Counts | None:
        """How much a part holds."""
        path = self._path(number)
        return Counts(*self._read(path)["counts"]) if path.exists() else None

    def complete(self, num_parts: int, schema: pa.Schema) -> None:
        """Make a version of all parts, unless there is one."""
        lance = extra("lance", "writing Lance")
        if (self.folder / "_versions").is_dir():
            return
        found = [fragment for number in range(num_parts) for fragment in self._read(self._path(number))["fragments"]]
        fragments = [lance.FragmentMetadata.from_json(json.dumps(fragment)) for fragment in found]
        lance.LanceDataset.commit(str(self.folder), lance.LanceOperation.Overwrite(schema, fragments))

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            read: dict[str, Any] = json_of(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): remove it, and its part is made anew") from None
        return read


DESTINATIONS: Mapping[Format, type[Destination]] = {"parquet": ParquetFolder, "lance": LanceFolder}
"""Each format's."""
