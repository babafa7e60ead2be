"""Files that are dropped on the page."""

from pathlib import Path

MOST_BYTES = 64 * 2**20
"""Of a file."""


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: it is empty, no text, or not UTF-8; says where.
    """
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path.name} is empty: there is nothing to remember")
    if (place := data.find(b"\0")) >= 0:
        raise ValueError(f"{path.name} is no text: byte {place:,} is NUL; drop a file of text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"byte {error.start:,} (0x{data[error.start]:02x})"
        raise ValueError(
            f"{path.name} is not UTF-8: {what} is not valid there; convert it first (iconv -f latin1 -t utf-8)"
        ) from None
