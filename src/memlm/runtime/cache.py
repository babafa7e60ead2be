"""One cache for everything that follows from its inputs alone, found again by the content of its key: JSON values, and
arrays with a JSON value beside them."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from memlm.runtime.files import atomic_file, atomic_write

if TYPE_CHECKING:
    import numpy as np

JSON = Any
"""What `json` can write: numbers, text, None, lists and mappings of them."""


def digest(content: JSON) -> str:
    """Sixteen hexadecimal digits of a value's canonical JSON.

    Raises:
        TypeError: it is no JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Arrays(NamedTuple):
    """Arrays by name, and what there is to say of them."""

    arrays: "Mapping[str, np.ndarray]"
    about: JSON


class Cache:
    """A folder of values, each in a file that holds its key too; processes and machines may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: Mapping[str, JSON]) -> Path:
        """Where the value of a key is, once there is one."""
        return self.folder / f"{digest(key)}.json"

    def get(self, key: Mapping[str, JSON], make: Callable[[], JSON]) -> JSON:
        """The value of a key: made once, by whoever asks first; whoever asks meanwhile waits.

        Raises:
            ValueError: the file that is damaged.
        """
        path = self.path(key)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    atomic_write(path, json.dumps({"key": key, "value": make()}) + "\n")
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            if digest(entry["key"]) != digest(key):
                raise ValueError("it holds another key")
            return entry["value"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}; remove it to make it again") from None

    def arrays(self, key: Mapping[str, JSON], make: Callable[[], Arrays]) -> Arrays:
        """Arrays in a safetensors file, with their key; made once, as `get`'s values, and again where it is damaged."""
        path = self.folder / f"{digest(key)}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = _read_arrays(path, key) if path.exists() else None
            return found or _written(path, key, make())


def _read_arrays(path: Path, key: Mapping[str, JSON]) -> Arrays | None:
    """What a file holds; None, with a warning, where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest(json.loads(told["key"])) != digest(key):
            raise ValueError("it holds another key")
        return Arrays(arrays, json.loads(told["about"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        warnings.warn(f"{path} is damaged ({error}); what it held is made again", stacklevel=4)
        return None


def _written(path: Path, key: Mapping[str, JSON], made: Arrays) -> Arrays:
    from safetensors.numpy import save_file

    with atomic_file(path) as temporary:
        save_file(dict(made.arrays), temporary, {"key": json.dumps(key), "about": json.dumps(made.about)})
    return made
