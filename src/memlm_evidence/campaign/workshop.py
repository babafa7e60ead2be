"""Where work is interrupted: what each kind needs, and what comes of it when nobody does."""

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memlm.config.recipe import Recipe
from memlm.runtime.files import is_in_use, only_one_in
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.campaign.disk import Disk, disk, unmount
from memlm_evidence.campaign.part import Part
from memlm_evidence.campaign.processes import begin, warm_up
from memlm_evidence.campaign.recipes import first_recipe, recipes
from memlm_evidence.campaign.works import Appending, Encoding, Probing, Replacing, Training, Work, write_corpus

_PREFIX = "memlm-campaign-"
_NUM_FILES = 30
Try = Callable[[Part, "Case", Disk, Path], tuple[str, int]]
"""Interrupts a case's work in a new folder on a disk, and lets it end; gives what to call that, and how often it did.

Raises:
    AssertionError: something is wrong; says what.
    ChildProcessError: a process failed that should not have, or crashed.
"""


@dataclass(frozen=True)
class Case:
    """Work, and what comes of it when nobody interrupts it."""

    name: str
    work: Work
    expected: str
    usual_seconds: float
    num_bytes: int
    """That it writes."""


class Workshop:
    """A folder in which work is done; each kind is done once without interruption, when it is first asked for."""

    def __init__(self, base: Path) -> None:
        self.base = base
        write_corpus(base / "corpus", _NUM_FILES)
        warm_up()
        self._cases: dict[str, Case] = {}

    def case(self, name: str) -> Case:
        """The work of this name.

        Raises:
            AssertionError: left alone, it does not come to an end.
        """
        if name not in self._cases:
            work, folder = self._work(name), self.base / "alone" / name
            renew(work, folder)
            begun = time.monotonic()
            fault = begin(work, folder).end()
            seconds, result = time.monotonic() - begun, work.result(folder)
            if fault or result is None:
                raise AssertionError(f"{name}, left alone: {fault or 'nothing came of it'}")
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            self._cases[name] = Case(name, work, result, seconds, size)
        return self._cases[name]

    def _work(self, name: str) -> Work:
        match name:
            case "append":
                return Appending(self.base, self._encoder)
            case "replace":
                return Replacing(self.base)
            case "encode-corpus":
                return Encoding(self.base, self._encoder)
            case "probe":
                return Probing(self.base, self._encoder)
            case "train autoencoder":
                return Training(self.base, first_recipe(self.base / "corpus"))
            case _:
                return Training(self.base, self._recipes[name.removeprefix("train ")])

    @property
    def _encoder(self) -> Path:
        """A small one, which is trained first."""
        self.case("train autoencoder")
        return self.base / "alone" / "train autoencoder" / "model"

    @cached_property
    def _recipes(self) -> Mapping[str, Recipe[Any]]:
        return recipes(self.base / "corpus", self._encoder, self.base)


def renew(work: Work, folder: Path) -> None:
    """Let work begin anew, in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    work.forget()


def interrupting(attempt: Try, *names: str) -> Callable[[Part, TextAutoencoder], None]:
    """The part of a campaign that interrupts these works by turns."""

    def go(part: Part, model: TextAutoencoder) -> None:
        if not part.goes_on:
            return
        _remove_leftovers()
        with TemporaryDirectory(prefix=_PREFIX) as name, only_one_in(base := Path(name)), disk(base / "disk") as place:
            shop = Workshop(base)
            for name in itertools.takewhile(lambda _: part.goes_on, itertools.cycle(names)):
                _judge(part, attempt, shop, name, place)

    return go


def _remove_leftovers() -> None:
    """Remove what campaigns that were killed have left, mounted file systems too."""
    for base in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if base.is_dir() and not is_in_use(base):
            unmount(base / "disk")
            shutil.rmtree(base, ignore_errors=True)


def _judge(part: Part, attempt: Try, shop: Workshop, name: str, place: Disk) -> None:
    begun, folder = time.monotonic(), place.path / "run"
    try:
        case = shop.case(name)
        renew(case.work, folder)
        outcome, number = attempt(part, case, place, folder)
        if fault := case.work.lost(folder) or case.work.wrong(folder, case.expected):
            raise AssertionError(f"{outcome}: {fault}")
    except (AssertionError, ChildProcessError) as error:
        part.failed(f"{name}: {error}")
        return
    if number:
        part.saw(f"{name}, {outcome}", number, seconds=time.monotonic() - begun)
