"""Any text at all comes back from a file, at every precision."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from memlm import MemoryFile, TextAutoencoder
from memlm.store.packing import BITS, Bits
from tiny import SENTENCE

PER_PRECISION = 12_500


def any_character(rng: random.Random) -> str:
    """Any but the surrogates, which are no characters by themselves."""
    return chr(rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0xE000, 0x110000)]))


KINDS: tuple[Callable[[random.Random, int], str], ...] = (
    lambda rng, size: " ".join(rng.choice(SENTENCE.split()) for _ in range(size // 4)),
    lambda rng, size: "".join(any_character(rng) for _ in range(size)),
    lambda rng, size: rng.randbytes(size).decode("latin-1"),
    lambda rng, size: any_character(rng) * size,
    lambda rng, size: "".join(rng.choice(" \t\r\n\0ünd漢🙂👩‍👩‍👧") for _ in range(size)),
    lambda rng, size: "".join(rng.choice("0123456789abcdef-") for _ in range(size)),
)


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
def test_whatever_is_remembered_is_recalled(bits: Bits, trained: TextAutoencoder, tmp_path: Path) -> None:
    rng = random.Random(bits)
    texts = [rng.choice(KINDS)(rng, rng.choice([0, 1, 2, 3, 5, 8, 20, 60])) for _ in range(PER_PRECISION)]
    documents = [(str(number), text) for number, text in enumerate(texts)]
    MemoryFile.create(tmp_path / "fuzz.memory", trained, documents, bits=bits)
    notes = MemoryFile.open(tmp_path / "fuzz.memory", trained)
    assert [one.num_bytes for one in notes.documents] == [len(text.encode()) for text in texts]
    assert notes.text() == "".join(texts)
