"""Sweeps: a recipe, and what is varied in it; every combination of values is a run."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from memlm.config import Recipe
from memlm.config.base import Config, require

SEED = "seed"
"""What a run's seed is called among its values."""


@dataclass(frozen=True, kw_only=True)
class Axis(Config):
    """One thing that is varied."""

    name: str
    """A field's path, or those of fields that move together, separated by commas; or a name for what is varied."""
    options: Mapping[str, tuple[str, ...]]
    """What each value is called → the fields that it sets, each as `path.to.field=value`."""

    def __post_init__(self) -> None:
        require(len(self.options) > 0, f"{self.name} has no values to sweep")
        require(self.name != SEED, "seeds are not an axis: give seeds")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `field=value,value`, or `field,field=value,value` for fields that move together.

        Values are JSON or plain text, as `Config.with_values` takes them.

        Raises:
            ValueError: what is missing, or the value that is there twice.
        """
        name, _, listed = text.partition("=")
        values, fields = _split(listed), name.split(",")
        require(all(fields) and all(values), f"expected path.to.field=value,value, not {text!r}")
        twice = next((value for value in values if values.count(value) > 1), None)
        require(twice is None, f"{name} has the value {twice} twice")
        return cls(name=name, options={value: tuple(f"{field}={value}" for field in fields) for value in values})


@dataclass(frozen=True)
class Run:
    """One combination of values."""

    values: Mapping[str, str]
    """By axis, and the seed if seeds are swept."""
    recipe: Recipe | None
    fault: str = ""
    """Why there is no such recipe."""

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits of the recipe: the same in every sweep that has this run."""
        text = self.recipe.to_json() if self.recipe else json.dumps(dict(self.values))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def num_tokens(self) -> int:
        """Tokens it is trained on."""
        return self.recipe.num_tokens if self.recipe else 0


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Config):
    """Everything that determines a sweep."""

    name: str
    recipe: Recipe
    """What is not varied."""
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...] = ()
    """Each combination is trained with every one of these; the recipe's own if there are none."""
    question: str = ""
    """What the sweep asks."""

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        for name in names:
            require(names.count(name) == 1, f"{name} is swept twice: give all its values at once")
        require(len(set(self.seeds)) == len(self.seeds), f"a seed is there twice: {self.seeds}")

    def runs(self) -> list[Run]:
        """Every combination of values with every seed, the last axis and the seed fastest.

        Raises:
            ValueError: a value that fits in no combination, or two combinations that are the same recipe.
        """
        options = [[(axis, label) for label in axis.options] for axis in self.axes]
        runs = [self._run(chosen, seed) for chosen in itertools.product(*options) for seed in (self.seeds or (None,))]
        for axis, label in itertools.chain(*options):
            having = [run for run in runs if run.values[axis.name] == label]
            require(not all(run.fault for run in having), having[0].fault)
        same: dict[str, Run] = {}
        for run in runs:
            other = same.setdefault(run.key, run)
            require(other is run, f"two runs are the same: {_said(other.values)}; {_said(run.values)}")
        return runs

    def _run(self, chosen: tuple[tuple[Axis, str], ...], seed: int | None) -> Run:
        values = {axis.name: label for axis, label in chosen} | ({} if seed is None else {SEED: str(seed)})
        assignments = [each for axis, label in chosen for each in axis.options[label]]
        if seed is not None:
            assignments += [f"{path}={seed}" for path in self.recipe.field_paths() if path.split(".")[-1] == "seed"]
        try:
            # A recipe's name does not make it another; this one is what older folders' keys were made with.
            return Run(values, replace(self.recipe.with_values(assignments), name="cell"))
        except ValueError as error:
            return Run(values, None, str(error))


def _split(text: str) -> list[str]:
    """At the commas between JSON values or plain words."""
    found, rest, decoder = [], f"{text},", json.JSONDecoder()
    while rest:
        try:
            _, end = decoder.raw_decode(rest)
        except json.JSONDecodeError:
            end = 0
        if rest[end] != ",":  # a plain word, even if it begins like JSON
            end = rest.index(",")
        found.append(rest[:end])
        rest = rest[end + 1 :]
    return found


def _said(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
