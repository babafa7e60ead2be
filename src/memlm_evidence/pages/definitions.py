"""(term, explanation) pairs for pages: what the measures mean, and what made the numbers."""

import json
from collections.abc import Iterable, Iterator, Mapping

from memlm.runtime.results import Provenance, Result
from memlm.runtime.tables import REPORTED, measure, present
from memlm.runtime.wording import human, quantity

Pairs = list[tuple[str, str]]


def meanings(results: Iterable[Result], measures: Iterable[str] = REPORTED) -> Pairs:
    """What the measures that these results have mean."""
    shown = map(measure, present(list(results), list(measures)))
    return [(each.header, each.meaning) for each in shown if each.meaning]


def made_by(made: Provenance | None, speed: float | None = None) -> Pairs:
    """What made some numbers, and at how many tokens/s of training; nothing where it is not known."""
    if made is None:
        return []
    rate = [("training speed", f"{quantity(speed)} tokens/s")] if speed is not None else []
    return [
        ("memlm", f"{made.memlm}, commit {made.commit}" if made.commit else made.memlm),
        ("torch, Python", f"{made.torch}, {made.python}"),
        ("machine", f"{made.machine}, {made.num_threads} {'thread' if made.num_threads == 1 else 'threads'}"),
        *((human(name), _said(value)) for name, value in made.settings.items()),
        *rate,
    ]


def flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings as one list, so that each can be read on its own line."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, "" if name == "config" else f"{prefix}{name}: ")
        else:
            yield prefix + name, value


def _said(value: object) -> str:
    return f"{value:,}" if type(value) is int else value if type(value) is str else json.dumps(value)
