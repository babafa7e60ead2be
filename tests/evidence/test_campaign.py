"""The reliability campaign: it finds nothing where nothing is wrong, and what is wrong it finds."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Outcome
from memlm import MemoryFile, TextAutoencoder
from memlm_evidence.campaign import damage, texts
from memlm_evidence.campaign.campaign import PARTS
from memlm_evidence.campaign.part import Part


def tried(name: str, model: TextAutoencoder, seconds: float = 1.0) -> Part:
    part = Part(name, seconds, random.Random(name))
    PARTS[name](part, model)  # type: ignore[index]
    return part


@pytest.mark.parametrize("name", ["remembered", "regenerated", "memory-files", "checkpoints"])
def test_nothing_is_found_where_nothing_is_wrong(name: str, trained: TextAutoencoder) -> None:
    part = tried(name, trained)
    assert part.faults == []
    assert part.tries == sum(part.outcomes.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["appends", "trainings"])
def test_what_is_killed_loses_nothing(name: str, trained: TextAutoencoder) -> None:
    part = tried(name, trained, seconds=20)
    assert part.faults == []
    assert part.tries > 0


def test_a_text_that_comes_back_otherwise_is_found_and_named(
    trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_texts", lambda part: ["one", "two \0", "three"])
    whole = MemoryFile.text
    monkeypatch.setattr(MemoryFile, "text", lambda *given: whole(*given).replace("\0", ""))
    part = tried("remembered", trained, seconds=0.01)
    assert len(part.faults) == 1
    assert r"came back otherwise: 'two \x00'" in part.faults[0]


def test_a_damaged_file_that_is_read_wrong_or_breaks_is_kept(
    trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "damaged", lambda data, rng: data)
    whole = MemoryFile.text
    monkeypatch.setattr(MemoryFile, "text", lambda *given: whole(*given) + "!")
    part = tried("memory-files", trained, seconds=0.01)
    assert "AssertionError: document 0 was read as '!'" in part.faults[0]
    kept = Path(part.faults[0].rpartition("(")[2].rstrip(")"))
    assert kept.stat().st_size > 0
    monkeypatch.setattr(MemoryFile, "text", lambda *given: 1 / 0)
    assert "ZeroDivisionError" in tried("memory-files", trained, seconds=0.01).faults[0]


def test_hard_texts_are_text_and_surrogates_are_not() -> None:
    rng = random.Random(0)
    drawn = [texts.hard_text(rng) for _ in range(300)]
    assert all(text.encode() for text in drawn if text)
    assert len({*"".join(drawn)}) > 2000, "of many kinds"
    for _ in range(50):
        with pytest.raises(UnicodeEncodeError):
            texts.surrogates(rng).encode()


def test_as_a_command_it_counts_what_it_tried(memlm: Callable[..., Outcome], finished_run: Path) -> None:
    given = ("bench", "campaign", finished_run / "model", "--json", "--parts", "checkpoints", "--minutes")
    answer = memlm(*given, 0.01).json()
    assert answer["faults"] == 0
    assert answer["tries"] == answer["parts"][0]["tries"] > 0
    assert "--minutes must be positive, not 0" in memlm(*given, 0).err
    assert "not nan" in memlm(*given, "nan").err
