"""What the exact decoder does between its matrix products, each in one pass over its rows, compiled by numba.

The operations are those of `models.exact`, in the same order, each rounded by itself: so the numbers are the same (only
a zero may have another sign). Whole numbers are int8, sums of their products int32. Importing this imports numba, and
compiles all of it, or loads what was compiled before.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from memlm.models.exact import EPSILON, LARGEST_NORMED, SCORES_PER_NAT, TINY

Floats = NDArray[np.float32]
Whole = NDArray[np.int8]
Sums = NDArray[np.int32]

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(*types: str) -> Callable[[_Kernel], _Kernel]:
    """For arguments of these types, at once. Without `fastmath`, which would sum in another order, and fuse products
    with sums."""
    signature = f"void({', '.join(types)})"
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

    def compile_now(kernel: _Kernel) -> _Kernel:
        try:
            return cast(_Kernel, numba.njit(signature, cache=True, **options)(kernel))
        except Exception:  # what was kept is damaged, or nothing can be kept: no folder, a full disk
            return cast(_Kernel, numba.njit(signature, **options)(kernel))

    return compile_now


def _inlined(step: _Kernel) -> _Kernel:
    """A step of kernels: called, it would take three times as long."""
    return cast(_Kernel, numba.njit(inline="always")(step))


_ROWS, _HEADS, _ROW = "f4[:, ::1]", "f4[:, :, ::1]", "f4[::1]"
_WHOLE, _SUMS, _HEAD_SUMS, _PLACES = "i1[:, ::1]", "i4[:, ::1]", "i4[:, :, ::1]", "i8[::1]"
_PRODUCT = _SUMS, _ROW, _ROW
_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.float32(TINY)
_PER_NAT, _LARGEST_NORMED = np.float32(SCORES_PER_NAT), np.float32(LARGEST_NORMED)
_MAGNITUDE, _LEAST = np.int32(0x7FFFFFFF), np.int32(-(2**31))
_BLOCK = 64
"""Of a vocabulary."""


@_inlined
def _step_of(bits: Sums, row: int, largest: np.float32, cell: Sums) -> np.float32:
    """What the whole numbers of a row of floats are multiplied by.

    Magnitudes are compared as the whole numbers that their `bits` are: of those, but not of floats, which may be NaN,
    many are compared at once. `cell` is scratch space of one number.
    """
    widest = np.int32(0)
    for i in range(bits.shape[1]):
        widest = max(widest, bits[row, i] & _MAGNITUDE)
    cell[0] = widest
    return max(cell.view(np.float32)[0] * (_ONE / largest), _TINY)


@_inlined
def _round(rows: Floats, bits: Sums, row: int, largest: np.float32, whole: Whole, at: int, cell: Sums) -> np.float32:
    """A row in whole numbers up to `largest`; their step."""
    step = _step_of(bits, row, largest, cell)
    per_step = _ONE / step
    for i in range(rows.shape[1]):
        whole[at, i] = np.int8(np.int32(np.rint(rows[row, i] * per_step)))
    return step


@_inlined
def _norm(rows: Floats, bits: Sums, row: int, scratch: Sums, found: Floats, at: int) -> None:
    """Layer norm of a row, of which `scratch` holds the whole numbers."""
    dim, step = rows.shape[1], _step_of(bits, row, _LARGEST_NORMED, scratch)
    per_step = _ONE / step
    total, squares = np.int32(0), np.int64(0)
    for i in range(dim):
        scratch[i] = np.int32(np.rint(rows[row, i] * per_step))
        total += scratch[i]
    for i in range(dim):
        squares += np.int64(scratch[i]) * np.int64(scratch[i])
    wide_step, wide_total = np.float64(step), np.float64(total)
    variance = np.float64(squares) * dim - wide_total * wide_total  # times dim²
    epsilon = 1.0 / (wide_step * wide_step) * (EPSILON * dim * dim)
    scale, mean = np.float32(1.0 / math.sqrt(variance + epsilon) * dim), np.float32(wide_total * (1.0 / dim))
    for i in range(dim):
        found[at, i] = (np.float32(scratch[i]) - mean) * scale


@compiled(_ROWS, "f4", _WHOLE, _ROW)
def rounded(rows: Floats, largest: np.float32, whole: Whole, steps: Floats) -> None:
    """Rows [row, dim] as whole numbers in units of a step for each."""
    bits, cell = rows.view(np.int32), np.empty(1, np.int32)
    for row in range(len(rows)):
        steps[row] = _round(rows, bits, row, largest, whole, row, cell)


@_inlined
def _add(sums: Sums, units: Floats, steps: Floats, rows: Floats, row: int) -> None:
    """A row of a product, in units of each output's step and its own, added to a row."""
    for i in range(rows.shape[1]):
        rows[row, i] += np.float32(sums[row, i]) * units[i] * steps[row]


@compiled(*_PRODUCT, _ROWS, _ROWS)
def normed(sums: Sums, units: Floats, steps: Floats, rows: Floats, found: Floats) -> None:
    """A product [row, dim] is added to rows, and they are layer-normed."""
    bits, scratch = rows.view(np.int32), np.empty(rows.shape[1], np.int32)
    for row in range(len(rows)):
        _add(sums, units, steps, rows, row)
        _norm(rows, bits, row, scratch, found, row)


@compiled(*_PRODUCT, _ROWS, "f4", _WHOLE, _ROW)
def normed_rounded(
    sums: Sums, units: Floats, steps: Floats, rows: Floats, largest: np.float32, whole: Whole, new_steps: Floats
) -> None:
    """A product [row, dim] is added to rows; they are layer-normed, and then `rounded`."""
    bits, scratch = rows.view(np.int32), np.empty(rows.shape[1], np.int32)
    found = np.empty((1, rows.shape[1]), np.float32)
    found_bits = found.view(np.int32)
    for row in range(len(rows)):
        _add(sums, units, steps, rows, row)
        _norm(rows, bits, row, scratch, found, 0)
        new_steps[row] = _round(found, found_bits, 0, largest, whole, row, scratch)


@compiled(*_PRODUCT, "f4", _WHOLE, _ROW)
def squared_rounded(
    sums: Sums, units: Floats, steps: Floats, largest: np.float32, whole: Whole, new_steps: Floats
) -> None:
    """A product's squared ReLU, and then `rounded`."""
    active, cell = np.empty((1, sums.shape[1]), np.float32), np.empty(1, np.int32)
    bits = active.view(np.int32)
    for row in range(len(sums)):
        for i in range(sums.shape[1]):
            value = max(np.float32(sums[row, i]) * units[i] * steps[row], _ZERO)
            active[0, i] = value * value
        new_steps[row] = _round(active, bits, 0, largest, whole, row, cell)


@compiled(*_PRODUCT, "f4", _WHOLE, _HEADS)
def parts_rounded(
    sums: Sums, units: Floats, steps: Floats, largest: np.float32, whole: Whole, new_steps: Floats
) -> None:
    """A product [head·part, chunk·token] as `rounded` rows of tokens, [head·chunk·part, token]."""
    heads, chunks, parts = new_steps.shape
    tokens = whole.shape[1]
    values, cell = np.empty((1, tokens), np.float32), np.empty(1, np.int32)
    bits = values.view(np.int32)
    for head in range(heads):
        for chunk in range(chunks):
            for part in range(parts):
                channel, first = head * parts + part, chunk * tokens
                for i in range(tokens):
                    values[0, i] = np.float32(sums[channel, first + i]) * units[channel] * steps[first + i]
                at = (head * chunks + chunk) * parts + part
                new_steps[head, chunk, part] = _round(values, bits, 0, largest, whole, at, cell)


@compiled(_HEAD_SUMS, _ROWS, _HEADS, "f4", _WHOLE, _ROW)
def tokens_rounded(
    sums: Sums, units: Floats, steps: Floats, largest: np.float32, whole: Whole, new_steps: Floats
) -> None:
    """A product [head, token, chunk·part] of rows [head, chunk, part] as `rounded` rows of parts, [chunk·token,
    head·part]."""
    heads, chunks, parts = steps.shape
    values, cell = np.empty((1, heads * parts), np.float32), np.empty(1, np.int32)
    bits = values.view(np.int32)
    for chunk in range(chunks):
        for token in range(sums.shape[1]):
            for head in range(heads):
                for i in range(parts):
                    value = np.float32(sums[head, token, chunk * parts + i]) * units[head, token]
                    values[0, head * parts + i] = value * steps[head, chunk, i]
            row = chunk * sums.shape[1] + token
            new_steps[row] = _round(values, bits, 0, largest, whole, row, cell)


@_inlined
def _score(sums: Sums, units: Floats, steps: Floats, row: int, token: int) -> np.float32:
    """In sixteenths of a bit; never -0, whose bits are not those of 0."""
    return np.float32(np.rint(np.float32(sums[row, token]) * units[token] * steps[row] * _PER_NAT) + _ZERO)


@_inlined
def _ordered(bits: Any) -> Any:
    """Whole numbers in the order of the floats that have these bits; and back again."""
    return bits ^ ((bits >> 31) & _MAGNITUDE)


@compiled(*_PRODUCT, _PLACES, _ROW)
def ranked(sums: Sums, units: Floats, steps: Floats, best: NDArray[np.int64], lead: Floats) -> None:
    """Of each row of a product [row, vocab]: the token with the highest score, and by how much it leads.

    The highest of each block are found first, many numbers at once; then only one block has to be looked into.
    """
    vocab_size = sums.shape[1]
    num_blocks = (vocab_size + _BLOCK - 1) // _BLOCK
    scores, tops = np.full((num_blocks, _BLOCK), -np.inf, np.float32), np.empty(num_blocks, np.int32)
    flat, bits, two = scores.reshape(num_blocks * _BLOCK), scores.view(np.int32), np.empty(2, np.int32)
    for row in range(len(sums)):
        for i in range(vocab_size):
            flat[i] = _score(sums, units, steps, row, i)
        first = second = _LEAST
        for block in range(num_blocks):
            top = _LEAST
            for i in range(_BLOCK):
                top = max(top, _ordered(bits[block, i]))
            tops[block] = top
            first = max(first, top)
        block = 0
        for b in range(num_blocks):
            if tops[b] == first:
                block = b
                break
        token = 0
        for i in range(_BLOCK):
            if _ordered(bits[block, i]) == first:
                token = i
                break
        tops[block], scores[block, token] = _LEAST, -np.inf
        for b in range(num_blocks):
            second = max(second, tops[b])
        for i in range(_BLOCK):
            second = max(second, _ordered(bits[block, i]))
        two[0], two[1] = _ordered(first), _ordered(second)
        best[row] = min(block * _BLOCK + token, vocab_size - 1)  # where all are NaN
        lead[row] = two.view(np.float32)[0] - two.view(np.float32)[1]


@compiled(*_PRODUCT, _PLACES, _PLACES, _ROW, "i8", _SUMS)
def ends(
    sums: Sums,
    units: Floats,
    steps: Floats,
    best: NDArray[np.int64],
    rows: NDArray[np.int64],
    shares: Floats,
    room: int,
    found: Sums,
) -> None:
    """Of some rows of what was `ranked`, [row, vocab]."""
    vocab_size, last = sums.shape[1], np.float32(len(shares) - 1)
    each, which = np.empty(vocab_size, np.float32), np.empty(vocab_size, np.uint32)
    for place in range(len(rows)):
        row, total, end = rows[place], np.int64(0), np.int32(0)
        highest = _score(sums, units, steps, row, best[row])
        # One short loop for each step, and unsigned places: of such a loop many numbers are worked on at once.
        for i in range(vocab_size):
            below = highest - _score(sums, units, steps, row, i)
            which[i] = np.uint32(np.int32(below if below < last else last))  # and of NaN
        for i in range(vocab_size):
            each[i] = shares[which[i]]
        for i in range(vocab_size):
            total += np.int64(np.int32(each[i]))
        per_share = np.float32(1.0 / np.float64(total) * room)
        for i in range(vocab_size):
            found[place, i] = np.int32(each[i] * per_share) + np.int32(1)
        for i in range(vocab_size):
            end += found[place, i]
            found[place, i] = end
