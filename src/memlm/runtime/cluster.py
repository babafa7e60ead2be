"""Ray: on this machine alone, started and ended here, or a cluster that is there; and one piece of work in its workers.

Ray moves no files: what work reads and writes must be at the same paths on all machines.
"""

import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlm.runtime.extras import extra
from memlm.runtime.wording import installed_version

LOCAL = "local"
"""The address of a Ray of one's own on this machine."""
_STORE_BYTES = 256 << 20
"""Of shared memory on this machine: only what tells workers what to do passes through it."""
_SETTINGS = {
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TQDM_PATCH_PRINT": "0",  # else `print` is another, and what refers to it cannot be pickled
}
_LOCAL_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that Ray, on Linux too, listens on the loopback address alone
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # else anything that runs beside starves the workers
}
_TOLD = ("MEMLM_HOME", "HF_HOME", "HF_HUB_OFFLINE", "OMP_WAIT_POLICY")
"""Variables that workers on other machines get from this process."""
_SECONDS = 0.5
_LOOKS = 40
"""How often a worker looks for a folder: a network's file system may show it late."""


def require_ray(address: str, what: str, module: str = "ray") -> Any:
    """Ray, or a module of it, imported; for an address of one's own it then listens to nobody else.

    Raises:
        ValueError: it is not installed; says `what` needs it.
    """
    wanted = _SETTINGS | (_LOCAL_SETTINGS if address == LOCAL else {})
    os.environ.update({name: os.environ.get(name, value) for name, value in wanted.items()})  # read by the import
    if address == LOCAL:
        # Only who knows the token may speak to it: not even other users of this machine.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return extra(module, what)


@contextmanager
def ray_at(address: str, num_cpus: int, *, relay: bool = False) -> Iterator[Any]:
    """Ray, with so many cores if it is one's own; one that this process uses already is taken, and stays.

    Where `relay` is set, what workers print is printed on standard error.

    Raises:
        ValueError: there is no cluster at the address.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    folder = tempfile.mkdtemp(prefix="memlm-ray-")
    quiet = {"log_to_driver": relay, "configure_logging": False, "logging_level": logging.ERROR}
    own = {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES, "_temp_dir": folder}
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of workers
            try:
                ray.init(address=address, **(own if address == LOCAL else {}), **quiet)
            except ConnectionError as error:
                raise ValueError(
                    f"no Ray cluster at {address!r} ({error}); start one with ray start --head, or give {LOCAL}"
                ) from None
            yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def in_ray_workers(
    work: Callable[[], object],
    folder: Path,
    is_done: Callable[[], bool],
    *,
    num_workers: int,
    at_most: int,
    address: str,
) -> int:
    """Call `work`, which is pickled, in so many workers at once, until all have ended or were lost, or all is done.

    Each has an equal share of the cores, and of the GPUs where there are any; 0 workers are one for each GPU, or core,
    and there are `at_most` so many. Returns how many were lost; they are not replaced, since it may be memory that ran
    out.

    Raises:
        ValueError: there is no such cluster; or a machine of it does not see the folder, or has another memlm.
        Exception: whatever `work` raises, which ends all.
    """
    with ray_at(address, max(num_workers, os.cpu_count() or 1), relay=True) as ray, _marked(folder) as mark:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num_workers = min(at_most, num_workers or int(_total(machines, "GPU") or _total(machines, "CPU")))
        cores, gpus = shares(machines, num_workers)
        here = _Here(
            variables={name: os.environ[name] for name in _TOLD if name in os.environ},
            paths=sys.path,
            folder=Path.cwd(),
            mark=mark,
            memlm=installed_version("memlm"),
        )
        task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=0)(_call)
        pickled = ray.put(ray.cloudpickle.dumps(work))
        left, lost = [task.remote(pickled, here, cores) for _ in range(num_workers)], 0
        try:
            while left and not is_done():
                ended, left = ray.wait(left, timeout=_SECONDS)
                for each in ended:
                    try:
                        ray.get(each)
                    except RayTaskError as error:
                        raise error.cause from None
                    except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):  # others do what it was at
                        lost += 1
        finally:
            for each in left:
                ray.cancel(each, force=True)
        return lost


def shares(machines: Sequence[Mapping[str, float]], num_workers: int) -> tuple[int, float]:
    """Cores and GPUs of each of so many workers: as many as they can all have, on machines of these resources.

    Where there are more workers than GPUs, or cores, several share a GPU, and some wait for a core.
    """
    gpus = 1 / math.ceil(num_workers / most) if (most := _total(machines, "GPU")) else 0.0

    def places(cores: int) -> int:
        return sum(
            int(min(machine.get("CPU", 0) // cores, machine.get("GPU", 0) // gpus if gpus else math.inf))
            for machine in machines
        )

    most_cores = int(max((machine.get("CPU", 0) for machine in machines), default=1))
    return next((cores for cores in range(most_cores, 1, -1) if places(cores) >= num_workers), 1), gpus


def _total(machines: Sequence[Mapping[str, float]], what: str) -> float:
    return sum(machine.get(what, 0) for machine in machines)


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in a folder, by which a worker knows the folder."""
    mark = folder.resolve() / f".{secrets.token_hex(8)}.ray"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Here:
    """What a worker, perhaps on another machine, must have as this process has it."""

    variables: Mapping[str, str]
    paths: Sequence[str]
    folder: Path
    """The working directory."""
    mark: Path
    memlm: str

    def take(self) -> None:
        """In a worker: have it.

        Raises:
            ValueError: that cannot be.
        """
        where = f"a worker of Ray, on {socket.gethostname()},"
        if (there := installed_version("memlm")) != self.memlm:
            raise ValueError(f"{where} has memlm {there}, not {self.memlm}: install the same on all machines")
        looks = 0
        while not self.mark.exists():
            if (looks := looks + 1) > _LOOKS:
                raise ValueError(
                    f"{where} does not see {self.mark.parent} as it is here: give a folder that all machines share, at "
                    "the same path"
                )
            time.sleep(_SECONDS)
        os.environ.update(self.variables)
        sys.path += [path for path in self.paths if path not in sys.path]
        if self.folder.is_dir():  # relative paths begin there
            os.chdir(self.folder)


def _call(pickled: bytes, here: _Here, cores: int) -> None:
    """In a worker: do it. It comes as bytes, so that what must be there before it is unpickled is there."""
    here.take()
    import torch
    from ray import cloudpickle

    torch.set_num_threads(cores)
    cloudpickle.loads(pickled)()
