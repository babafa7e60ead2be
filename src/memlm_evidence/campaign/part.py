"""What the parts of a campaign share: how long they go on, what they have found, and that it is kept."""

import json
import math
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from memlm.runtime.files import atomic_write

REFUSALS = (ValueError, OSError)
"""What says that something cannot be done."""
_KEPT_EVERY = 5.0
"""Seconds of work that a campaign which is killed loses at most, and the try that it is at."""


@dataclass
class Found:
    """What a part has found so far."""

    tries: int = 0
    """Texts, damaged files or kills."""
    faults: list[str] = field(default_factory=list)
    """What went wrong, in words that let one try it again."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """How often each good end was seen."""
    slowest_seconds: float = 0.0
    """Of one try, or of as many as are made at once."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the campaign's own process, without those that it kills."""


class Part:
    """One part, which goes on until it has made enough tries, or its time is over."""

    def __init__(
        self, name: str, seconds: float, seed: object = 0, *, wanted: float = math.inf, path: Path | None = None
    ) -> None:
        """With a path, what is there is gone on from, by other draws than it was made by.

        Raises:
            ValueError: the file is damaged.
        """
        self.name, self.seconds, self.wanted, self._path = name, seconds, wanted, path
        self.found = _read(path) if path and path.exists() else Found()
        self.rng = random.Random(f"{seed} {name} {self.found.tries}")
        self._begun = self._kept = time.monotonic(), time.process_time()

    @property
    def goes_on(self) -> bool:
        """Whether there is something left to try, and time; at least one thing is tried."""
        return self.found.tries < self.wanted and (not self.is_over or not self.found.tries)

    @property
    def is_over(self) -> bool:
        """Whether its time is."""
        return time.monotonic() - self._begun[0] >= self.seconds

    def saw(self, outcome: str, number: int = 1, *, seconds: float = 0.0) -> None:
        """So many tries ended well, in this way; the slowest one took so long."""
        self.found.tries += number
        self.found.outcomes[outcome] = self.found.outcomes.get(outcome, 0) + number
        self.found.slowest_seconds = max(self.found.slowest_seconds, seconds)
        if time.monotonic() - self._kept[0] > _KEPT_EVERY:
            self.keep()

    def failed(self, fault: str) -> None:
        """A try found a fault."""
        self.found.tries += 1
        self.found.faults.append(fault)
        self.keep()

    def keep(self) -> None:
        """Write down what was found."""
        now = time.monotonic(), time.process_time()
        self.found.seconds += now[0] - self._kept[0]
        self.found.cpu_seconds += now[1] - self._kept[1]
        self._kept = now
        if self._path:
            atomic_write(self._path, json.dumps(asdict(self.found), indent=2) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        self.keep()
        wanted = None if math.isinf(self.wanted) else int(self.wanted)
        return {"part": self.name, "wanted": wanted, **asdict(self.found)}


def _read(path: Path) -> Found:
    try:
        return Found(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and its part begins anew") from None
