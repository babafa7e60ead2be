"""One cache for everything that follows from its inputs alone: JSON values, found again by the content of their key."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from memlm.runtime.files import atomic_write

JSON = Any
"""What `json` can write: numbers, text, None, lists and mappings of them."""


def digest(content: JSON) -> str:
    """Sixteen hexadecimal digits of a value's canonical JSON.

    Raises:
        TypeError: it is no JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
