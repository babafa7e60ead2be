"""Damaged files: what is wrong with them is said, or they are read right; nothing else."""

import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import memlm
from memlm.data.texts import everyday_lines
from memlm.store.file import MemoryFile
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.campaign.part import REFUSALS, Part

_PATIENCE = 60
"""Seconds after which a damaged file counts as one that hangs."""
_MOST_BYTES = 2 << 30
"""What reading one may take."""


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes, changed somewhere."""
    place, other = (rng.randrange(len(data) + 1) for _ in range(2))
    begin, end = min(place, other), max(place, other)
    match rng.randrange(7):
        case 0:
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 2, 8))):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 1:
            return data[:place]
        case 2:
            return data[:begin] + data[min(end, begin + rng.choice((1, 8, 100))) :]
        case 3:
            return data[:place] + rng.randbytes(rng.choice((1, 8, 100))) + data[place:]
        case 4:
            return data[:end] + data[begin:]
        case 5:
            length = min(rng.choice((1, 4, 8, 64)), len(data) - begin)
            return data[:begin] + rng.choice((b"\0", b"\xff")) * length + data[begin + length :]
        case _:
            return data[place:] + data[:place]


def memory_files(part: Part, model: TextAutoencoder) -> None:
    """Documents of a damaged memory file: each is exact or refused."""
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole.memory", Path(name) / "broken.memory"
        texts = {str(number): text for number, text in enumerate(_documents(part.rng))}
        MemoryFile.create(whole, model, texts).close()
        data = whole.read_bytes()

        def read() -> str:
            with MemoryFile.open(broken, model) as notes:
                ends = set()
                for one in notes.documents:
                    try:
                        text = notes.text(one.start_chunk, one.stop_chunk)
                    except REFUSALS:
                        ends.add("refused")
                        continue
                    if text != texts.get(one.name):
                        raise AssertionError(f"document {one.name} was read as {text[:100]!r}")
                    ends.add("right")
            return "some right, some refused" if len(ends) > 1 else f"all {ends.pop()}" if ends else "nothing in it"

        while part.goes_on:
            broken.write_bytes(damaged(data, part.rng))
            _judge(part, read, broken)


def checkpoints(part: Part, model: TextAutoencoder) -> None:
    """A checkpoint with one damaged file: it is refused, or its encoder is the same."""
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        model.save_pretrained(whole)
        shutil.copytree(whole, broken)
        files = sorted(path.name for path in whole.iterdir())

        def read() -> str:
            if memlm.load(broken, device="cpu").encoder_fingerprint != model.encoder_fingerprint:
                raise AssertionError("another encoder was loaded")
            return "read as before"

        while part.goes_on:
            victim = part.rng.choice(files)
            (broken / victim).write_bytes(damaged((whole / victim).read_bytes(), part.rng))
            _judge(part, read, broken / victim)
            shutil.copyfile(whole / victim, broken / victim)


def _documents(rng: random.Random) -> Iterator[str]:
    prose = everyday_lines("prose")
    yield ""
    for _ in range(3):
        begin = rng.randrange(len(prose) - 4)
        yield " ".join(prose[begin : begin + rng.randint(1, 4)])
    yield "漢字 → ünd 👩‍👩‍👧\0\r\n" * 4


def _judge(part: Part, read: Callable[[], str], path: Path) -> None:
    begun, before = time.monotonic(), _peak_bytes()
    try:
        with _patience():
            outcome = read()
    except REFUSALS as error:
        outcome = "refused" if str(error) else ""
    except Exception as error:  # anything else is a fault
        part.failed(_kept(path, f"{type(error).__name__}: {error}"))
        return
    if not outcome:
        part.failed(_kept(path, "refused without a word"))
        return
    if (taken := _peak_bytes() - before) > _MOST_BYTES:
        part.failed(_kept(path, f"{outcome}, and took {taken / 1e9:.1f} GB"))
        return
    part.saw(outcome, seconds=time.monotonic() - begun)


def _peak_bytes() -> int:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _kept(path: Path, fault: str) -> str:
    """A fault, with the file that shows it, where it stays."""
    folder = Path(tempfile.mkdtemp(prefix="memlm-fault-"))
    shutil.copy(path, folder)
    return f"{fault} ({folder / path.name})"


@contextmanager
def _patience() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise RuntimeError(f"it takes longer than {_PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
