"""Packages that are installed only where they are wanted."""

import importlib
import os
from typing import Any


def extra(module: str, what: str, name: str = "") -> Any:
    """An optional module, imported; `name` is that of memlm's extra, where it is not the module's own.

    Raises:
        ValueError: it is not installed; says what needs it, and how to get it.
    """
    name = name or module.partition(".")[0]
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of every data set that is new
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {error.name or module}: pip install 'memlm[{name}]'") from None
