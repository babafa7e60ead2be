"""`memlm bench size` for people: what is worst comes first."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from memlm.cli.show import print_table
from memlm.runtime.tables import Table
from memlm.runtime.wording import number

_COMPRESSORS = {"zstd_dictionary": "zstd, dictionary", "brotli": "brotli", "deflate": "deflate", "gzip": "gzip"}
_RATIOS_NOTE = (
    "Bytes divided by the bytes of the text, cut into the same chunks. Bare: without index and checksums. "
    "No memory: the tokens, coded by their frequencies."
)
_PARTS = ("vector", "patch", "raw", "other", "memory", "text")


def print_sizes(console: Console, answer: Mapping[str, Any]) -> None:
    """Tables of ratios, of where a file's bytes go, and of what is hardly text."""
    times = answer["summary"]["times_zstd_dictionary"]
    rows = sorted(answer["rows"], key=lambda row: -times[row["text"]])
    for table, note in (
        (_ratios(rows), _RATIOS_NOTE),
        (_whole(rows), "Bytes divided by the bytes of the text, compressed as one stream without a dictionary."),
        (_parts(rows), "Bytes per chunk of the memory file: vectors, patches, raw text, and the rest."),
        (_bad(answer["bad_input"]), "Input that is hardly text, in a memory file."),
    ):
        print_table(console, table, note)
    worst = answer["summary"]["worst"]
    console.print(f"Worst: {worst}, {number(times[worst])} times the bytes of zstd with a dictionary.")


def _ratios(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = {"memory": "memory file", "memory_bare": "bare", **_COMPRESSORS, "no_memory": "no memory"}
    return Table(
        ["text", "bits", *names.values(), "exact"],
        [
            [
                row["text"],
                str(row["bits"]),
                *(number(row[f"{name}_ratio"], 3) for name in names),
                "yes" if row["exact"] else "no",
            ]
            for row in rows
        ],
    )


def _whole(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = [*rows[0]["whole"]]
    header = ["text", *(name.removesuffix("_ratio") for name in names)]
    return Table(header, [[row["text"], *(number(row["whole"][name], 3) for name in names)] for row in rows])


def _parts(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        ["text", "bits", "vectors", "patches", "raw", "rest", "all", "of text", "over the text"],
        [
            [
                row["text"],
                str(stored["bits"]),
                *(number(stored[f"{part}_bytes_per_chunk"], 1) for part in _PARTS),
                number(stored["memory_ratio"], 3),
            ]
            for row in rows
            for stored in row["by_bits"]
        ],
    )


def _bad(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        ["input", "bytes", "as UTF-8", "file", "exact"],
        [
            [
                row["text"],
                *(f"{row[name]:,}" for name in ("input_bytes", "utf8_bytes", "file_bytes")),
                "yes" if row["exact"] else "no",
            ]
            for row in rows
        ],
    )
