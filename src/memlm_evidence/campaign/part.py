"""What the parts of a campaign share: how long they go on, and what they have found."""

import random
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Part:
    """One part, which goes on until its time is over."""

    name: str
    seconds: float
    rng: random.Random
    tries: int = 0
    """Texts, damaged files or kills so far."""
    faults: list[str] = field(default_factory=list)
    """What went wrong, in words that let one try it again."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """How often each good end was seen."""
    slowest_seconds: float = 0.0
    _begun: float = field(default_factory=time.monotonic)

    @property
    def goes_on(self) -> bool:
        """Whether there is time left; at least one thing is tried."""
        return not self.tries or time.monotonic() - self._begun < self.seconds

    def saw(self, outcome: str, number: int = 1, *, seconds: float = 0.0) -> None:
        """So many tries ended well, in this way; the slowest one took so long."""
        self.tries += number
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + number
        self.slowest_seconds = max(self.slowest_seconds, seconds)

    def failed(self, fault: str) -> None:
        """A try found a fault."""
        self.tries += 1
        self.faults.append(fault)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        spent = time.monotonic() - self._begun
        return {
            "part": self.name,
            "tries": self.tries,
            "faults": self.faults,
            "outcomes": self.outcomes,
            "slowest_seconds": self.slowest_seconds,
            "seconds": spent,
        }
