"""`memlm bench size`, run small: all compress the same chunks, what is counted is so, and everything comes back."""

import gzip
import math
import random
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import brotli
import pytest
import zstandard

from command_line import Memlm, assert_refused
from memlm import MemoryFile
from memlm.data.everyday import everyday_documents
from memlm.models.autoencoder import Autoencoder
from memlm.models.exact import ExactDecoder
from memlm.store.range_coder import coded
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks import size as bench
from memlm_evidence.benchmarks.size import Size, chunk_texts
from memlm_evidence.benchmarks.size_compressors import total_bytes, trained_dictionary, whole_compressors, zstd
from memlm_evidence.benchmarks.size_texts import Sample, code, documentation, novel

TEXT = "the memory holds one löng text ✓ and the vector reads short chunk whole text. 🙂\n" * 30
BAD = {"nothing": b"", "one byte": b"a", "repeated": b"a" * 600, "random": random.Random(1).randbytes(600)}


@pytest.fixture(autouse=True)
def few_bad_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BAD_INPUTS", BAD)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_rows_say_what_each_takes_for_the_same_chunks(
    memlm: Memlm, finished_run: Path, trained: TextAutoencoder, text: Path, tmp_path: Path
) -> None:
    asked = ["bench", "size", finished_run / "model", "--text", text, "--json"]
    answer = memlm(*asked).json()
    (row,) = answer["rows"]
    assert (row["text"], row["num_bytes"], row["exact"]) == (str(text), text.stat().st_size, True)
    notes = MemoryFile.create(tmp_path / "n.memory", trained, [("text 0", TEXT)], bits=row["bits"])
    assert row["memory_ratio"] == notes.file_bytes / row["num_bytes"]
    assert row["memory_bytes_per_chunk"] == notes.file_bytes / notes.num_chunks
    chunks = chunk_texts(notes, TEXT.encode())
    assert row["gzip_ratio"] == sum(len(gzip.compress(chunk, 9)) for chunk in chunks) / row["num_bytes"]
    assert row["brotli_ratio"] == sum(len(brotli.compress(chunk, quality=11)) for chunk in chunks) / row["num_bytes"]
    assert row["gzip_ratio"] - row["deflate_ratio"] == pytest.approx(18 * len(chunks) / row["num_bytes"])
    assert row["zstd_dictionary_ratio"] < row["zstd_ratio"]
    assert row["whole"]["gzip_ratio"] == len(gzip.compress(TEXT.encode(), 9)) / row["num_bytes"]
    assert [one["bits"] for one in row["by_bits"]] == [8, 4]
    assert row["memory_ratio"] == min(one["memory_ratio"] for one in row["by_bits"])
    for one in row["by_bits"]:
        parts = sum(one[f"{name}_bytes_per_chunk"] for name in ("vector", "patch", "raw", "other"))
        assert parts == pytest.approx(one["memory_bytes_per_chunk"])
        assert one["exact"]
    assert answer["summary"]["worst"] == str(text)
    assert answer["summary"]["exact"]
    assert answer["model_bytes"] == sum(parameter.nbytes for parameter in trained.model.parameters())
    again = memlm(*asked).json()
    assert (again["rows"], again["bad_input"]) == (answer["rows"], answer["bad_input"])


def test_what_is_hardly_text_comes_back_and_its_size_is_told(
    finished_run: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Size(model=str(finished_run / "model"), text=(str(text),)).run()
    rows = {row["text"]: row for row in answer["bad_input"]}
    assert {what: row["input_bytes"] for what, row in rows.items()} == {what: len(data) for what, data in BAD.items()}
    assert all(row["exact"] for row in rows.values())
    assert rows["nothing"]["over_input"] is None
    assert rows["random"]["over_input"] == rows["random"]["file_bytes"] / 600 - 1 > 0
    assert rows["random"]["utf8_bytes"] > 600
    out = capsys.readouterr().out
    assert f"Worst: {text}, " in out
    assert "dictionary" in out


def test_chunks_are_those_of_the_file_and_end_between_characters(trained: TextAutoencoder, tmp_path: Path) -> None:
    notes = MemoryFile.create(tmp_path / "n.memory", trained, [("one", TEXT)], bits=4)
    chunks = chunk_texts(notes, TEXT.encode())
    assert [chunk.decode() for chunk in chunks] == [notes.text(number, number + 1) for number in range(len(chunks))]
    assert "".join(chunk.decode() for chunk in chunks) == TEXT


def test_without_memories_tokens_cost_what_their_frequencies_say(trained: TextAutoencoder, tmp_path: Path) -> None:
    notes = MemoryFile.create(tmp_path / "n.memory", trained, [("one", TEXT)], bits=32, target=0)
    about, chunks = notes.summary(), chunk_texts(notes, TEXT.encode())
    nats = -trained.unconditional.numpy()[trained.tokenizer.encode(TEXT)].sum()
    codes = bench.no_memory(notes, chunks) - (about["file_bytes"] - about["memory_bytes"] - about["patch_bytes"])
    assert about["raw_bytes"] == 0
    assert 5 * len(chunks) <= codes - nats / math.log(256) <= 6 * len(chunks) + 1
    # The same coder takes as much: of a decoder that expects nothing else.
    decoder = ExactDecoder(trained.model)
    scores = (trained.unconditional / math.log(2) * 16).round()[None]
    frequencies = decoder.frequencies(scores)[0].long()
    ends = frequencies.cumsum(0)
    tokens = trained.tokenizer.encode(chunks[0].decode())
    intervals = ((ends - frequencies)[tokens].numpy(), frequencies[tokens].numpy())
    (code,) = coded([b""], [len(tokens)], *intervals)
    assert len(code) - 5 == pytest.approx(-trained.unconditional.numpy()[tokens].sum() / math.log(256), abs=1.5)


def test_a_model_is_measured_at_the_bits_that_it_is_trained_for(trained: TextAutoencoder) -> None:
    assert bench.bits_of(trained) == (8, 4)
    for bits, measured in ((2, (2,)), (5, (8, 4))):
        shape = replace(trained.config.shape, num_bits=bits)
        model = Autoencoder(replace(trained.config, shape=shape))
        assert bench.bits_of(TextAutoencoder(model, trained.tokenizer, trained.unconditional, {})) == measured


def test_everything_compressed_is_decompressed() -> None:
    compressors = whole_compressors()
    samples = [line.encode() for line in code().other.splitlines() if len(line) > 40]
    seen, unseen = samples[:1500], samples[1500:1600]
    dictionary = trained_dictionary(seen)
    assert dictionary is not None
    reading = {
        "gzip": gzip.decompress,
        "deflate": lambda data: zlib.decompress(data, -zlib.MAX_WBITS),
        "brotli": brotli.decompress,
        "zstd": _unzstd(None),
    }
    assert reading.keys() == compressors.keys()
    for data in (*unseen, b"", b"a", bytes(range(256)) * 9):
        assert all(reading[name](compress(data)) == data for name, compress in compressors.items() if data)
        assert _unzstd(dictionary)(zstd(dictionary)(data)) == data
    assert total_bytes(zstd(dictionary), unseen) < 0.8 * total_bytes(zstd(None), unseen)


def _unzstd(dictionary: zstandard.ZstdCompressionDict | None):
    reader = zstandard.ZstdDecompressor(dict_data=dictionary, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    return lambda data: reader.decompress(data, max_output_size=1 << 16)


def test_no_dictionary_is_made_of_too_little_or_used_where_it_does_not_help() -> None:
    rng = random.Random(0)
    assert [trained_dictionary(samples) for samples in ([], [b"a"], [b"ab", b"c"])] == [None] * 3
    noise = [rng.randbytes(200) for _ in range(400)]
    dictionary = trained_dictionary(noise[:300])
    assert total_bytes(zstd(dictionary), noise[300:]) <= total_bytes(zstd(None), noise[300:]) + 100


def test_a_dictionary_has_not_seen_what_it_compresses() -> None:
    rng = random.Random(0)
    halves = [[rng.randbytes(60) for _ in range(40)] for _ in range(2)]
    first, second = (b"".join(rng.choice(half) for _ in range(600)) for half in halves)
    chunks = [part[start : start + 240] for part in (first, second) for start in range(0, len(part), 240)]
    alone, told = bench.with_dictionary(chunks, Sample("halves that have nothing in common", ""))
    # What one half repeats is of no use for the other: little but its own repetitions within a chunk are saved.
    assert alone >= 0.95 * total_bytes(zstd(None), chunks)
    assert told["text_bytes"] == len(first + second)
    twice, _ = bench.with_dictionary(chunks[:150] + chunks[:150], Sample("the same half twice", ""))
    assert twice < 0.5 * alone


def test_what_is_learned_from_is_other_text_of_the_kind() -> None:
    for sample in (code(), documentation()):
        assert len(sample.text) > 20_000
        assert len(sample.other) > 100_000
        lines = {line for line in sample.text.splitlines() if len(line) > 60}
        assert len(lines & set(sample.other.splitlines())) < 0.02 * len(lines)
    assert not novel().other
    letters = [document.text for document in everyday_documents(["one", "two"], 5000, seed=1, kind="letter")]
    assert all("Dear " in letter or "Subject: " in letter for letter in letters)


def test_what_cannot_be_measured_is_refused(
    memlm: Memlm, finished_run: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["bench", "size", finished_run / "model", "--text"]
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\x00")
    assert_refused(memlm(*asked, tmp_path / "empty.txt"), "empty.txt is empty")
    assert_refused(memlm(*asked, tmp_path / "bytes.txt"), "invalid UTF-8", "--encoding latin-1")
    assert_refused(memlm(*asked, tmp_path / "none.txt"), "no file")
    monkeypatch.setitem(sys.modules, "brotli", None)
    assert_refused(memlm(*asked, text), "pip install 'memlm[bench]'")


@pytest.mark.parametrize("data", [b"a", b"b" * 300])
def test_a_text_of_one_byte_or_of_one_repeated_is_measured(data: bytes, finished_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "little.txt"
    path.write_bytes(data)
    (row,) = Size(model=str(finished_run / "model"), text=(str(path),), json=True).run()["rows"]
    assert row["exact"]
    assert row["dictionary"]["bytes"] == 0 or len(data) > 1
    assert row["memory_ratio"] > 1
