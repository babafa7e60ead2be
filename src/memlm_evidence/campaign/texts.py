"""Hard texts: every plane of Unicode, control characters, two directions of writing, long runs, long lines."""

import functools
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from memlm.data.texts import EVERYDAY_KINDS, everyday_lines
from memlm.store.file import MemoryFile
from memlm.store.packing import BITS
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.campaign.part import Part

_AT_ONCE = 200
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
_LONG_BYTES = 10_000_000
_LONGEST_EACH = 500
"""One batch in so many is a line of ten megabytes."""


_lines = functools.cache(everyday_lines)


def hard_text(rng: random.Random) -> str:
    """A short text of any kind."""
    match rng.randrange(6):
        case 0:  # any characters at all
            drawn = (rng.randrange(0x110000) for _ in range(rng.randint(0, 60)))
            return "".join(chr(each) for each in drawn if not 0xD800 <= each < 0xE000)
        case 1:  # neighbours in one block
            block = rng.choice(_BLOCKS)
            return "".join(chr(block + rng.randrange(96)) for _ in range(rng.randint(1, 80)))
        case 2:  # one piece again and again
            piece = rng.choice((*_ODD, "a", " ", "the ", "漢", chr(rng.randrange(0x20, 0xD000))))
            return piece * rng.randint(1, 400)
        case 3:  # odd characters among words
            words = [rng.choice((*_ODD, *_lines(rng.choice(EVERYDAY_KINDS))[:50])) for _ in range(12)]
            return " ".join(words)
        case 4:  # what people type
            return rng.choice(_lines(rng.choice(EVERYDAY_KINDS)))
        case _:  # bytes read as if they were text
            return rng.randbytes(rng.randint(0, 200)).decode("latin-1")


def surrogates(rng: random.Random) -> str:
    """A text that UTF-8 cannot say."""
    text = hard_text(rng)
    place = rng.randint(0, len(text))
    return text[:place] + chr(rng.randrange(0xD800, 0xE000)) + text[place:]


def remembered(part: Part, model: TextAutoencoder) -> None:
    """Texts through memory files of every number of bits: byte for byte, or a fault."""
    with tempfile.TemporaryDirectory() as name:
        while part.goes_on:
            long = part.rng.randrange(_LONGEST_EACH) == 0
            texts = [hard_text(part.rng) * (_LONG_BYTES // 200)] if long else _texts(part)
            bits = part.rng.choice(BITS)

            def kept(texts: Sequence[str], bits: int = bits) -> str | None:
                path = Path(name) / "texts.memory"
                path.unlink(missing_ok=True)
                documents = [(str(number), text) for number, text in enumerate(texts)]
                MemoryFile.create(path, model, documents, bits=bits).close()  # type: ignore[arg-type]
                with MemoryFile.open(path, model) as notes:
                    back = [notes.text(one.start_chunk, one.stop_chunk) for one in notes.documents]
                return None if back == list(texts) else "came back otherwise"

            _judge(part, texts, kept, f"remembered in {bits} bits", f"exact, {bits} bits")


def regenerated(part: Part, model: TextAutoencoder) -> None:
    """Texts through vectors alone: what comes back wrong is not called proven; what UTF-8 cannot say is refused."""

    def proven_is_right(texts: Sequence[str]) -> str | None:
        back = model.regenerate(model.encode(texts))
        wrong = [text for text, one in zip(texts, back, strict=True) if one.proven and one != text]
        return f"proven and wrong: {wrong[0]!r}" if wrong else None

    def refused(texts: Sequence[str]) -> str | None:
        try:
            model.encode(texts)
        except ValueError as error:
            return None if "surrogate" in str(error) else f"refused as {error}"
        return "a lone surrogate was taken"

    while part.goes_on:
        _judge(part, _texts(part), proven_is_right, "regenerated", "right, or marked")
        _judge(part, [surrogates(part.rng)], refused, "a surrogate", "refused by name")


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
