"""The reliability campaign: it finds nothing where nothing is wrong, and what is wrong it finds."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Outcome
from memlm import MemoryFile, TextAutoencoder
from memlm_evidence.campaign import damage, texts
from memlm_evidence.campaign.campaign import PARTS, campaign_table
from memlm_evidence.campaign.disk import Disk
from memlm_evidence.campaign.part import Part
from memlm_evidence.campaign.processes import begin
from memlm_evidence.campaign.workshop import Case, interrupting
from memlm_evidence.pages.page import environment


def tried(name: str, model: TextAutoencoder, seconds: float = 1.0) -> Part:
    part = Part(name, seconds)
    PARTS[name][0](part, model)  # type: ignore[index]
    return part


@pytest.mark.parametrize(
    "name", ["remembered", "long-lines", "regenerated", "surrogates", "memory-files", "checkpoints"]
)
def test_nothing_is_found_where_nothing_is_wrong(
    name: str, trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_AT_ONCE", 100)
    monkeypatch.setitem(texts._LONG_BYTES, False, 5_000)
    part = tried(name, trained)
    assert part.found.faults == []
    assert part.found.tries == sum(part.found.outcomes.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith(("kills", "full", "read", "clock", "two"))])
def test_what_is_interrupted_loses_nothing(name: str, trained: TextAutoencoder) -> None:
    part = tried(name, trained, seconds=20)
    assert part.found.faults == []
    assert part.found.tries > 0


def test_what_an_interruption_loses_is_found_and_a_crash_is_too(trained: TextAutoencoder) -> None:
    def losing(part: Part, case: Case, place: Disk, folder: Path) -> tuple[str, int]:
        begin(case.work, folder).end()
        if not part.found.tries:
            return "nothing lost", 1
        if part.found.tries == 1:
            shutil.rmtree(folder / "replaced")
        if part.found.tries == 2:
            (folder / "replaced" / "a").write_text("another")
        if part.found.tries == 3:
            running = begin(case.work, folder)
            os.kill(running.process.pid or 0, signal.SIGABRT)
            running.end()
        return "lost", 1

    part = Part("losing", 600, wanted=4)
    interrupting(losing, "replace")(part, trained)
    assert part.found.outcomes == {"replace, nothing lost": 1}
    gone, other, crashed = part.found.faults
    assert gone == "replace: lost: the folder is gone"
    assert "its files say ['another', '399']" in other
    assert "ended with -6" in crashed


def test_a_text_that_comes_back_otherwise_is_found_and_named(
    trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_texts", lambda part: ["one", "two \0", "three"])
    whole = MemoryFile.text
    monkeypatch.setattr(MemoryFile, "text", lambda *given: whole(*given).replace("\0", ""))
    part = tried("remembered", trained, seconds=0.01)
    assert len(part.found.faults) == 1
    assert r"came back otherwise: 'two \x00'" in part.found.faults[0]


def test_a_damaged_file_that_is_read_wrong_or_breaks_is_kept(
    trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "damaged", lambda data, rng: data)
    whole = MemoryFile.text
    monkeypatch.setattr(MemoryFile, "text", lambda *given: whole(*given) + "!")
    part = tried("memory-files", trained, seconds=0.01)
    assert "AssertionError: document 0 was read as '!'" in part.found.faults[0]
    kept = Path(part.found.faults[0].rpartition("(")[2].rstrip(")"))
    assert kept.stat().st_size > 0
    monkeypatch.setattr(MemoryFile, "text", lambda *given: 1 / 0)
    assert "ZeroDivisionError" in tried("memory-files", trained, seconds=0.01).found.faults[0]


def test_hard_texts_are_text_and_surrogates_are_not() -> None:
    rng = random.Random(0)
    drawn = [texts.hard_text(rng) for _ in range(1000)]
    assert all(text.encode() for text in drawn if text)
    assert len({*"".join(drawn)}) > 2000, "of many kinds"
    assert {ord(character) >> 16 for character in "".join(drawn)} == {*range(17)}, "of every plane"
    for _ in range(50):
        with pytest.raises(UnicodeEncodeError):
            texts.surrogates(rng).encode()


def test_a_part_that_is_kept_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    first = Part("part", 1, wanted=5, path=path)
    first.saw("well", 2)
    first.failed("a fault")
    second = Part("part", 1, wanted=5, path=path)
    assert (second.found.tries, second.found.faults, second.found.outcomes) == (3, ["a fault"], {"well": 2})
    assert second.rng.random() != first.rng.random(), "it draws others"
    assert second.goes_on
    second.saw("well", 2)
    assert not second.goes_on
    path.write_text("{}}")
    with pytest.raises(ValueError, match=r"is damaged .*; remove it"):
        Part("part", 1, path=path)


def test_the_committed_campaign_is_what_the_documents_say() -> None:
    docs = Path(__file__).parents[2] / "docs"
    answer = json.loads((docs / "results" / "campaign.json").read_text(encoding="utf-8"))
    assert [part["part"] for part in answer["parts"]] == [*PARTS]
    table = str(environment("md").globals["m"].table(campaign_table(answer))).strip()
    assert table in (docs / "results.md").read_text(encoding="utf-8"), f"docs/results.md should have\n{table}"


def test_as_a_command_it_counts_what_it_tried_and_goes_on(
    memlm: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    given = ("bench", "campaign", finished_run / "model", "--json", "--parts", "checkpoints", "--minutes")
    kept = ("--out", tmp_path / "campaign")
    answer = memlm(*given, 0.01, *kept).json()
    assert answer["faults"] == 0
    assert answer["tries"] == answer["parts"][0]["tries"] > 0
    assert json.loads((tmp_path / "campaign" / "campaign.json").read_text()) == answer
    assert memlm(*given, 0.01, *kept).json()["tries"] > answer["tries"]
    assert "holds the campaign of another model" in memlm("bench", "campaign", *given[3:], 0.01, *kept).err
    assert "--minutes must be positive, not 0" in memlm(*given, 0).err
    assert "not nan" in memlm(*given, "nan").err
