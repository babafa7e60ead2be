"""Corpora encoded in parts: the same rows whatever is read, however it is cut, whoever works, and whoever is killed."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_line import Memlm, assert_refused
from memlm import TextAutoencoder
from memlm.bulk import destination as destination_module
from memlm.bulk import source as source_module
from memlm.bulk.rows import About
from memlm.bulk.source import open_source
from memlm.bulk.store import open_store

TEXTS = [f"the memory of {number} holds ünd 漢字 → " * (1 + number % 5) for number in range(23)]


def write_texts(folder: Path, kind: str) -> Path:
    """The texts as a corpus; gives what is its source."""
    folder.mkdir()
    lines = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS))
    match kind:
        case "parquet":
            table = pa.table({"of": [{"a": 1, "b": [2]}] * len(TEXTS), "text": TEXTS})
            pq.write_table(table.slice(0, 9), folder / "0.parquet", row_group_size=4)
            pq.write_table(table.slice(9), folder / "1.parquet", row_group_size=3)
        case "lines":
            (folder / "all.jsonl").write_text(lines, encoding="utf-8")
        case "packed":
            (folder / "all.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        case "text":
            for number, text in enumerate(TEXTS):
                (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    (folder / "README.rst").write_text("not a text of the corpus")
    return folder


BAD_LINES = {
    "{": "no JSON",
    '"text"': "is a string, not an object",
    "[1, 2]": "is an array, not an object",
    "null": "is null, not an object",
    '{"words": "a"}': "has no column 'text'",
    '{"text": 3}': ": 'text' is 3, not text",
    '{"text": null}': ": 'text' is null, not text",
    '{"text": ["a"]}': ": 'text' is an array, not text",
    '{"text": "\\ud800"}': "lone surrogate",
}
"""And what is wrong with each."""


def spoilt(path: Path) -> int:
    """Put all bad lines into a file, twice; gives where the first is."""
    lines, bad = path.read_text(encoding="utf-8").splitlines(keepends=True), "".join(f"{line}\n" for line in BAD_LINES)
    path.write_text("".join([*lines[:7], bad, *lines[7:], bad]), encoding="utf-8")
    return len("".join(lines[:7]).encode())


def encoded(source: Path | str, out: Path, encoder: str, *more: object) -> list[object]:
    return ["encode-corpus", source, "--out", out, "--encoder", encoder, "--device", "cpu", *more]


@pytest.mark.parametrize(
    ("kind", "form"), [*((kind, "parquet") for kind in ("parquet", "lines", "packed", "text")), ("lines", "lance")]
)
def test_every_kind_of_corpus_gives_the_memories_of_its_texts(
    kind: str, form: str, memlm: Memlm, encoder: str, trained: TextAutoencoder, tmp_path: Path
) -> None:
    source, out = write_texts(tmp_path / "source", kind), tmp_path / "out"
    options = ("--format", form, "--text", "--part-mb", 1e-4, "--json")
    answer = memlm(*encoded(source, out, encoder, *options)).json()
    assert (answer["documents"], answer["text_bytes"]) == (len(TEXTS), sum(len(text.encode()) for text in TEXTS))
    assert answer["parts"] > 1 or kind == "packed"
    store = open_store(out)
    memory, wanted = store.memory(range(len(store))), trained.encode(TEXTS)
    assert answer["chunks"] == len(store) == len(wanted.vectors)
    np.testing.assert_allclose(memory.vectors, wanted.vectors, atol=1e-5)
    assert memory.num_tokens.tolist() == wanted.num_tokens.tolist()
    rows = pa.concat_tables(store.batches()).to_pylist()
    by_document: dict[str, str] = {}
    for row in rows:
        by_document[row["document"]] = by_document.get(row["document"], "") + row["text"]
    assert list(by_document.values()) == TEXTS
    assert [row["chunk"] for row in rows] == [chunk for count in wanted.num_chunks for chunk in range(count)]


def test_a_data_set_is_read_by_its_split(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.table({"text": [f"the {split} holds"]}), folder / f"{split}-00000-of-00001.parquet")
    for split in ("train", "test"):
        out = tmp_path / split
        assert memlm(*encoded(folder, out, encoder, "--split", split, "--text", "--json")).json()["documents"] == 1
        rows = pa.concat_tables(open_store(out).batches()).to_pylist()
        assert "".join(row["text"] for row in rows) == f"the {split} holds"
    assert_refused(memlm(*encoded(folder, tmp_path / "none", encoder, "--split", "dev")), "no split 'dev'", "'train'")
    nowhere = memlm(*encoded("nobody/nothing", tmp_path / "none", encoder))
    assert_refused(nowhere, "nobody/nothing", "give a folder, or a glob")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12)), part_bytes=st.integers(1, 60))
def test_parts_hold_every_line_once(lines: list[str], part_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    kept = [line for line in lines if line.strip()]
    path.write_bytes(b"".join(json.dumps({"text": line}).encode() + b"\n" for line in kept))
    source = open_source(str(path), text_column="text", subset=None, split=None, part_bytes=part_bytes)
    assert [document.text for part in source.parts() for document in source.documents(part)] == kept
    text = tmp_path / "all.txt"
    text.write_bytes("\n".join(kept).encode())
    source = open_source(str(text), text_column="text", subset=None, split=None, part_bytes=part_bytes)
    pieces = [document.text for part in source.parts() for document in source.documents(part)]
    assert "".join("".join(pieces).split()) == "".join("\n".join(kept).split())


def files(folder: Path) -> dict[str, bytes]:
    """Every part, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def test_a_killed_run_goes_on_and_does_nothing_twice(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    source, options = write_texts(tmp_path / "source", "lines"), ("--part-mb", 1e-4, "--json")
    assert memlm(*encoded(source, tmp_path / "alone", encoder, *options)).code == 0
    out = tmp_path / "out"
    command = [sys.executable, "-m", "memlm", *map(str, encoded(source, out, encoder, *options))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(out.glob("part-*")):
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (out / f".part-000009.parquet.{'0' * 8}.memlm-unfinished").mkdir()
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    answer = memlm(*encoded(source, out, encoder, *options)).json()
    assert 0 < answer["parts_before"] == len(before) < answer["parts"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert files(out) == files(tmp_path / "alone")
    assert {path.name for path in out.iterdir()} == {*files(out), "_memlm"}
    again = memlm(*encoded(source, out, encoder, *options)).json()
    assert again["parts_before"] == again["parts"]


def test_two_workers_of_ray_give_the_rows_of_one(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    """Besides, Ray listens to nobody but this machine, and leaves no process behind."""
    source, options = write_texts(tmp_path / "source", "lines"), ("--part-mb", 2e-4, "--bad-lines", "skip", "--json")
    first = spoilt(source / "all.jsonl")
    one = memlm(*encoded(source, tmp_path / "one", encoder, *options)).json()
    arguments = encoded(source, tmp_path / "two", encoder, *options, "--workers", 2)
    command = [sys.executable, "-m", "memlm", *map(str, arguments)]
    seen, listening = set[psutil.Process](), set[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        own = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                seen |= {own, *own.children(recursive=True)}
            for each in seen:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    there = each.net_connections()
                    listening |= {at.laddr.ip.removeprefix("::ffff:") for at in there if at.status == "LISTEN"}
            time.sleep(0.3)
        out, err = process.communicate()
    assert process.returncode == 0, err
    two = json.loads(out)
    assert two["workers"] == 2
    assert [each["bad_lines"] for each in (one, two)] == [2 * len(BAD_LINES)] * 2
    assert one["first_bad_line"] == two["first_bad_line"]
    assert one["first_bad_line"].startswith(f"all.jsonl, the line at byte {first}, is no JSON")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(seen) > 4
    assert listening <= {"127.0.0.1", "::1"}
    assert "127.0.0.1" in listening
    assert not psutil.wait_procs(seen, timeout=20)[1]


def test_without_bad_lines_the_rows_are_those_of_the_others(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    source, options = write_texts(tmp_path / "source", "lines"), ("--part-mb", 1e-4, "--json")
    plain = memlm(*encoded(source, tmp_path / "plain", encoder, *options)).json()
    first = spoilt(source / "all.jsonl")
    out = tmp_path / "out"
    assert_refused(memlm(*encoded(source, out, encoder, *options)), f"the line at byte {first}", "--bad-lines skip")
    options = (*options, "--bad-lines", "skip")  # goes on from there
    answer = memlm(*encoded(source, out, encoder, *options)).json()
    told = {"bad_lines": 2 * len(BAD_LINES), "first_bad_line": answer["first_bad_line"]}
    same = ("documents", "chunks", "tokens", "text_bytes")
    assert [answer[name] for name in same] == [plain[name] for name in same]
    assert answer | told == answer
    assert f"the line at byte {first}, is no JSON" in answer["first_bad_line"]
    stores = [open_store(folder) for folder in (out, tmp_path / "plain")]
    one, other = (store.memory(range(len(store))).vectors for store in stores)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)  # parts are cut elsewhere: sums have another order
    before = files(out)
    for part in (*out.glob("part-*[13579].parquet"), out / "part-000000.parquet"):
        part.unlink()  # as if it had been killed before these
    again = memlm(*encoded(source, out, encoder, *options)).json()
    assert again["parts_before"] < again["parts"]
    assert {name: again[name] for name in told} == told
    assert files(out) == before
    shown = memlm(*encoded(source, out, encoder, *options[:2], *options[3:])).out
    assert f"{2 * len(BAD_LINES)} bad lines skipped; the first: all.jsonl, the line at byte {first}" in shown


def test_a_corpus_of_bad_lines_alone_is_refused(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    source = write_texts(tmp_path / "source", "lines")
    done = memlm(*encoded(source, tmp_path / "out", encoder, "--text-column", "words", "--bad-lines", "skip"))
    assert done.code == 2
    assert f"any document; {len(TEXTS)} bad lines, the first: all.jsonl, the line at byte 0, has no col" in done.err


def test_documents_without_text_are_passed_over(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    """Empty texts and blank lines are no bad lines; Parquet's nulls are the same."""
    (tmp_path / "some.jsonl").write_text('\ufeff{"text": ""}\n\n{"text": "a"}\n', encoding="utf-8")
    pq.write_table(pa.table({"text": ["", None, "a"]}), tmp_path / "some.parquet")
    for name in ("some.jsonl", "some.parquet"):
        answer = memlm(*encoded(tmp_path / name, tmp_path / f"{name}.out", encoder, "--json")).json()
        assert (answer["documents"], answer["bad_lines"]) == (1, 0)
    (tmp_path / "none.jsonl").write_text('\n{"text": " "}\n')
    none = memlm(*encoded(tmp_path / "none.jsonl", tmp_path / "none", encoder))
    assert (none.code, none.out) == (2, "")
    assert "memlm: there is no text to encode in any document\n" in none.err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_json_lines_in_wide_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    path = tmp_path / "wide.jsonl"
    path.write_bytes((mark + '{"text": "a"}\n' * 9).encode(encoding))
    how: dict[str, Any] = {"text_column": "text", "subset": None, "split": None, "part_bytes": 50}
    with pytest.raises(ValueError, match=r"wide.jsonl is in UTF-16 or UTF-32; .* convert the file"):
        open_source(str(path), **how, bad_lines="skip").parts()
    path.write_bytes(b'{"text": "b"}\n' + ('{"text": "a"}\n' * 9).encode("utf-16-be"))  # no line of it is guessed at
    source, bad = open_source(str(path), **how, bad_lines="skip"), list[str]()
    texts = [document.text for part in source.parts() for document in source.documents(part, bad.append)]
    assert (texts, len(bad)) == (["b"], 9)


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    folder, how = tmp_path / "d", {"text_column": "text", "subset": None, "split": None, "part_bytes": 50}
    (folder / "c.txt").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "b.md").symlink_to("nothing")  # no text, and passed over by the glob
    for make, what in (
        (lambda path: path.symlink_to("nothing"), "a link that leads to no file"),
        (lambda path: path.symlink_to(path), "a link that leads to no file"),
        (os.mkfifo, "neither file nor folder"),
    ):
        bad = folder / "b.txt"
        make(bad)
        for source in (folder / "*.txt", bad):
            with pytest.raises(ValueError, match=f"cannot read {bad}: it is {what}"):
                open_source(str(source), **how)  # type: ignore[arg-type]
        bad.unlink()
    assert [name for name, _ in open_source(str(folder / "*.txt"), **how).files] == [str(folder / "a.txt")]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"cannot read {folder / 'b.md'}: it is a link"):
        open_source(str(folder), **how)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(
    memlm: Memlm, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> Path:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(destination_module, "make_folder", refuse)
    source, out = write_texts(tmp_path / "source", "lines"), tmp_path / "out"
    assert_refused(memlm(*encoded(source, out, encoder)), f"could not write {out}: ", "choose another place")


def test_signs_are_stored_as_bits(memlm: Memlm, signs: str, tmp_path: Path) -> None:
    import memlm as library

    source = write_texts(tmp_path / "source", "lines")
    assert memlm(*encoded(source, tmp_path / "out", signs, "--json")).json()["row_bytes"] == 4
    store, wanted = open_store(tmp_path / "out"), library.load(signs, device="cpu").encode(TEXTS)
    assert store.memory(range(len(store))).vectors.equal(wanted.vectors)


def test_what_cannot_be_encoded_is_refused_before_any_work(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = write_texts(tmp_path / "source", "parquet")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.parquet").write_bytes((source / "0.parquet").read_bytes())
    (bad / "b.parquet").write_bytes((source / "0.parquet").read_bytes()[:-9])
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.txt").touch()
    for given_source, options, words in (
        (source, ["--text-column", "words"], ["0.parquet has no column 'words'", "'text'"]),
        (source, ["--text-column", "of"], ["holds struct", "not text"]),
        (bad, [], ["b.parquet"]),
        (empty, [], ["no text to encode"]),
        (tmp_path / "nothing" / "*.txt", [], ["matches no file"]),
        (source, ["--dtype", "bit"], ["more than signs", "num_bits 1"]),
        (source, ["--workers", "0"], ["must be positive"]),
    ):
        assert_refused(memlm(*encoded(given_source, out, encoder, *options)), *words)
        assert not list(out.glob("part-*"))
    assert_refused(memlm(*encoded(source, out, "nosuchmodel")), "no model 'nosuchmodel'")


def test_another_run_is_refused_and_lost_nothing(memlm: Memlm, encoder: str, signs: str, tmp_path: Path) -> None:
    source, out = write_texts(tmp_path / "source", "lines"), tmp_path / "out"
    assert memlm(*encoded(source, out, encoder)).code == 0
    before = files(out)
    for arguments, word in (
        (encoded(source, out, signs), "encoder"),
        (encoded(source, out, encoder, "--dtype", "float16"), "dtype"),
        (encoded(source, out, encoder, "--text"), "text"),
        (encoded(source, out, encoder, "--precision", "bf16"), "precision"),
        (encoded(source, out, encoder, "--part-mb", 1e-4), "part bytes"),
    ):
        assert_refused(memlm(*arguments), f"{out} holds another run: {word} was")
    (source / "more.jsonl").write_text('{"text": "more"}\n')
    assert_refused(memlm(*encoded(source, out, encoder)), "source was")
    assert files(out) == before
    assert_refused(memlm(*encoded(source, source, encoder)), f"{source} holds something else")
    assert memlm(*encoded(source, tmp_path / "half", encoder, "--precision", "bf16")).code == 0
    assert_refused(memlm(*encoded(source, tmp_path / "half", encoder)), "precision was 'bf16' there")


def test_a_bad_line_is_named_and_what_was_finished_is_kept(memlm: Memlm, encoder: str, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in TEXTS]
    for bad, why in BAD_LINES.items():
        source = tmp_path / f"{abs(hash(bad))}.d"
        source.mkdir()
        (source / "all.jsonl").write_text("\n".join([*lines, bad, *lines]) + "\n")
        out = source / "out"
        assert_refused(
            memlm(*encoded(source / "all.jsonl", out, encoder, "--part-mb", 5e-4)),
            why,
            "the line at byte",
            "--bad-lines skip goes on",
        )
        assert files(out)


@pytest.mark.parametrize("name", ["all.jsonl.gz", "all.txt.gz", "all.jsonl"])
def test_a_document_has_a_largest_size_however_small_its_file(
    name: str, memlm: Memlm, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_MOST_BYTES", 2**20)
    lines = b"a line\n" * 200_000 if ".txt" in name else json.dumps({"text": "a" * 2**20}).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    answer = memlm(*encoded(tmp_path / name, tmp_path / "out", encoder))
    assert_refused(answer, f"{name} holds a document of more than 1048576 bytes", "split it")


@pytest.mark.parametrize(("module", "options"), [("ray", ["--workers", "2"]), ("lance", ["--format", "lance"])])
def test_a_missing_extra_is_named(
    module: str, options: list[str], memlm: Memlm, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (module, f"{module}.data"):
        monkeypatch.setitem(sys.modules, name, None)
    source = write_texts(tmp_path / "source", "lines")
    assert_refused(memlm(*encoded(source, tmp_path / "out", encoder, *options)), f"pip install 'memlm[{module}]'")
    assert not (tmp_path / "out").exists()


def test_rows_of_a_newer_version_are_refused() -> None:
    schema = pa.schema([], metadata={b"memlm": b'{"format": "memlm vectors", "version": 2}'})
    with pytest.raises(ValueError, match="version 2; this memlm reads 1"):
        About.of(schema, "it")
    with pytest.raises(ValueError, match="holds no memories"):
        About.of(pa.schema([]), "it")
