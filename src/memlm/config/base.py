"""What every configuration is: checked on the way in, plain JSON on the way out."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pydantic
import tyro

KIND: Any = tyro.conf.Suppress  # `kind` is chosen by choosing the class, never set by hand


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: checked on the way in, plain JSON on the way out."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    def to_json(self) -> str:
        """This configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a configuration, refusing unknown keys and wrong types.

        Raises:
            ValueError: naming every offending key and value.
        """
        try:
            return pydantic.TypeAdapter(cls).validate_json(text)
        except pydantic.ValidationError as error:
            raise ValueError(f"not a valid {cls.__name__}: " + "; ".join(map(_fault, error.errors()))) from None

    def with_values(self, assignments: Iterable[str]) -> Self:
        """This configuration with fields set anew, each as `path.to.field=value`, the value as JSON or plain text.

        Raises:
            ValueError: there is no such field, or the value does not fit; names it, and the fields there are.
        """
        values = json.loads(self.to_json())
        for assignment in assignments:
            path, equals, value = assignment.partition("=")
            require(bool(equals), f"expected path.to.field=value, not {assignment!r}")
            _set(values, path, value)
        return self.from_json(json.dumps(values))

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


def _fault(row: Any) -> str:
    """One of pydantic's errors: the key, what is wrong, and the value unless it is a whole object."""
    value = row["input"]
    shown = "" if isinstance(value, dict) or len(repr(value)) > 60 else f" (found {value!r})"
    return f"{'.'.join(map(str, row['loc'])) or 'JSON'}: {row['msg']}{shown}"


def _set(values: Any, path: str, value: str) -> None:
    """Set a field deep in nested dictionaries and lists; a list's items go by their number."""
    keys = path.split(".")
    for depth, key in enumerate(keys):
        fields = list(values) if isinstance(values, dict) else []
        fields = [str(number) for number in range(len(values))] if isinstance(values, list) else fields
        require(key in fields, f"no field {path!r}: at {key!r} there are only {', '.join(fields) or 'none'}")
        index = int(key) if isinstance(values, list) else key
        if depth < len(keys) - 1:
            values = values[index]
    try:
        values[index] = json.loads(value)
    except json.JSONDecodeError:
        values[index] = value


def require(holds: bool, message: str) -> None:
    """Raise ValueError unless `holds`."""
    if not holds:
        raise ValueError(message)


def require_positive(config: Config, *names: str) -> None:
    """Raise ValueError naming the first of these fields that is not above 0."""
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{name} must be positive, not {value}")


def require_fraction(config: Config, *names: str) -> None:
    """Raise ValueError naming the first of these fields that does not lie in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name} must lie in [0, 1], not {value}")
