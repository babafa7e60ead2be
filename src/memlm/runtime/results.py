"""Results that say what made them: named measures of any kind, and typed records read and written as JSON."""

import functools
import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Self

import pydantic

from memlm.runtime.wording import installed_version

_MAIN = ("token_accuracy", "exact_match", "retained_bits_per_token", "bits_per_byte", "causal_nats_per_token")
"""What the text of a result shows first."""
_SHOWN = 5


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a result: enough to make it again."""

    memlm: str
    torch: str
    python: str
    machine: str
    num_threads: int
    commit: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def here(**settings: Any) -> "Provenance":
        """The provenance of something made now, by this process; `settings` are seed, tokens, dtype and the like."""
        torch = sys.modules.get("torch")  # its threads, where it is loaded
        return Provenance(
            memlm=installed_version("memlm"),
            torch=metadata.version("torch"),
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            num_threads=torch.get_num_threads() if torch else len(os.sched_getaffinity(0)),
            commit=_commit(),
            settings=settings,
        )


def _commit() -> str:
    """The commit of the checkout memlm runs from, marked when it has changes; empty outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Named measures of one thing, their confidence intervals, and what made them.

    `measures` are plain numbers, text, lists or mappings of them; `intervals` share their names.
    """

    name: str
    measures: Mapping[str, Any]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["measures"][name]
        except KeyError:
            raise AttributeError(f"result {self.__dict__.get('name')!r} has no measure {name!r}") from None

    def __repr__(self) -> str:
        """The name and a few measures, the main ones first; all of them are attributes."""
        plain = [name for name, value in self.measures.items() if isinstance(value, int | float | str)]
        place = {name: index for index, name in enumerate(_MAIN)}
        main = sorted(plain, key=lambda name: (place.get(name, len(place)), name not in self.intervals))[:_SHOWN]
        lines = [f"Result {self.name!r}", *(f"  {name} {self._shown(name)}" for name in main)]
        if rest := len(self.measures) - len(main):
            lines.append(f"  and {rest} more in .measures")
        return "\n".join(lines)

    def _shown(self, name: str) -> str:
        interval = self.intervals.get(name)
        value = _short(self.measures[name])
        return f"{value} [{_short(interval.low)}, {_short(interval.high)}]" if interval else value

    def to_dict(self) -> dict[str, Any]:
        """One flat JSON object: the measures, then `intervals` and `provenance`."""
        intervals = {name: list(interval) for name, interval in self.intervals.items()}
        provenance = asdict(self.provenance) if self.provenance else None
        return {"name": self.name, **self.measures, "intervals": intervals, "provenance": provenance}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> "Result":
        """Undo `to_dict`."""
        rest = dict(row)
        name, provenance = rest.pop("name"), rest.pop("provenance", None)
        intervals = {key: Interval(*pair) for key, pair in rest.pop("intervals", {}).items()}
        made = Provenance(**provenance) if provenance else None
        return Result(name=name, measures=rest, intervals=intervals, provenance=made)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of typed results and of their rows: fields that are declared, read and written as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON; what was not measured (None by default) is left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        absent = {each.name for each in fields(self) if each.default is None and values[each.name] is None}
        return {name: _plain(value) for name, value in values.items() if name not in absent}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """Undo `to_dict`; other keys are ignored, as those of older versions.

        Raises:
            ValueError: a field is absent or of another type; names it.
        """
        try:
            return _adapter(cls).validate_python(row)  # type: ignore[arg-type]  # a class is hashable
        except pydantic.ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ValueError(f"not a valid {cls.__name__}: {'; '.join(faults)}") from None


@dataclass(frozen=True, kw_only=True)
class Regeneration(Record):
    """How much of some text was regenerated, as `evaluation.metrics` measures it."""

    token_accuracy: float
    exact_match: float
    nats_per_token: float
    bits_per_byte: float
    unconditional_nats_per_token: float
    retained_bits_per_token: float
    retained_fraction: float
    entropy_ratio: float
    bits_per_dim: float
    num_chunks: int
    num_tokens: int
    num_documents: int
    resampled: str
    bytes_per_token: float
    accuracy_by_position: tuple[float | None, ...] = ()
    """None where no token stands; empty in a row that was shortened."""
    chunk_len: int
    memory_dim: int
    num_slots: int
    intervals: dict[str, Interval] = field(default_factory=dict)
    """95% intervals, by measure."""


def _plain(value: Any) -> Any:
    """A field's value as JSON."""
    if isinstance(value, Record):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


@functools.cache
def _adapter(cls: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(cls)


def _short(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else textwrap.shorten(str(value), 60, placeholder=" ...")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, without a last line cut short by a crash; none if there is no file.

    Raises:
        ValueError: a row is damaged; says where.
    """
    if not path.exists():
        return []
    lines, rows = path.read_text(encoding="utf-8").split("\n"), []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is cut short, or nothing
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged in line {number}: {error}") from None
    return rows
