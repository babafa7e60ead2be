import errno
import io
import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from memlm.config import BpeTokenizer, DataConfig, FileCorpus, HubCorpus, NamedCorpus, PretrainedTokenizer
from memlm.data import token_store
from memlm.data.corpus import read_documents
from memlm.data.documents import Document, split_of
from memlm.data.token_store import PreparedData, SplitWriter, prepare, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.runtime.files import only_one_in


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(f"Document {number} talks about the number {number}, ünd so.\n" * 40)
    return DataConfig(
        corpus=FileCorpus(paths=(str(folder / "*.txt"),)),
        tokenizer=BpeTokenizer(vocab_size=300),
        validation_fraction=0.2,
        test_fraction=0.2,
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def refuse_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "_build", lambda *_, **__: pytest.fail("prepared again"))


def assert_same(one: PreparedData, other: PreparedData) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.splits.keys() == other.splits.keys()
    for name in one.splits:
        np.testing.assert_array_equal(one.splits[name].tokens, other.splits[name].tokens)


def test_every_document_is_in_its_split_and_can_be_read_back(config: DataConfig, cache: Path) -> None:
    data = prepare(config, cache=cache, quiet=True)
    for name, split in data.splits.items():
        documents = [document for document in read_documents(config.corpus) if split_of(document, config) == name]
        starts = split.document_starts
        texts = [data.tokenizer.decode(split.tokens[a:b]) for a, b in itertools.pairwise(starts)]
        assert texts == [document.text for document in documents]
        assert list(split.document_names) == [document.name for document in documents]
        assert split.document_bytes.tolist() == [len(text.encode()) for text in texts]
        assert (split.tokens.dtype, starts.dtype, split.document_bytes.dtype) == (np.uint16, np.int64, np.int64)
        assert isinstance(split.tokens, np.memmap)
    assert sorted(data.splits) == ["test", "train", "validation"]


def test_in_memory_is_the_same_as_on_disk(config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare(config, cache=cache, quiet=True)
    documents = [document for document in read_documents(config.corpus) if split_of(document, config) == "train"]
    monkeypatch.setattr(token_store, "_BATCH_BYTES", 5000)
    split = tokenize_documents(data.tokenizer, documents)
    for field in ("tokens", "document_starts", "document_bytes"):
        np.testing.assert_array_equal(getattr(split, field), getattr(data.splits["train"], field))
        assert getattr(split, field).dtype == getattr(data.splits["train"], field).dtype
    assert list(split.document_names) == list(data.splits["train"].document_names)


def test_no_documents_have_no_tokens_and_a_surrogate_is_refused() -> None:
    tokenizer = Tokenizer.train([], 256)
    assert tokenize_documents(tokenizer, []).document_starts.tolist() == [0]
    with pytest.raises(ValueError, match="at index 1"):
        tokenize_documents(tokenizer, [Document("a", "a\ud800")])


def test_the_second_call_only_opens(config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(config, cache=cache, quiet=True)
    refuse_to_build(monkeypatch)
    assert_same(first, prepare(config, cache=cache, quiet=True))


def test_a_change_of_file_or_configuration_prepares_again(config: DataConfig, cache: Path, tmp_path: Path) -> None:
    first = prepare(config, cache=cache, quiet=True)
    other = prepare(replace(config, tokenizer=BpeTokenizer(vocab_size=301)), cache=cache, quiet=True)
    assert other.fingerprint != first.fingerprint
    path = tmp_path / "corpus" / "00.txt"
    path.write_text("now this\n" * 200)
    changed = prepare(config, cache=cache, quiet=True)
    assert changed.fingerprint != first.fingerprint
    assert len(list(cache.iterdir())) == 3


def test_the_fingerprint_is_of_the_content(config: DataConfig, cache: Path, tmp_path: Path) -> None:
    first = prepare(config, cache=cache, quiet=True)
    (tmp_path / "corpus").rename(tmp_path / "moved")
    moved = replace(config, corpus=FileCorpus(paths=(str(tmp_path / "moved" / "*.txt"),)))
    assert_same(first, prepare(moved, cache=tmp_path / "elsewhere", quiet=True))


def test_by_default_the_cache_is_in_memlm_home(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMLM_HOME", str(cache))
    prepare(config, quiet=True)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), OSError(errno.EIO, "i/o")])
def test_a_failure_midway_leaves_nothing(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    add, calls = SplitWriter.add, iter(range(100))

    def fail(self: SplitWriter, *args: object) -> None:
        if next(calls) == 20:
            raise error
        add(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SplitWriter, "add", fail)
        with pytest.raises(type(error)):
            prepare(config, cache=cache, quiet=True)
    assert list(cache.iterdir()) == []
    prepare(config, cache=cache, quiet=True)


def test_a_kill_leaves_nothing_that_looks_finished_and_is_cleared_a_day_later(config: DataConfig, cache: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from memlm.config import DataConfig
from memlm.data import token_store
token_store._require_splits = lambda *_: os._exit(9)
token_store.prepare(DataConfig.from_json(sys.argv[1]), cache=Path(sys.argv[2]), quiet=True)
"""
    killed = subprocess.run([sys.executable, "-c", program, config.to_json(), str(cache)], check=False)
    assert killed.returncode == 9
    (partial,) = cache.iterdir()
    assert any(partial.iterdir())
    data = prepare(config, cache=cache, quiet=True)
    assert len(data.splits) == 3
    assert partial.exists()  # it might belong to a preparation that is still at work
    os.utime(partial, (time.time() - 100_000,) * 2)
    with only_one_in(partial):  # as if it did, by a clock that jumped
        prepare(replace(config, test_fraction=0.3), cache=cache, quiet=True)
        assert partial.exists()
    prepare(replace(config, test_fraction=0.25), cache=cache, quiet=True)
    assert not partial.exists()


def test_a_full_disk_is_reported_with_the_folder(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SplitWriter, "add", fail)
    with pytest.raises(OSError, match=f"MEMLM_HOME.*{cache}"):
        prepare(config, cache=cache, quiet=True)
    assert list(cache.iterdir()) == []


def test_preparing_twice_at_once_is_harmless(config: DataConfig, cache: Path) -> None:
    results: list[PreparedData] = []
    threads = [
        threading.Thread(target=lambda: results.append(prepare(config, cache=cache, quiet=True))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_same(results[0], result)
    assert len(list(cache.iterdir())) == 1


def test_standard_input_is_kept_by_its_content(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"Line {number} of what was piped in.\n" for number in range(25_000))
    piped = replace(config, corpus=FileCorpus(paths=("-",)))

    def prepare_from(text: str) -> PreparedData:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        return prepare(piped, cache=cache, quiet=True)

    first = prepare_from(text)
    assert sum(split.document_bytes.sum() for split in first.splits.values()) == len(text)
    other = prepare_from(text + "More.\n")
    assert other.fingerprint != first.fingerprint
    refuse_to_build(monkeypatch)
    assert_same(first, prepare_from(text))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_named_pipe_is_read_once(config: DataConfig, cache: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(f"Line {number} of what was piped in.\n" for number in range(25_000))
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    data = prepare(replace(config, corpus=FileCorpus(paths=(str(pipe),))), cache=cache, quiet=True)
    writer.join()
    assert sum(split.document_bytes.sum() for split in data.splits.values()) == len(text)


def test_a_local_dataset_is_prepared(
    config: DataConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "dataset"
    folder.mkdir()
    rows = [f'{{"text": "row number {number} of the data set"}}\n' for number in range(100)]
    (folder / "train.jsonl").write_text("".join(rows))
    hub = replace(config, corpus=HubCorpus(name=str(folder)), tokenizer=BpeTokenizer(vocab_size=270))
    first = prepare(hub, cache=cache, quiet=True)
    assert sum(len(split.document_names) for split in first.splits.values()) == 100
    (folder / "train.jsonl").write_text("".join(reversed(rows)))
    assert prepare(hub, cache=cache, quiet=True).fingerprint != first.fingerprint


def test_the_tokenizer_learns_from_the_training_split_alone(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    train = Tokenizer.train

    def spy(texts: object, vocab_size: int) -> Tokenizer:
        seen.extend(texts)  # type: ignore[call-overload]
        return train(seen, vocab_size)

    monkeypatch.setattr(Tokenizer, "train", spy)
    prepare(config, cache=cache, quiet=True)
    documents = [document for document in read_documents(config.corpus) if split_of(document, config) == "train"]
    assert seen == [document.text for document in documents]
    seen.clear()
    few = replace(config, tokenizer=BpeTokenizer(vocab_size=280, train_bytes=5000))
    prepare(few, cache=cache, quiet=True)
    assert seen == [document.text for document in documents][: len(seen)]
    assert 5000 <= sum(len(text.encode()) for text in seen) < 10_000


@pytest.mark.parametrize("name", ["validation", "test"])
def test_an_empty_split_is_refused_with_the_way_out(config: DataConfig, cache: Path, name: str) -> None:
    without = replace(config, **{f"{name}_fraction": 0.0})
    message = (
        f"none of the 60 documents fell into the {name} split: .*{name}_fraction from 0.0: --set data.{name}_fract"
    )
    with pytest.raises(ValueError, match=message) as refused:
        prepare(without, cache=cache, quiet=True)
    assert list(cache.iterdir()) == []
    named = float(str(refused.value).rpartition("=")[2])
    assert len(prepare(replace(without, **{f"{name}_fraction": named}), cache=cache, quiet=True).splits[name].tokens)
    with pytest.raises(ValueError, match="fell into"):  # a hundredth less is too little
        prepare(replace(without, **{f"{name}_fraction": named - 0.01}), cache=cache, quiet=True)


@pytest.mark.parametrize(("texts", "said"), [(["one"], "has 1 document;"), (["one", "two"], "has 2 documents;")])
def test_fewer_documents_than_splits_are_refused_before_anything_is_trained(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], said: str
) -> None:
    monkeypatch.setattr(Tokenizer, "train", pytest.fail)
    for text in texts:
        (tmp_path / f"{text}.txt").write_text(text)
    with pytest.raises(ValueError, match=f"{said} at least 3 are needed"):
        prepare(DataConfig(corpus=FileCorpus(paths=(f"{tmp_path}/*.txt",))), cache=cache, quiet=True)


def test_a_vocabulary_that_cannot_be_reached_is_refused(config: DataConfig, cache: Path) -> None:
    with pytest.raises(ValueError, match="not vocab_size 9000"):
        prepare(replace(config, tokenizer=BpeTokenizer(vocab_size=9000)), cache=cache, quiet=True)


def test_progress_is_in_bytes_on_standard_error(
    config: DataConfig, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(config, cache=cache)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Tokenizing: " in err
    assert "kB" in err


def test_nothing_here_imports_torch() -> None:
    program = (
        "import sys, memlm.data.token_store, memlm.data.chunks, memlm.data.texts; "
        "sys.exit(not {'torch', 'transformers', 'datasets'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_corpus_that_does_not_exist_is_refused(config: DataConfig, cache: Path) -> None:
    with pytest.raises(ValueError, match="no corpus named 'bible'"):
        prepare(replace(config, corpus=NamedCorpus(name="bible")), cache=cache, quiet=True)
    with pytest.raises(ValueError, match=r"there is no file gone\.txt"):
        prepare(replace(config, corpus=FileCorpus(paths=("gone.txt",))), cache=cache, quiet=True)
    assert not cache.exists()


def test_another_pretrained_tokenizer_in_the_same_folder_prepares_again(
    config: DataConfig, cache: Path, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "tokenizer"
    pretrained = replace(config, tokenizer=PretrainedTokenizer(name=str(folder)))
    fingerprints = set()
    for vocab_size in (256, 266):
        Tokenizer.train(["some text, some more text, and some more"] * 9, vocab_size).save(tmp_path)
        PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")).save_pretrained(folder)
        data = prepare(pretrained, cache=cache, quiet=True)
        assert data.tokenizer.vocab_size == vocab_size
        fingerprints.add(data.fingerprint)
    assert len(fingerprints) == 2


def test_a_tokenizer_that_loses_text_says_so(config: DataConfig, cache: Path, tmp_path: Path) -> None:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "lossy")
    lossy = replace(config, tokenizer=PretrainedTokenizer(name=str(tmp_path / "lossy")))
    with pytest.warns(UserWarning, match="does not give .* back exactly"):
        prepare(lossy, cache=cache, quiet=True)
