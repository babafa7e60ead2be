"""Parts encoded by Ray's actors, on this machine alone or on a cluster."""

import json
import logging
import os
from dataclasses import dataclass
from typing import Any

from memlm.bulk.destination import Counts
from memlm.bulk.encode import Finished, Job, PartEncoder
from memlm.bulk.source import Part, Piece
from memlm.runtime.cluster import LOCAL, ray_at, require_ray


@dataclass(frozen=True)
class RayWorkers:
    """So many actors, each with one core, or one GPU; by default on this machine, which needs no cluster.

    Raises:
        ValueError: Ray is not installed; there is no such cluster, or it does not have so many GPUs.
    """

    number: int
    address: str = LOCAL

    def __post_init__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # each worker has one core
        require_ray(self.address, "encoding with several --workers", module="ray.data")

    def __call__(self, job: Job, parts: list[Part]) -> Finished:
        """Encode parts, in any order."""
        if not parts:
            return
        with ray_at(self.address, self.number) as ray:
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
