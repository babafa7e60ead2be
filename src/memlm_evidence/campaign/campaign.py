"""`memlm bench campaign`."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import tyro

from memlm.cli.command import Answer, FlawError, UsesModel
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.measuring import Benchmark, made_here
from memlm_evidence.campaign.damage import checkpoints, memory_files
from memlm_evidence.campaign.kills import appends, trainings
from memlm_evidence.campaign.part import Part
from memlm_evidence.campaign.texts import regenerated, remembered

Name = Literal["remembered", "regenerated", "memory-files", "checkpoints", "appends", "trainings"]
PARTS: Mapping[Name, Callable[[Part, TextAutoencoder], None]] = {
    "remembered": remembered,
    "regenerated": regenerated,
    "memory-files": memory_files,
    "checkpoints": checkpoints,
    "appends": appends,
    "trainings": trainings,
}


@dataclass(frozen=True, kw_only=True)
class Campaign(Benchmark, UsesModel):
    """Try to make memlm lose or garble something: hard texts, damaged files, processes killed at random moments.

    memlm bench campaign --minutes 10

    memlm bench campaign --parts memory-files checkpoints --minutes 120 --seed 1

    Any fault is printed with what shows it, and the exit code is 2. Other seeds try other things.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    minutes: float = 10.0
    """How long, in all: each part gets its share, and ends what it has begun."""
    parts: tuple[Name, ...] = tuple(PARTS)
    """Texts through memory files of every number of bits, and through vectors alone; damaged memory files and
    checkpoints; killed appends and trainings."""
    seed: int = 0

    def run(self) -> Answer:
        """Each part's `tries`, its `outcomes` by how often they were seen, and its `faults`."""
        if not 0 < self.minutes < math.inf:
            raise ValueError(f"--minutes must be positive, not {self.minutes}")
        if not self.parts:
            raise ValueError(f"--parts must name some of {', '.join(PARTS)}")
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        found = []
        for name in self.parts:
            part = Part(name, self.minutes * 60 / len(self.parts), random.Random(f"{self.seed} {name}"))
            PARTS[name](part, model)
            found.append(part.to_dict())
            self.say(f"{name}: {part.tries:,} tries, {len(part.faults)} faults", aside=True)
        faults = sum(len(each["faults"]) for each in found)
        answer = {
            "tries": sum(each["tries"] for each in found),
            "faults": faults,
            "parts": found,
            **made_here(seed=self.seed),
        }
        if faults:
            raise FlawError(f"{faults} faults were found", answer)
        return answer
