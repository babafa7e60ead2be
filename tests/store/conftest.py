import pytest

import memlm
from memlm import TextAutoencoder
from memlm.models.autoencoder import Autoencoder


@pytest.fixture(scope="session")
def untrained(trained: TextAutoencoder) -> TextAutoencoder:
    """One whose memories give back next to nothing."""
    return TextAutoencoder(Autoencoder(trained.config), trained.tokenizer, trained.unconditional, {})


@pytest.fixture(scope="session")
def english() -> TextAutoencoder:
    """One whose memories give back nearly everything."""
    return memlm.load("english")
