"""What shows memlm's claims: experiments, attacks, benchmarks, sources of known entropy, sweeps, and their pages.

It imports memlm as any user would; nothing in memlm imports it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memlm_evidence.attacks.settle import settle

__all__ = ["settle"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line imports this package, and no torch.
    if name == "settle":
        return importlib.import_module("memlm_evidence.attacks.settle").settle
    raise AttributeError(f"module 'memlm_evidence' has no attribute {name!r}")
