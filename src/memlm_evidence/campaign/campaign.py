"""`memlm bench campaign`."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from memlm.cli.command import Answer, FlawError, UsesModel
from memlm.cli.show import print_table
from memlm.runtime.files import atomic_write, make_folder
from memlm.runtime.tables import Table
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.measuring import made_here
from memlm_evidence.campaign.damage import checkpoints, memory_files
from memlm_evidence.campaign.kills import killed
from memlm_evidence.campaign.part import Part
from memlm_evidence.campaign.surroundings import full_disk, jumping_clock, read_only, two_writers
from memlm_evidence.campaign.texts import long_lines, regenerated, remembered, surrogates_refused
from memlm_evidence.campaign.workshop import interrupting

_TRAININGS = tuple(f"train {kind}" for kind in ("autoencoder", "memory model", "language model", "reader"))
_WORKS = ("append", "replace", "encode-corpus", "probe", *_TRAININGS[:2])
Name = Literal[
    "kills-append",
    "kills-replace",
    "kills-encode",
    "kills-probe",
    "kills-train",
    "full-disk",
    "read-only",
    "clock",
    "two-writers",
    "surrogates",
    "checkpoints",
    "regenerated",
    "long-lines",
    "memory-files",
    "remembered",
]
PARTS: Mapping[Name, tuple[Callable[[Part, TextAutoencoder], None], int, str]] = {
    "kills-append": (interrupting(killed, "append"), 400, "appends to a file, killed"),
    "kills-replace": (interrupting(killed, "replace"), 400, "folders being replaced, killed"),
    "kills-encode": (interrupting(killed, "encode-corpus"), 400, "bulk encoding, killed"),
    "kills-probe": (interrupting(killed, "probe"), 400, "probes, killed"),
    "kills-train": (interrupting(killed, *_TRAININGS), 400, "trainings of four kinds, killed"),
    "full-disk": (interrupting(full_disk, *_WORKS), 200, "the same work on a full disk"),
    "read-only": (interrupting(read_only, *_WORKS), 200, "in a folder that becomes read-only"),
    "clock": (interrupting(jumping_clock, *_WORKS), 200, "by a clock that jumps"),
    "two-writers": (interrupting(two_writers, *_WORKS), 200, "by two at once"),
    "surrogates": (surrogates_refused, 10_000, "texts that UTF-8 cannot say"),
    "checkpoints": (checkpoints, 50_000, "damaged checkpoints"),
    "regenerated": (regenerated, 200_000, "hard texts through vectors alone"),
    "long-lines": (long_lines, 8, "very long lines"),
    "memory-files": (memory_files, 50_000, "damaged memory files"),
    "remembered": (remembered, 800_000, "hard texts through memory files"),
}
"""Each part, the tries after which it is done, and what is tried. The shorter ones come first: the time they leave is
the others'."""


@dataclass(frozen=True, kw_only=True)
class Campaign(UsesModel):
    """Try to make memlm lose or garble something: hard texts, damaged files, processes killed at random moments.

    memlm bench campaign --minutes 10

    memlm bench campaign --minutes 600 --out runs/campaign

    memlm bench campaign --parts memory-files checkpoints --minutes 120 --seed 1

    A part is done when it has made its full number of tries; all parts together need hours for that. With --out, a
    campaign that was stopped continues where it was. Every fault is printed with what shows it, and the exit code is
    then 2.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    minutes: float = 10.0
    """Total time in minutes. Each part gets a share of the time left, and finishes the try that it has begun."""
    parts: tuple[Name, ...] = tuple(PARTS)
    """The parts to run. kills-*: appends, replaced folders, bulk encoding, probes and trainings (with small models) are
    killed and continued. full-disk, read-only, clock, two-writers: the same with a full disk, a read-only folder, a
    clock that jumps, or two writers at once. surrogates: texts that UTF-8 cannot express. remembered, long-lines: hard
    texts and very long lines through memory files of every number of bits. regenerated: hard texts through vectors
    alone. memory-files, checkpoints: damaged files."""
    out: Path | None = None
    """Folder that keeps what was found, and from which a stopped campaign continues; by default nothing is kept."""
    seed: int = 0
    """Random seed."""

    def run(self) -> Answer:
        """Each part's `tries` of the `wanted`, its `outcomes` by how often they were seen, and its `faults`."""
        if not 0 < self.minutes < math.inf:
            raise ValueError(f"--minutes must be positive, not {self.minutes}")
        if not self.parts:
            raise ValueError(f"--parts must name some of {', '.join(PARTS)}")
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        if self.out:
            self._go_on(self.out, model)
        end, found = time.monotonic() + 60 * self.minutes, []
        for place, name in enumerate(self.parts):
            attempt, wanted, _ = PARTS[name]
            seconds = (end - time.monotonic()) / (len(self.parts) - place)
            path = self.out / f"{name}.json" if self.out else None
            part = Part(name, seconds, self.seed, wanted=wanted, path=path)
            attempt(part, model)
            found.append(part.to_dict())
            self.say(f"{name}: {part.found.tries:,} of {wanted:,} tries, {len(part.found.faults)} faults", aside=True)
        faults = sum(len(each["faults"]) for each in found)
        answer = {
            "tries": sum(each["tries"] for each in found),
            "faults": faults,
            "parts": found,
            "encoder": model.encoder_fingerprint,
            **made_here(seed=self.seed),
        }
        if self.out:
            atomic_write(self.out / "campaign.json", json.dumps(answer, indent=2) + "\n")
        print_table(
            self.console(),
            campaign_table(answer),
            "Times: number of texts, files, kills, or pieces of work tried. A part is done when it has tried them all.",
        )
        for fault in (fault for part in found for fault in part["faults"]):
            self.say(fault)
        if faults:
            raise FlawError(f"{faults} faults were found", answer)
        return answer

    def _go_on(self, out: Path, model: TextAutoencoder) -> None:
        """Raise ValueError where the folder holds another model's campaign."""
        path = make_folder(out) / "encoder.json"
        if not path.exists():
            atomic_write(path, json.dumps(model.encoder_fingerprint) + "\n")
        if json.loads(path.read_text(encoding="utf-8")) != model.encoder_fingerprint:
            raise ValueError(f"{out} holds the campaign of another model; give another folder")


def campaign_table(answer: Mapping[str, Any]) -> Table:
    """A row for each part of what `memlm bench campaign` gives."""
    rows = [
        [
            PARTS[part["part"]][-1],
            f"{part['tries']:,}",
            f"{part['wanted']:,}",
            f"{len(part['faults']):,}",
            _rate(part["tries"], part["seconds"]),
        ]
        for part in answer["parts"]
    ]
    return Table(["what was tried", "times", "of", "faults", "a second"], rows)


def _rate(tries: int, seconds: float) -> str:
    rate = tries / max(seconds, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
