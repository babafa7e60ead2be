"""Saving a model replaces an earlier one, and destroys nothing else."""

from pathlib import Path

import pytest

from memlm import TextAutoencoder


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("there", "saved_to", "message"),
    [
        (["precious.txt"], "precious.txt", "a file is there"),
        (["precious.txt"], "precious.txt/model", "precious.txt is a file, not a folder"),
        (["bert/config.json", "bert/model.safetensors"], "bert", "holds config.json, model.safetensors, which saving"),
        (["mine/config.json"], "mine", "holds config.json, which saving there would remove; give a new folder"),
        (["mine/provenance.json", "mine/notes.txt"], "mine", "holds notes.txt, which"),
    ],
)
def test_what_is_no_checkpoint_is_never_replaced(
    there: list[str], saved_to: str, message: str, trained: TextAutoencoder, tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=message):
        trained.save_pretrained(tmp_path / saved_to)
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [Path(there[0]).parts[0]]


def test_an_empty_folder_and_an_earlier_checkpoint_are_replaced(trained: TextAutoencoder, tmp_path: Path) -> None:
    for _ in range(2):
        trained.save_pretrained(tmp_path)
        assert "model.safetensors" in everything(tmp_path)
