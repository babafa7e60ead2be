"""Measurements that do not depend on one another: made side by side, and each kept as soon as it is made."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from memlm.runtime.files import atomic_write
from memlm.runtime.lanes import begin_worker
from memlm.runtime.progress import track
from memlm.runtime.results import json_lines, read_json_lines

Row = dict[str, Any]


class Cell(Protocol):
    """One measurement. Its `repr` says all that it depends on."""

    @property
    def num_tokens(self) -> int:
        """How much work it is: tokens trained on and read."""
        ...

    def rows(self) -> list[Row]:
        """Measure."""
        ...


def measured(
    cells: Sequence[Cell], kept: Path, *, num_workers: int = 1, title: str = "Measuring", quiet: bool = False
) -> list[Row]:
    """The rows of all cells, in order. What is in the file `kept` is not measured again; what is measured goes there.

    Args:
        cells: what to measure.
        kept: a file of JSON lines.
        num_workers: processes, each of one thread; 1 measures in this one, 0 is one for each core. Small models gain
            more from a core each than from all cores together. Others than 1 need the caller's main module to be
            importable.
        title: what is being done.
        quiet: show no progress.

    Raises:
        ValueError: `kept` is not such a file.
    """
    keys = [hashlib.sha256(f"{version('memlm')} {cell!r}".encode()).hexdigest()[:16] for cell in cells]
    try:
        rows = {found["key"]: found["rows"] for found in read_json_lines(kept)}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{kept} holds no measured rows: {error!r}; remove it to measure again") from None
    todo = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in rows}
    total, left = (sum(cell.num_tokens for cell in some) for some in (cells, todo.values()))
    with track(title, total=total, unit="tokens", completed=total - left, quiet=quiet) as advance:
        for key, found in _each(todo, num_workers):
            rows[key] = found
            atomic_write(kept, json_lines({"key": key, "rows": found} for key, found in rows.items()))
            advance(todo[key].num_tokens)
    return [row for key in keys for row in rows[key]]


def _each(todo: Mapping[str, Cell], num_workers: int) -> Iterator[tuple[str, list[Row]]]:
    """As they are done."""
    if num_workers == 1:
        yield from ((key, cell.rows()) for key, cell in todo.items())
        return
    num_workers = num_workers or os.cpu_count() or 1
    with ProcessPoolExecutor(num_workers, get_context("spawn"), begin_worker, (1,)) as pool:
        try:
            keys = {pool.submit(cell.rows): key for key, cell in todo.items()}
            for done in as_completed(keys):
                yield keys[done], done.result()
        except BrokenProcessPool:
            raise ChildProcessError("a worker was killed, as when memory runs out; run it again to go on") from None
        finally:
            pool.shutdown(cancel_futures=True)
