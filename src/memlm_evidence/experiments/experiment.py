"""An experiment: what is measured at each size, what comes of it, and the claims that it decides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from memlm_evidence.claims import Claim, ExperimentResult

if TYPE_CHECKING:
    from memlm_evidence.pages.page import Page

Plan = TypeVar("Plan")
Found = TypeVar("Found", bound=ExperimentResult)


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[Plan, Found]):
    """A measurement that decides claims."""

    name: str
    """Of its result's file."""
    folder: str
    """Where what it trains is kept; experiments that share a folder share what they train."""
    presets: Mapping[str, Callable[[int], Plan]]
    """By preset: seed → what is measured, and how large. A plan's `repr` says all that the result depends on."""
    run: Callable[..., Found | None]
    """Folder and plan → result, or None where one of several processes only trains. What was made in the folder before
    is not made again."""
    page: Callable[[Sequence[Found]], "Page | None"]
    """The part of a page that shows its results, of one seed or several; None where there is nothing to add."""
    result: type[Found]
    claims: Sequence[Claim[Found]]
    seeded: bool = True
    """Whether another seed is another measurement."""
    timed: bool = False
    """Whether it is time that is measured, so that nothing else may run beside it."""


def benchmarked(name: str, result: type[Found]) -> Callable[..., Found]:
    """What runs the benchmark `package.module:class` with a plan's options; nothing is kept in the folder."""
    return lambda _, options: result.from_dict(resolve_name(name)(**options).run())


def deferred(name: str) -> Callable[..., Any]:
    """The function of this name, as `package.module:function`, imported when it is called: torch is slow to import."""

    def call(*arguments: Any, **settings: Any) -> Any:
        return resolve_name(name)(*arguments, **settings)

    return call
