"""Parts encoded by Ray's actors, on this machine alone or on a cluster."""

import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from memlm.bulk.destination import Counts
from memlm.bulk.encode import Finished, Job, PartEncoder
from memlm.bulk.extras import extra
from memlm.bulk.source import Part, Piece

_STORE_BYTES = 256 << 20
"""Of shared memory on this machine: only numbers of parts pass through it."""
_LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that Ray, on Linux too, listens on the loopback address alone
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # else anything that runs beside starves the workers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class RayWorkers:
    """So many actors, each with one core, or one GPU; without an address, on this machine, which needs no cluster.

    Raises:
        ValueError: Ray is not installed; the cluster does not have so many GPUs.
    """

    number: int
    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is None:  # all of it is read when Ray is imported
            os.environ.update({name: os.environ.get(name, value) for name, value in _LOCAL.items()})
            # Only who knows the token may speak to it: not even other users of this machine.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        extra("ray.data", "encoding with several --workers")

    def __call__(self, job: Job, parts: list[Part]) -> Finished:
        """Encode parts, in any order."""
        if not parts:
            return
        with _ray(self.number, self.address) as ray:
            data, gpu = ray.data, job.device.startswith("cuda")
            if gpu and (there := ray.cluster_resources().get("GPU", 0)) < self.number:
                raise ValueError(f"{self.number} workers want a GPU each, and Ray has {there:g}: give fewer --workers")
            data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            items = [{"part": json.dumps(part)} for part in parts]
            results = data.from_items(items, override_num_blocks=len(items)).map_batches(
                _Actor,
                fn_constructor_args=(job,),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=min(self.number, len(parts))),
                num_cpus=None if gpu else 1,
                num_gpus=1 if gpu else None,
            )
            by_number = {part.number: part for part in parts}
            for row in results.iter_rows():
                if row["error"]:
                    raise (OSError if row["of_system"] else ValueError)(row["error"])
                yield by_number[row["number"]], Counts(*json.loads(row["counts"]))


class _Actor:
    """Encodes parts in a process of its own; errors that a user can mend are told, not raised: Ray would try again."""

    def __init__(self, job: Job) -> None:
        self._encode = PartEncoder(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number, pieces = json.loads(batch["part"][0])
        part = Part(number, tuple(Piece(*piece) for piece in pieces))
        row = {"number": number, "counts": "", "error": "", "of_system": False}
        try:
            row["counts"] = json.dumps(self._encode(part))
        except (ValueError, OSError) as error:
            row |= {"error": str(error), "of_system": isinstance(error, OSError)}
        return {name: [value] for name, value in row.items()}


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[Any]:
    """Ray, started here and ended afterwards, or a cluster that is there; one that this process uses already stays."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    folder = tempfile.mkdtemp(prefix="memlm-ray-")
    try:
        quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
        if address is None:
            own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
            ray.init(address="local", _temp_dir=folder, **own, **quiet)
        else:
            ray.init(address=address, **quiet)
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
