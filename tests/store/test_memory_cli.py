"""remember, recall and inspect, as they are typed."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from command_line import Memlm, assert_refused
from memlm import MemoryFile, TextAutoencoder
from memlm.data.texts import evaluation_documents
from memlm.store.segments import MAGIC

KEYS = {"fidelity", "exact_chunks", "patch_bytes", "memory_bytes", "raw_bytes", "file_bytes", "chunks"}


def without_a_reader(*arguments: object, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    """What a command does when whoever was to read its output has left."""
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "memlm", *map(str, arguments)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=write, stderr=stderr, timeout=300)
    finally:
        os.close(write)


def damage(path: Path, number: int) -> None:
    """Flip the last bit of what is stored of a chunk."""
    record, data = MemoryFile.open(path)._store._block(number, number + 1).data, bytearray(path.read_bytes())
    data[data.index(record) + len(record) - 1] ^= 1
    path.write_bytes(data)


@pytest.fixture
def text(tmp_path: Path) -> bytes:
    data = evaluation_documents("novel")[0].text[:3000].encode() + "\r\n漢字 ünd\0 ".encode() * 20
    (tmp_path / "a.txt").write_bytes(data)
    return data


def test_what_is_remembered_is_recalled_byte_for_byte(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    done = memlm("remember", tmp_path / "*.txt", "-", "-o", notes, "--json", stdin="from ünd".encode())
    assert done.code == 0, done.err
    answer = json.loads(done.data)
    assert answer.keys() >= KEYS | {"mb_per_second"}
    assert answer["text_bytes"] == len(text) + len("from ünd".encode())
    assert answer["file_bytes"] == notes.stat().st_size
    assert answer["memory_bytes"] + answer["patch_bytes"] + answer["raw_bytes"] < answer["file_bytes"]
    assert answer["fidelity"] > 0.95
    recalled = memlm("recall", notes)
    assert (recalled.code, recalled.data, recalled.err) == (0, text + "from ünd".encode(), "")
    halves = [memlm("recall", notes, "--chunks", chunks).data for chunks in (":4", "4:")]
    assert b"".join(halves) == recalled.data
    assert all(halves)
    alone = memlm("recall", notes, "--chunks", ":2", "--vectors-only").data
    assert alone == b"".join(MemoryFile.open(notes).vectors_only(0, 2))


def test_text_is_added_to_a_file_that_exists(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    assert memlm("remember", tmp_path / "a.txt", "--out", notes, "--bits", 4).code == 0
    refused = memlm("remember", "-", "-o", notes, stdin=b"more")
    assert refused.code == 2
    assert "exists" in refused.err
    assert "--append" in refused.err
    done = memlm("remember", "-", "-o", notes, "--append", "--json", stdin=b"more")
    assert json.loads(done.data)["added_chunks"] == 1
    assert memlm("recall", notes).data == text + b"more"
    assert MemoryFile.open(notes).about.bits == 4
    other = memlm("remember", "-", "-o", notes, "--append", "--bits", 8, stdin=b"more")
    assert other.code == 2
    assert "keeps 4 bits, not 8" in other.err


def test_inspect_says_what_is_where(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    memlm("remember", tmp_path / "a.txt", "-o", notes, "--bits", 4)
    answer = json.loads(memlm("inspect", notes, "--json").data)
    assert answer.keys() >= KEYS
    assert answer["encoder"] == "english"
    assert abs(answer["gzip_bytes"] - len(gzip.compress(text))) < 20
    assert abs(answer["zstd_bytes"] - len(zstandard.compress(text, level=19))) < 20
    sizes = {"file": notes.stat().st_size, "text": len(text)}
    sizes |= {name: answer[f"{name}_bytes"] for name in ("gzip", "zstd")}
    assert answer["bits_per_character"] == {name: 8 * size / len(text.decode()) for name, size in sizes.items()}
    assert sum(answer["fidelity_histogram"].values()) == answer["chunks"]
    assert answer["fidelity_histogram"]["1"] == answer["exact_chunks"]
    assert answer["damaged_chunks"] == []
    kinds = ("exact", "patched", "raw")
    spans = {kind: [span for span in answer["spans"] if span["kind"] == kind] for kind in kinds}
    assert spans["patched"]
    sizes = {kind: sum(span["payload_bytes"] for span in spans[kind]) for kind in kinds}
    assert sizes["exact"] + sizes["patched"] == answer["patch_bytes"], "that all is as expected is said, too"
    assert sizes["raw"] == answer["raw_bytes"]
    for kind in kinds:
        covered = sum(span["stop_chunk"] - span["start_chunk"] for span in spans[kind])
        assert covered == answer[f"{kind}_chunks"]
    shown = memlm("inspect", notes).out
    assert str(answer["patch_bytes"]) in shown
    assert all(f"{name} {bits:.2f}" in shown for name, bits in answer["bits_per_character"].items())


def test_inspect_does_without_the_encoder(memlm: Memlm, finished_run: Path, text: bytes, tmp_path: Path) -> None:
    model, notes = tmp_path / "model", tmp_path / "notes.memory"
    shutil.copytree(finished_run / "model", model)
    memlm("remember", tmp_path / "a.txt", "-o", notes, "--model", model)
    model.rename(tmp_path / "elsewhere")
    done = memlm("inspect", notes, "--json")
    answer = json.loads(done.data)
    assert answer["text_bytes"] == len(text)
    assert "gzip_bytes" not in answer
    assert "sizes are not compared" in done.err
    assert json.loads(memlm("inspect", notes, "--model", tmp_path / "elsewhere", "--json").data)["gzip_bytes"]


def test_inspect_names_what_is_damaged(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    memlm("remember", tmp_path / "a.txt", "-o", notes)
    whole = MemoryFile.open(notes).chunks
    damage(notes, 3)
    inspected = memlm("inspect", notes, "--json")
    answer = json.loads(inspected.data)
    assert answer["damaged_chunks"] == [3]
    assert answer["chunks"] == len(whole)
    assert inspected.code == 2
    assert f"1 of {len(whole)} chunks are damaged: 3; memlm recall --skip-damaged" in inspected.err
    shown = memlm("inspect", notes)
    assert shown.code == 2
    assert "DAMAGED: chunks 3;" in shown.out
    failed = memlm("recall", notes)
    assert failed.code == 2
    assert failed.err.count("\n") == 1
    assert "chunk 3 (of" in failed.err
    assert "--skip-damaged writes the others" in failed.err
    assert memlm("recall", notes, "--chunks", "4:").code == 0
    exported = memlm("export-vectors", notes, "--out", tmp_path / "out.parquet")
    assert_refused(exported, "chunk 3 (of", "memlm recall --skip-damaged writes the text of the others")
    assert "on_damage" not in exported.err
    assert not (tmp_path / "out.parquet").exists()


def test_inspect_lists_lost_chunks_as_lost(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    memlm("remember", tmp_path / "a.txt", "-o", notes)
    memlm("remember", "-", "-o", notes, "--append", stdin=b"more")
    data = bytearray(notes.read_bytes())
    data[data.rindex(MAGIC) + 50] ^= 1  # in the index of what was appended
    notes.write_bytes(data)
    answer = json.loads(memlm("inspect", notes, "--json").out)
    last = answer["chunks"] - 1
    assert (answer["lost_chunks"], answer["damaged_chunks"]) == (1, [last])
    assert answer["spans"][-1] == {"start_chunk": last, "stop_chunk": last + 1, "kind": "lost", "payload_bytes": 0}
    assert sum(answer["fidelity_histogram"].values()) == last
    assert f"chunks {last}:{last + 1} lost\n" in memlm("inspect", notes).out
    assert_refused(memlm("export-vectors", notes, "--out", tmp_path / "out.parquet"), f"chunk {last} (of", "is lost")
    skipped = memlm("recall", notes, "--skip-damaged")
    assert (skipped.data, skipped.err) == (text, f"memlm: {notes}: chunks {last} are lost; the others are written\n")


def test_what_is_whole_is_had_out_of_a_damaged_file(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    memlm("remember", tmp_path / "a.txt", "-o", notes)
    sound = memlm("recall", notes, "--skip-damaged")
    assert (sound.code, sound.data, sound.err) == (0, text, "")
    whole, alone = list(MemoryFile.open(notes).pieces()), list(MemoryFile.open(notes).vectors_only())
    for number in (1, 3, 4):
        damage(notes, number)
    skipped = memlm("recall", notes, "--skip-damaged")
    assert skipped.code == 2
    assert skipped.data == b"".join([whole[0], whole[2], *whole[5:]])
    assert skipped.err == f"memlm: {notes}: chunks 1, 3:5 are damaged; the others are written\n"
    part = memlm("recall", notes, "--skip-damaged", "--vectors-only", "--chunks", "2:6", "--json")
    assert (part.code, json.loads(part.data)["damaged_chunks"]) == (2, [3, 4])
    assert part.err.startswith((alone[2] + alone[5]).decode())
    assert memlm("recall", notes, "--skip-damaged", "--chunks", "5:").code == 0


def test_a_file_that_was_cut_short_gives_back_what_is_whole(memlm: Memlm, text: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    memlm("remember", tmp_path / "a.txt", "-o", notes)
    size = notes.stat().st_size
    memlm("remember", "-", "-o", notes, "--append", stdin=b"more")
    os.truncate(notes, notes.stat().st_size - 5)
    torn = f"its last {notes.stat().st_size - size} bytes are of an append that did not finish"
    recalled = memlm("recall", notes)
    assert (recalled.code, recalled.data) == (2, text)
    assert torn in recalled.err
    inspected = memlm("inspect", notes, "--json")
    assert (inspected.code, json.loads(inspected.out)["torn_bytes"]) == (2, notes.stat().st_size - size)
    assert torn in inspected.err
    assert memlm("remember", "-", "-o", notes, "--append", stdin=b"more").code == 0
    assert (memlm("recall", notes).data, memlm("inspect", notes).code) == (text + b"more", 0)


def test_files_are_read_in_their_encoding(memlm: Memlm, tmp_path: Path) -> None:
    notes, text = tmp_path / "notes.memory", "Größe, naïve façade\r\n" * 3000
    (tmp_path / "a.txt").write_bytes(text.encode("latin-1"))
    refused = memlm("remember", tmp_path / "a.txt", "-o", notes)
    assert (refused.code, notes.exists()) == (2, False)
    assert "a.txt: invalid UTF-8 at byte 2; say which encoding it is in, such as --encoding latin-1" in refused.err
    assert memlm("remember", tmp_path / "a.txt", "-o", notes, "--encoding", "latin-1").code == 0
    assert memlm("recall", notes).data == text.encode()
    assert len(MemoryFile.open(notes)) == 1, "a file is one document, however large"
    more = memlm("remember", "-", "-o", notes, "--append", "--errors", "replace", stdin=b"\xff!")
    assert (more.code, MemoryFile.open(notes)["standard input"]) == (0, "\ufffd!")


@pytest.mark.parametrize("append", [False, True])
def test_a_last_file_that_is_bad_is_refused_before_the_first_is_encoded(
    append: bool, memlm: Memlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("create", "open"):
        monkeypatch.setattr(MemoryFile, work, pytest.fail)
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").write_bytes(b"good " * 100_000 + b"\xff")
    options = ["--append"] if append else []
    for bad, why in (
        (tmp_path / "b.txt", "b.txt: invalid UTF-8 at byte 500000"),
        ("/proc/self/mem", "cannot read /proc/self/mem: Input/output error"),  # whoever asks, root too
        (tmp_path / "c.txt", "there is no file"),
    ):
        assert_refused(memlm("remember", tmp_path / "a.txt", bad, "-o", tmp_path / "x.memory", *options), why)


def test_nothing_is_remembered_of_no_text(memlm: Memlm, tmp_path: Path) -> None:
    notes = tmp_path / "notes.memory"
    (tmp_path / "empty.txt").touch()
    done = memlm("remember", tmp_path / "empty.txt", "-o", notes, "--json")
    assert (done.code, json.loads(done.data)["fidelity"]) == (0, None)
    assert b"there is no text to remember" in memlm("remember", "-", "-o", tmp_path / "other.memory").data
    inspected = memlm("inspect", notes, "--json")
    assert inspected.code == 0
    answer = json.loads(inspected.data)
    assert (answer["fidelity"], answer["bits_per_character"], answer["chunks"]) == (None, None, 0)
    shown = memlm("inspect", notes).out
    assert "no text to remember" in shown
    assert "1.0000" not in shown
    recalled = memlm("recall", notes)
    assert (recalled.code, recalled.data) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remember", "bad.txt", "-o", "x.memory"], "bad.txt: invalid UTF-8 at byte 5"),
        (["remember", "nowhere.txt", "-o", "x.memory"], "there is no file nowhere.txt"),
        (["remember", "good.txt", "-o", "x.memory", "--model", "nobody"], "no model 'nobody'"),
        (["remember", "good.txt", "-o", "x.memory", "--append"], "there is no memory file x.memory"),
        (["remember", "good.txt", "-o", "."], "cannot write a file at .: a folder is there"),
        (["remember", "good.txt", "-o", "folder"], "cannot write a file at folder: a folder is there"),
        (["remember", "good.txt", "-o", "folder", "--append"], "folder is a folder, not a memory file"),
        (["remember", "good.txt", "-o", "good.txt/x.memory"], "good.txt is a file, not a folder"),
        (["recall", "folder"], "folder is a folder, not a memory file"),
        (["recall", "good.txt"], "good.txt is a text file, not a memory file, which memlm remember makes"),
        (["inspect", "empty"], "empty is an empty file, not a memory file, which memlm remember makes"),
        (["inspect", "noise"], "noise is no memory file, or its header is damaged"),
        (["inspect", "folder"], "folder is a folder, not a memory file, which memlm remember makes"),
        (["recall", "nowhere.memory"], "there is no memory file nowhere.memory"),
        (["recall", "notes.memory", "--chunks", "3"], "'3' is no range"),
        (["recall", "notes.memory", "--chunks", "0:99"], "has chunks 0:1, not 0:99"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: list[str],
    message: str,
    memlm: Memlm,
    trained: TextAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_bytes(b"good \xff")
    Path("good.txt").write_text("good")
    Path("folder").mkdir()
    Path("empty").touch()
    Path("noise").write_bytes(b"\x89\0\xff")
    MemoryFile.create("notes.memory", trained, {"good.txt": "good"})
    done = memlm(*arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert not Path("x.memory").exists()


def test_a_closed_pipe_is_no_error(finished_run: Path, tmp_path: Path) -> None:
    notes, text = tmp_path / "notes.memory", tmp_path / "text.txt"
    text.write_text("the memory holds one long text " * 20)
    MemoryFile.create(notes, finished_run / "model", {"long": text.read_text()})
    commands: list[list[object]] = [
        ["--help"],
        ["recipe", "demo"],
        ["recall", notes],
        ["regenerate", finished_run / "model", "--text", text],
    ]
    for command in commands:
        done = without_a_reader(*command)
        assert (done.returncode, done.stderr) == (0, b""), command


def test_errors_are_errors_without_a_reader_too(tmp_path: Path) -> None:
    done = without_a_reader("recall", tmp_path / "nowhere.memory")
    assert done.returncode == 2
    assert b"there is no memory file" in done.stderr
    assert without_a_reader("recall", tmp_path / "nowhere.memory", stderr=subprocess.STDOUT).returncode == 2


def test_a_pipe_that_breaks_elsewhere_is_an_error(memlm: Memlm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError("a worker is gone")

    monkeypatch.setattr(MemoryFile, "open", broken)
    done = memlm("recall", "notes.memory")
    assert (done.code, done.err) == (2, "memlm: a worker is gone\n")
