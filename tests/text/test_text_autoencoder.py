import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import memlm
from memlm import TextAutoencoder
from memlm.data.tokenizer import Tokenizer
from memlm.models.autoencoder import Autoencoder
from memlm.models.decoded import decode
from tiny import tiny_model

TEXTS = ["the memory holds one long text ünd 漢字", "two words", "", " \n", "vector " * 30]


def test_loading_gives_back_what_was_saved_bit_for_bit(trained: TextAutoencoder, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path / "model")
    loaded = memlm.load(str(tmp_path / "model"))
    one, other = trained.encode(TEXTS), loaded.encode(TEXTS)
    assert torch.equal(one.vectors, other.vectors)
    assert loaded.regenerate(one) == trained.regenerate(one)
    assert torch.equal(loaded.unconditional, trained.unconditional)
    assert loaded.config == trained.config
    assert loaded.encoder_fingerprint == trained.encoder_fingerprint
    assert loaded.tokenizer.fingerprint == trained.tokenizer.fingerprint
    assert loaded.provenance == {**trained.provenance, "format": "memlm autoencoder", "format_version": 1}


def test_numbers_written_as_whole_ones_load_as_the_same_encoder(trained: TextAutoencoder, tmp_path: Path) -> None:
    cfg = tiny_model(memory_noise=0, encoder=replace(tiny_model().encoder, mlp_ratio=2))
    model = TextAutoencoder(Autoencoder(cfg), trained.tokenizer, trained.unconditional, {})
    model.save_pretrained(tmp_path / "model")
    assert memlm.load(tmp_path / "model").encoder_fingerprint == model.encoder_fingerprint


def test_saving_again_replaces_the_model(trained: TextAutoencoder, untrained: TextAutoencoder, tmp_path: Path) -> None:
    untrained.save_pretrained(tmp_path / "model")
    trained.save_pretrained(tmp_path / "model")
    assert memlm.load(tmp_path / "model").encoder_fingerprint == trained.encoder_fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_text_has_the_same_memories_alone_and_among_others(trained: TextAutoencoder) -> None:
    together = trained.encode(TEXTS)
    alone = [trained.encode([text]) for text in TEXTS]
    torch.testing.assert_close(together.vectors, torch.cat([memory.vectors for memory in alone]))
    assert together.num_chunks == tuple(memory.num_chunks[0] for memory in alone)
    assert trained.regenerate(together) == [trained.regenerate(memory)[0] for memory in alone]


def test_texts_may_be_tokens_already(trained: TextAutoencoder) -> None:
    tokens = trained.tokenizer.encode_batch(TEXTS)
    memory, expected = trained.encode_tokens(tokens, verify=True), trained.encode(TEXTS, verify=True)
    assert torch.equal(memory.vectors, expected.vectors)
    assert (memory.num_chunks, memory.encoder) == (expected.num_chunks, expected.encoder)
    assert torch.equal(memory.num_tokens, expected.num_tokens)
    assert memory.exact is not None
    assert torch.equal(memory.exact, expected.exact)
    assert len(trained.encode_tokens([])) == 0
    for wrong in (-1, 300, 2**70):
        with pytest.raises(ValueError, match=f"text 1 has token {wrong}; there are tokens 0 to 299"):
            trained.encode_tokens([[1], [2, wrong]])


def test_more_texts_than_a_batch_keep_their_order(trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained.encode(TEXTS)
    expected = trained.regenerate(whole)
    monkeypatch.setattr("memlm.text.autoencoder.batch_chunks", lambda *_: 2)
    torch.testing.assert_close(trained.encode(TEXTS).vectors, whole.vectors)
    assert trained.regenerate(whole) == expected


def test_in_bf16_memories_are_nearly_the_same_and_give_back_the_same(trained: TextAutoencoder) -> None:
    exactly, nearly = trained.encode(TEXTS), trained.encode(TEXTS, precision="bf16")
    assert 0 < (exactly.vectors - nearly.vectors).square().mean().sqrt() < 0.01
    assert trained.regenerate(nearly) == trained.regenerate(exactly)
    assert torch.equal(trained.encode(TEXTS).vectors, exactly.vectors), "precision ends with the call"
    with pytest.raises(ValueError, match="not 'int8'"):
        trained.encode(TEXTS, precision="int8")  # type: ignore[call-overload]


def test_an_empty_text_has_no_memory_and_comes_back_empty(trained: TextAutoencoder) -> None:
    for texts in ([""], ["", ""]):
        memory = trained.encode(texts)
        assert memory.vectors.shape == (0, 1, 32)
        assert memory.num_chunks == (0,) * len(texts)
        assert trained.regenerate(memory) == texts


def test_only_the_last_chunk_is_short(trained: TextAutoencoder) -> None:
    for num_tokens in (1, 15, 16, 17, 32, 40):
        text = trained.tokenizer.decode([trained.tokenizer.encode("a")[0]] * num_tokens)
        length = len(trained.tokenizer.encode(text))
        counts = trained.encode([text]).num_tokens.tolist()
        assert counts[:-1] == [16] * (len(counts) - 1)
        assert sum(counts) == length


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_any_text_can_be_encoded_and_regenerated(trained: TextAutoencoder, texts: list[str]) -> None:
    memory = trained.encode(texts)
    lengths = [len(trained.tokenizer.encode(text)) for text in texts]
    assert memory.num_tokens.sum() == sum(lengths)
    assert memory.num_chunks == tuple(-(-length // 16) for length in lengths)
    regenerated = trained.regenerate(memory)
    assert len(regenerated) == len(texts)
    assert all(bool(text) == bool(again) for text, again in zip(texts, regenerated, strict=True))


def test_regeneration_is_what_was_decoded(trained: TextAutoencoder) -> None:
    memory = trained.encode(TEXTS[:1])
    decoded = decode(trained.model, memory.vectors)
    ids = [token for row, n in zip(decoded.tokens, decoded.num_tokens, strict=True) for token in row[:n].tolist()]
    assert trained.regenerate(memory) == [trained.tokenizer.decode(ids)]


def test_another_encoders_memory_is_refused(trained: TextAutoencoder, untrained: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match="load the model that made it") as caught:
        trained.regenerate(untrained.encode(["text"]))
    assert trained.encoder_fingerprint in str(caught.value)
    assert untrained.encoder_fingerprint in str(caught.value)


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n\t"]])
def test_nothing_to_evaluate_is_said(texts: list[str], trained: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        trained.evaluate(texts)


def test_one_string_is_no_list_of_texts(trained: TextAutoencoder) -> None:
    for method in (trained.encode, trained.evaluate):
        with pytest.raises(ValueError, match="not one string"):
            method("the memory")


def test_lone_surrogates_are_refused(trained: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        trained.encode(["fine", "a\ud800"])


def test_evaluation_counts_each_text_as_a_document(trained: TextAutoencoder) -> None:
    result = trained.evaluate([*TEXTS, "the memory"], name="mine")
    lengths = [len(trained.tokenizer.encode(text)) for text in [*TEXTS, "the memory"] if text]
    assert (result.name, result.num_documents, result.num_tokens) == ("mine", len(lengths), sum(lengths))
    assert (result.chunk_len, result.memory_dim, result.num_slots) == (16, 32, 1)
    assert set(result.intervals) >= {"token_accuracy", "retained_bits_per_token", "bits_per_dim"}
    assert result.provenance.settings["encoder"] == trained.encoder_fingerprint
    assert trained.evaluate(["the"]).intervals == {}  # one chunk
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_pieces_must_belong_together(trained: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match="the tokenizer has 256 types, the model 300"):
        TextAutoencoder(trained.model, Tokenizer.train([], 256), trained.unconditional, {})
    with pytest.raises(ValueError, match=r"table is \[8\], not \[300\]"):
        TextAutoencoder(trained.model, trained.tokenizer, trained.unconditional[:8], {})


# --- damaged checkpoints ---


@pytest.fixture
def saved(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to be damaged."""
    return shutil.copytree(finished_run / "model", tmp_path / "model")


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(ValueError, match=str(folder)) as caught:
        memlm.load(folder)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "provenance.json"])
def test_a_missing_file_is_named(name: str, saved: Path) -> None:
    (saved / name).unlink()
    assert_refused(saved, "is not a memlm checkpoint", name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "provenance.json"])
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_named(name: str, share: float, saved: Path) -> None:
    os.truncate(saved / name, int(share * ((saved / name).stat().st_size - 2)))
    assert_refused(saved, name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "provenance.json"])
def test_a_file_of_garbage_is_named(name: str, saved: Path) -> None:
    (saved / name).write_bytes(bytes(range(256)) * 8)
    assert_refused(saved, name)


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """As somebody might who knows nothing of the checksum, or knows better."""
    save_file(tensors, folder / "model.safetensors")
    provenance = json.loads((folder / "provenance.json").read_text())
    del provenance["weights_sha256"]
    (folder / "provenance.json").write_text(json.dumps(provenance))


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    write_tensors(folder, {name: tensor for name, tensor in tensors.items() if tensor is not None})


def test_one_wrong_bit_is_found(saved: Path) -> None:
    weights = bytearray((saved / "model.safetensors").read_bytes())
    weights[-1000] ^= 1  # the number stays finite
    (saved / "model.safetensors").write_bytes(weights)
    assert_refused(saved, "model.safetensors is damaged: its checksum is another than when it was saved")


HEAD = "decoder.head.weight"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [HEAD, "unconditional"])
def test_a_tensor_that_is_not_finite_is_named(name: str, value: float, saved: Path) -> None:
    tensor = load_file(saved / "model.safetensors")[name]
    tensor[3] = value
    change_tensors(saved, **{name: tensor})
    assert_refused(saved, name, "NaN or infinity")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({HEAD: None}, ("do not fit config.json", HEAD)),
        ({HEAD: torch.zeros(3, 3)}, ("do not fit config.json", HEAD, "[3, 3]")),
        ({"stranger": torch.zeros(3)}, ("do not fit config.json", "stranger")),
        ({"unconditional": None}, ("not a memlm autoencoder",)),
        ({"unconditional": torch.zeros(3)}, ("unconditional reader's table", "[3]")),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    changes: dict[str, torch.Tensor | None], words: tuple[str, ...], saved: Path
) -> None:
    change_tensors(saved, **changes)
    assert_refused(saved, *words)


def test_foreign_tensors_are_refused(saved: Path) -> None:
    write_tensors(saved, {"weight": torch.zeros(3)})
    assert_refused(saved, "not a memlm autoencoder")


@pytest.mark.parametrize("vocab_size", [256, 300])
def test_another_vocabularys_tokenizer_is_refused(vocab_size: int, saved: Path) -> None:
    Tokenizer.train([Path(__file__).read_text()], vocab_size).save(saved)
    assert_refused(saved, "tokenizer.json is not the tokenizer that this model was trained with")


def test_saving_never_removes_what_is_not_a_checkpoint(trained: TextAutoencoder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.txt"):
        trained.save_pretrained(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("provenance.json", {"format_version": 2}, ("version 2", "upgrade memlm")),
        ("provenance.json", {"format": "another"}, ("'another'", "memlm autoencoder")),
        ("config.json", {"colour": "red"}, ("config.json", "colour")),
        ("config.json", {"memory_noise": -1}, ("config.json", "memory_noise", "-1")),
        (
            "config.json",
            {"shape": {"vocab_size": 300, "chunk_len": 16, "memory_dim": 33, "num_slots": 1}},
            ("do not fit config.json", "gather.weight"),
        ),
    ],
)
def test_json_that_does_not_fit_is_named(
    file: str, changes: dict[str, Any], words: tuple[str, ...], saved: Path
) -> None:
    change_json(saved / file, **changes)
    assert_refused(saved, *words)


def test_json_that_is_no_object_is_refused(saved: Path) -> None:
    (saved / "provenance.json").write_text("[]")
    assert_refused(saved, "provenance.json", "not a JSON object")


def test_what_is_no_folder_and_what_is_nowhere_are_told_apart(saved: Path) -> None:
    assert_refused(saved / "config.json", "is a file; a checkpoint is a folder")
    for name, words in (("nosuchmodel", "hub name"), ("user/nosuchmodel", "hub cannot be"), ("a/b/c", "hub name")):
        with pytest.raises(ValueError, match=f"no model '{name}'.*{words}"):
            memlm.load(name)


# --- the hub ---


def test_pushing_uploads_a_whole_checkpoint(
    trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
            calls.append((repo_id, options))
            return SimpleNamespace(repo_id=f"me/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
            calls.append((repo_id, {}))
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert trained.push_to_hub("mine", private=True) == "https://hub/commit"
    assert calls == [("mine", {"exist_ok": True, "private": True}), ("me/mine", {})]
    assert memlm.load(tmp_path / "uploaded").encoder_fingerprint == trained.encoder_fingerprint


def test_a_hub_name_is_downloaded_without_anything_that_could_be_code(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert all(Path(pattern).suffix in (".json", ".safetensors") for pattern in allow_patterns)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    memlm.load("user/model", revision="abc")
    assert asked == [("user/model", "abc")]
