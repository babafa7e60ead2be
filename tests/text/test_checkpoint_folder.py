"""Saving a model replaces an earlier one, and destroys nothing else."""

from pathlib import Path

import pytest
import torch
from torch import nn

from memlm import TextAutoencoder
from memlm.config import AutoencoderConfig
from memlm.text import checkpoint_folder


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


class Tied(nn.Module):
    """A head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_weights_are_written_once_and_tied_again(trained: TextAutoencoder, tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    checkpoint_folder.save(tmp_path / "model", trained.config, model.state_dict(), trained.tokenizer, {})
    _, tensors, _, _ = checkpoint_folder.load(tmp_path / "model", AutoencoderConfig)
    assert set(tensors) == {"embed.weight"}
    checkpoint_folder.load_weights(other, tensors, tmp_path)
    assert torch.equal(other.embed.weight, model.embed.weight)
    assert other.head.weight is other.embed.weight
    with pytest.raises(ValueError, match=r"do not fit config.json: .*embed.weight"):
        checkpoint_folder.load_weights(other, {}, tmp_path)
