from dataclasses import replace
from pathlib import Path

import pytest
import torch

from memlm import TextAutoencoder
from memlm.config import MemoryShape
from memlm.models.autoencoder import Autoencoder


@pytest.fixture(scope="session")
def encoder(finished_run: Path) -> str:
    """The tiny trained model's folder."""
    return str(finished_run / "model")


@pytest.fixture(scope="session")
def signs(trained: TextAutoencoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model whose memories are signs; not a trained one."""
    torch.manual_seed(0)
    shape = replace(trained.config.shape, num_bits=1)
    assert isinstance(shape, MemoryShape)
    model = Autoencoder(replace(trained.config, shape=shape))
    folder = tmp_path_factory.mktemp("signs") / "model"
    TextAutoencoder(model, trained.tokenizer, trained.unconditional, {}).save_pretrained(folder)
    return str(folder)
