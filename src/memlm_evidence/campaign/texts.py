"""Hard texts: every plane of Unicode, control characters, two directions of writing, long runs, long lines."""

import functools
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from memlm.data.texts import EVERYDAY_KINDS, everyday_lines
from memlm.store.file import MemoryFile
from memlm.store.packing import BITS
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.campaign.part import Part

_AT_ONCE = 1000
"""Texts that are checked together; only where that finds something, each alone."""
_ALONE = 20
"""Of them, those that are documents of their own; the others are one."""
_BETWEEN = ("", "\n", " ", "\0")
"""What stands between texts of one document."""
_BLOCKS = (
    0x20,
    0xA0,
    0x590,
    0x600,
    0x900,
    0xE00,
    0x2000,
    0x3040,
    0x4E00,
    0xAC00,
    0xFB50,
    0xFE00,
    0x1F300,
    0x20000,
    0xE0100,
)
"""Where the blocks begin that characters are drawn from."""
_ODD = ("\0", "\ufeff", "\u202e", "\u200d", "\u0301" * 8, "\r\n", "\t", "\x1b[31m", "\x7f", "\uffff", "\U0010ffff")
_LONGEST = 6.5
"""Most texts are short, and all of a kind have up to two to the power of this pieces."""
_LONG_BYTES, _PATIENT = {False: 100_000, True: 10_000_000}, 3600
"""How long a long line is, by whether there is an hour for them."""

_lines = functools.cache(everyday_lines)


def hard_text(rng: random.Random) -> str:
    """A text of any kind, most of them short."""
    number = round(2 ** rng.uniform(0, _LONGEST))
    match rng.randrange(6):
        case 0:  # any characters at all
            drawn = (rng.randrange(0x110000) for _ in range(rng.randint(0, number)))
            return "".join(chr(each) for each in drawn if not 0xD800 <= each < 0xE000)
        case 1:  # neighbours in one block
            block = rng.choice(_BLOCKS)
            return "".join(chr(block + rng.randrange(96)) for _ in range(number))
        case 2:  # one piece again and again
            piece = rng.choice((*_ODD, "a", " ", "the ", "漢", chr(rng.randrange(0x20, 0xD000))))
            return piece * rng.choice((number, 4 * number))
        case 3:  # odd characters among words
            words = _lines(rng.choice(EVERYDAY_KINDS))[:50]
            return " ".join(rng.choice((*_ODD, *words))[:number] for _ in range(1 + number // 8))
        case 4:  # what people type
            return rng.choice(_lines(rng.choice(EVERYDAY_KINDS)))[: 2 * number]
        case _:  # bytes read as if they were text
            return rng.randbytes(number).decode("latin-1")


def surrogates(rng: random.Random) -> str:
    """A text that UTF-8 cannot say."""
    text = hard_text(rng)
    place = rng.randint(0, len(text))
    return text[:place] + chr(rng.randrange(0xD800, 0xE000)) + text[place:]


def remembered(part: Part, model: TextAutoencoder) -> None:
    """Texts through memory files of every number of bits, many in a document: byte for byte, or a fault."""
    with tempfile.TemporaryDirectory() as name:
        while part.goes_on:
            bits, target = part.rng.choice(BITS), part.rng.choice((None, 0.0, 0.5))
            between, path = part.rng.choice(_BETWEEN), Path(name) / "texts.memory"
            kept = partial(_kept_together, path, model, between, bits=bits, target=target)
            _judge(part, _texts(part), kept, f"remembered in {bits} bits, target {target}", f"exact, {bits} bits")


def long_lines(part: Part, model: TextAutoencoder) -> None:
    """A line of up to ten megabytes through a memory file, in each number of bits by turns."""
    size = _LONG_BYTES[part.seconds > _PATIENT]
    with tempfile.TemporaryDirectory() as name:
        while part.goes_on:
            bits, path = BITS[part.found.tries % len(BITS)], Path(name) / "line.memory"
            piece = "".join(hard_text(part.rng) for _ in range(10)).replace("\n", "") + "a"
            line = piece * (1 + size // len(piece.encode()))
            well = f"{size:,} bytes, exact, {bits} bits"
            _judge(part, [line], partial(_kept, path, model, bits=bits), f"a long line in {bits} bits", well)


def regenerated(part: Part, model: TextAutoencoder) -> None:
    """Texts through vectors alone, as many in a chunk as fit: what comes back wrong is marked, and not proven."""
    while part.goes_on:
        _judge(part, _texts(part), partial(_proven_is_right, model), "regenerated", "right, or marked")


def surrogates_refused(part: Part, model: TextAutoencoder) -> None:
    """Texts that UTF-8 cannot say are refused by name, and nothing is written of them."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "texts.memory"
        MemoryFile.create(path, model, {"a": "before"}).close()
        before = path.read_bytes()
        with MemoryFile.open(path, model) as notes:

            def refused(texts: Sequence[str]) -> str | None:
                for give in (notes.append, lambda text: model.encode([text])):
                    try:
                        give(texts[0])
                    except ValueError as error:
                        if "surrogate" not in str(error):
                            return f"refused as {error}"
                    else:
                        return "a lone surrogate was taken"
                return None if path.read_bytes() == before else "something was written"

            while part.goes_on:
                _judge(part, [surrogates(part.rng)], refused, "a surrogate", "refused by name")


def _kept_together(
    path: Path, model: TextAutoencoder, between: str, texts: Sequence[str], **options: Any
) -> str | None:
    """Some texts as documents, and the others as one."""
    return _kept(path, model, [*texts[:_ALONE], between.join(texts[_ALONE:])], **options)


def _kept(
    path: Path, model: TextAutoencoder, texts: Sequence[str], *, bits: Any, target: float | None = None
) -> str | None:
    """Write a memory file of these documents, and read it."""
    path.unlink(missing_ok=True)
    documents = [(str(number), text) for number, text in enumerate(texts)]
    MemoryFile.create(path, model, documents, bits=bits, target=target).close()
    with MemoryFile.open(path, model) as notes:
        back = [notes.text(one.start_chunk, one.stop_chunk) for one in notes.documents]
    return None if back == [*texts] else "came back otherwise"


def _proven_is_right(model: TextAutoencoder, texts: Sequence[str]) -> str | None:
    """Regenerate texts, as many in a chunk as fit."""
    sheets, room = [""], 0
    for text, tokens in zip(texts, model.tokenizer.encode_batch(texts), strict=True):
        if len(tokens) > room:
            sheets, room = [*sheets, ""], model.config.shape.chunk_len
        sheets[-1] += text
        room -= len(tokens)
    for sheet, back in zip(sheets, model.regenerate(model.encode(sheets)), strict=True):
        if back.proven and back != sheet:
            return f"proven and wrong: {sheet!r} as {back!r}"
        if back != sheet and not back.unsure:
            return f"wrong and not marked: {sheet!r} as {back!r}"
    return None


def _texts(part: Part) -> list[str]:
    return [hard_text(part.rng) for _ in range(_AT_ONCE)]


def _judge(
    part: Part, texts: Sequence[str], check: Callable[[Sequence[str]], str | None], what: str, well: str
) -> None:
    """Check texts at once; where that finds something, one by one."""
    begun = time.monotonic()
    fault = _fault(check, texts)
    if fault is None:
        part.saw(well, len(texts), seconds=time.monotonic() - begun)
        return
    found = False
    for text in texts:
        alone = _fault(check, [text])
        if alone is None:
            part.saw(well)
        else:
            found = True
            part.failed(f"{what}: {alone}: {text[:200]!r}")
    if not found:
        part.failed(f"{what}, {len(texts)} together: {fault}")


def _fault(check: Callable[[Sequence[str]], str | None], texts: Sequence[str]) -> str | None:
    try:
        return check(texts)
    except Exception as error:  # anything at all is a fault
        return f"{type(error).__name__}: {error}"
