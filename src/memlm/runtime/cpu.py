"""What a processor (CPU) wants that a GPU does not: precision, threads, memory. Importing this imports no torch."""

import ctypes
import functools
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision = Literal["auto", "bf16", "fp32"]
"""Of matrix products; `auto` is what the device is made for."""
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""Instructions of x86 and Arm processors that multiply in bf16."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def wait_without_spinning() -> None:
    """Let threads sleep while they wait; to be called before torch is imported.

    Threads that spin make a core that is shared with other work ten times as slow.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def precision_on(device: "torch.device", wanted: Precision = "auto") -> Literal["bf16", "fp32"]:
    """The type of matrix products on a device: what is wanted, or, if that is `auto`, what the device is made for.

    On a processor without such instructions bf16 is emulated, up to sixty times slower than fp32.

    Raises:
        ValueError: there is no such precision.
    """
    import torch

    if wanted not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision is one of auto, bf16 and fp32, not {wanted!r}")
    if wanted != "auto":
        return wanted
    match device.type:
        case "cpu":
            return "bf16" if any(_capabilities().get(name) for name in _BF16_INSTRUCTIONS) else "fp32"
        case "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        case _:
            return "bf16"


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def has_int8(device: str) -> bool:
    """Whether products of int8 numbers, in int32, are fast on a device (four times as fast as fp32), and right.

    Older processors add pairs of products in 16 bits, where the largest do not fit.
    """
    import torch

    if device != "cpu" or not _capabilities().get("avx512_vnni"):
        return False
    largest = torch.full((64, 64), -127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest) == 64 * 127**2).all())


def _capabilities() -> Mapping[str, Any]:
    """A processor's instructions; of an older torch, which does not tell, none: fp32 is slow nowhere."""
    import torch

    return getattr(torch.cpu, "get_capabilities", dict)()


def attend_in_fp32(attend: Callable[..., Any], query: "Tensor", key: "Tensor", value: "Tensor") -> Any:
    """Attention, in fp32 where it is trained on a CPU: torch's bf16 gradient takes three times as long there."""
    import torch

    if query.device.type != "cpu" or not query.requires_grad:
        return attend(query, key, value)
    with torch.autocast("cpu", enabled=False):
        mixed, weights = attend(query.float(), key.float(), value.float())
    return mixed.to(query.dtype), weights


def keep_freed_memory() -> None:
    """Reuse freed memory instead of handing it back to the system, where the C library is glibc; else do nothing.

    A training step frees and takes the same hundred megabytes again; by default glibc maps the large blocks anew each
    time, and the page faults cost about a fifth of a step on a CPU. The process keeps its peak memory until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
