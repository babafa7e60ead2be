"""What made a run, for the end of every page."""

import json
from collections.abc import Iterator

from memlm.runtime.results import Provenance
from memlm.runtime.wording import human, quantity
from memlm_evidence.pages.blocks import Block, Definitions, Prose
from memlm_evidence.pages.page import Section
from memlm_evidence.pages.run import Run


def made_by(made: Provenance | None, speed: float | None = None, other: Run | None = None) -> Section:
    """The section that says what made this page's numbers, at how many tokens/s of training; and the reference's."""
    blocks: list[Block] = [_told(made, speed)]
    if other is not None:
        how = "a recorded run, not made here" if other.recorded else "a run of its own"
        blocks += [Prose(f"The reference, {how}:"), _told(other.provenance, other.reached("tokens_per_second"))]
    return Section("What made these numbers", "", blocks)


def _told(made: Provenance | None, speed: float | None) -> Block:
    if made is None:
        return Prose("Its results do not say what made them.")
    rate = [("training speed", f"{quantity(speed)} tokens/s")] if speed is not None else []
    return Definitions([*_pairs(made), *rate])


def _pairs(made: Provenance) -> Iterator[tuple[str, str]]:
    yield "memlm", f"{made.memlm}, commit {made.commit}" if made.commit else made.memlm
    yield "torch, Python", f"{made.torch}, {made.python}"
    yield "machine", f"{made.machine}, {made.num_threads} {'thread' if made.num_threads == 1 else 'threads'}"
    for name, value in made.settings.items():
        yield human(name), f"{value:,}" if type(value) is int else value if type(value) is str else json.dumps(value)
