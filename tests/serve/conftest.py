from collections.abc import Iterator

import pytest
import torch
from serving import running

from memlm import TextAutoencoder
from memlm.data.tokenizer import Tokenizer
from memlm.models.autoencoder import Autoencoder
from memlm.serve.app import Limits, create_app
from memlm.serve.model import ServedModel
from tiny import SENTENCE, randomized, tiny_model


@pytest.fixture(scope="session")
def model() -> TextAutoencoder:
    """A tiny autoencoder that has learned nothing: its memories differ all the same."""
    tokenizer = Tokenizer.train([SENTENCE * 40], 300)
    table = torch.full((300,), 1 / 300).log()
    return TextAutoencoder(randomized(Autoencoder(tiny_model())), tokenizer, table, {})


@pytest.fixture(scope="session")
def address(model: TextAutoencoder) -> Iterator[str]:
    """A server of `tiny`."""
    limits = Limits(max_body=100_000, max_inputs=50, batch=16)
    with running(create_app([ServedModel("tiny", model)], limits)) as where:
        yield where
