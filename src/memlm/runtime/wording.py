"""Text and numbers as a reader sees them: nothing invisible, nothing that steers a terminal, honest digits."""

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MISSING = "—"


def printable(text: str) -> str:
    """The text with every control character made visible; tabs and line feeds stay."""
    return "".join(map(_printable, text))


def _printable(char: str) -> str:
    if char in "\n\t" or char.isprintable():
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of control characters
    if code == 0x7F:
        return "\u2421"
    steers = char in _DIRECTION or unicodedata.category(char) in {"Cc", "Cs"} or code & 0xFFFE == 0xFFFE
    return "\ufffd" if steers else char


def marked(original: str, regenerated: str) -> tuple[str, str, str]:
    """A wrong run, to be marked: the space both begin with, what came out, and what it should be.

    In the two, line breaks and a text of nothing but spaces can be seen; either may be empty.
    """
    space = " " if original[:1] == regenerated[:1] == " " and min(len(original), len(regenerated)) > 1 else ""
    return space, _visible(regenerated[len(space) :]), _visible(original[len(space) :])


def verdict(sample: Mapping[str, Any]) -> str:
    """How well a regenerated sample (a row of samples.jsonl) came out, in words."""
    wrong = sum(original != regenerated for original, regenerated in sample["pieces"])
    unsure = sum(sample.get("unsure", ()))  # older samples do not say
    marks = f", {unsure} marked as unsure" if unsure else ""
    if wrong == 0:
        return f"regenerated without an error{marks}"
    return f"wrong in {counted(wrong, 'place')}{marks}"


def _visible(text: str) -> str:
    shown = printable(text).replace("\n", "↵").replace("\t", "⇥")
    return shown if shown.strip() else "␣" * len(shown)


def human(name: str) -> str:
    """`held_out` → `held out`."""
    return printable(name).replace("_", " ").strip()


def number(value: Any, digits: int = 2) -> str:
    """A number with fixed digits; a dash for what is missing or not finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return _MISSING
    text = f"{value:,.{digits}f}"
    return f"−{text[1:]}" if text.startswith("-") and text.strip("-0.,") else text.removeprefix("-")


def share(value: Any, digits: int = 4, *, whole: float = 1.0) -> str:
    """A share of `whole`, which is neither rounded up to all nor down to nothing: `>0.9999`, `<0.0001`."""
    text = number(value, digits)
    if text == number(whole, digits) and value < whole:
        return f">{number(whole - 10**-digits, digits)}"
    if text == number(0.0, digits) and value > 0:
        return f"<{number(10**-digits, digits)}"
    return text


def with_interval(show: Callable[[Any], str], value: Any, interval: Sequence[float] | None) -> str:
    """`0.95\\n[0.94, 0.96]`: what follows the line feed is set smaller, below. Without an interval, the value alone."""
    return show(value) + ("\n[{}, {}]".format(*map(show, interval)) if interval else "")


def percent(value: Any, digits: int = 1) -> str:
    """0.9987 → `99.9%`."""
    scaled = value * 100 if isinstance(value, int | float) else value
    text = share(scaled, digits, whole=100.0)
    return text if text == _MISSING else f"{text}%"


def in_words(value: Any, digits: int = 1) -> str:
    """A percentage as a sentence says it: `99.9%`, `over 99.9%`, `under 0.1%`, `an unknown share`."""
    text = percent(value, digits)
    return text.replace(">", "over ").replace("<", "under ").replace(_MISSING, "an unknown share")


def quantity(count: Any) -> str:
    """A count as one says it: `12,345`, `5.2 million`."""
    if not isinstance(count, int | float) or not math.isfinite(count):
        return _MISSING
    return f"{count / 1e6:,.1f} million" if count >= 1e6 else f"{count:,.0f}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 chunk`, `2 chunks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: Any) -> str:
    """Seconds as one says them: `48 s`, `12 min`, `5.2 h`."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return _MISSING
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def installed_version(package: str) -> str:
    """Of a package; `uninstalled` for sources that are run where they lie."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "uninstalled"
