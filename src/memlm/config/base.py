"""What every configuration is: checked on the way in, plain JSON on the way out."""

import dataclasses
import difflib
import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pydantic
import tyro

_WORDS = {
    "dict_type": "fields are expected here",
    "unexpected_keyword_argument": "there is no such field",
    "missing": "missing",
    "union_tag_invalid": "there is no kind {tag!r}; there are {expected_tags}",
    "union_tag_not_found": "its kind is missing",
    "value_error": "{error}",
}
"""For pydantic's own, by the type of its error."""
KIND: Any = tyro.conf.Suppress  # `kind` is chosen by choosing the class, never set by hand


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: checked on the way in, plain JSON on the way out."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    def to_json(self) -> str:
        """This configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def leaves(self) -> dict[str, Any]:
        """Each value that holds no others, by its path."""
        values = _values(json.loads(self.to_json()))
        return {path: value for path, value in values if not isinstance(value, dict | list)}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a configuration, refusing unknown keys and wrong types.

        Raises:
            ValueError: naming every offending key and value.
        """
        try:
            return _adapter(cls).validate_json(text)  # type: ignore[arg-type]  # a class is hashable
        except pydantic.ValidationError as error:
            raise ValueError(
                f"not a valid {cls.__name__}: " + "; ".join(_fault(row, text) for row in error.errors())
            ) from None

    def with_values(self, assignments: Iterable[str]) -> Self:
        """This configuration with fields set anew, each as `path.to.field=value`, the value as JSON or plain text.

        `*` stands for every item of a list (`stages.*.training.seed=1`). A variant may be chosen by its kind alone
        (`model.encoder.mixer=attention`): it is then as by default, or stays as it is if it is of that kind.

        Raises:
            ValueError: there is no such field, or the value does not fit; names it, and the fields there are.
        """
        values = json.loads(self.to_json())
        for assignment in assignments:
            path, equals, value = assignment.partition("=")
            require(bool(equals), f"expected path.to.field=value, not {assignment!r}")
            _set(values, path, value)
        return self.from_json(json.dumps(values))

    def field_paths(self) -> list[str]:
        """The path of every field, as `with_values` takes it."""
        return [path for path, _ in _values(json.loads(self.to_json()))]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a configuration file.

        Raises:
            ValueError: the file's path, and what is wrong with it.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


@functools.cache
def _adapter(cls: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(cls)


def _fault(row: Any, text: str) -> str:
    """One of pydantic's errors: the key, what is wrong, and the value unless it is a whole object."""
    value, keys = row["input"], []
    whole = json.loads(text) if row["loc"] else None
    for key in row["loc"]:
        if isinstance(whole, dict) and whole.get("kind") == key:
            continue  # which variant it is: no key of the file
        keys.append(str(key))
        whole = whole[key] if isinstance(whole, list) or (isinstance(whole, dict) and key in whole) else None
    shown = "" if isinstance(value, dict) or len(repr(value)) > 60 else f" (found {value!r})"
    words = _WORDS[row["type"]].format_map(row.get("ctx", {})) if row["type"] in _WORDS else row["msg"]
    return f"{'.'.join(keys) or 'JSON'}: {words}{shown}"


def _set(whole: Any, path: str, value: str) -> None:
    """Set a field deep in nested dictionaries and lists; a list's items go by their number, all of them by `*`."""
    keys = path.split(".")

    def descend(values: Any, depth: int) -> None:
        key, last, fields = keys[depth], depth == len(keys) - 1, _fields(values)
        every = key == "*" and isinstance(values, list) and values
        # A variant just chosen by its kind has all of its fields yet to be filled in.
        if not every and key not in fields and not (last and fields == ["kind"]):
            raise ValueError(_no_field(whole, keys, depth, fields))
        for field in fields if every else [key]:
            index, before = (int(field), values[int(field)]) if isinstance(values, list) else (field, values.get(field))
            if last:
                values[index] = _parsed(value, before)
            else:
                descend(before, depth + 1)

    descend(whole, 0)


def _parsed(value: str, before: Any) -> Any:
    """A value that is JSON; or else a variant by its kind, where a variant was before; or any other text as it is."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        if not isinstance(before, dict) or "kind" not in before:
            return value
        return before if before["kind"] == value else {"kind": value}


def _fields(values: Any) -> list[str]:
    if isinstance(values, list):
        return [str(number) for number in range(len(values))]
    return list(values) if isinstance(values, dict) else []


def _values(whole: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Each value in nested dictionaries and lists, with its path, before those that it holds."""
    for field in _fields(whole):
        value = whole[int(field) if isinstance(whole, list) else field]
        yield before + field, value
        yield from _values(value, f"{before}{field}.")


def _no_field(whole: Any, keys: list[str], depth: int, fields: list[str]) -> str:
    """What is wrong with a path, and which was probably meant: one that ends like it, or is spelt alike."""
    path, key = ".".join(keys), keys[depth]
    endings = ["." + ".".join(keys[start:]) for start in range(len(keys))]
    same_end = (known for ending in endings for known, _ in _values(whole) if known.endswith(ending))
    # Of a list's items, all are meant.
    meant = [re.sub(r"\.\d+\.", ".*.", known) for known in itertools.islice(same_end, 1)]
    meant += [".".join([*keys[:depth], field]) for field in difflib.get_close_matches(key, fields)]
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return f"no field {path!r}: at {key!r} there are only {', '.join(fields) or 'none'}{hint}"


def require(holds: bool, message: str) -> None:
    """Raise ValueError unless `holds`."""
    if not holds:
        raise ValueError(message)


def require_positive(config: Config, *names: str) -> None:
    """Raise ValueError naming the first of these fields that is not above 0, or infinite."""
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{name} must be positive, not {value}")
        require(value < math.inf, f"{name} must be finite, not {value}")


def require_fraction(config: Config, *names: str) -> None:
    """Raise ValueError naming the first of these fields that does not lie in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name} must lie in [0, 1], not {value}")
