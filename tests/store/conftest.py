import pytest
import torch

from memlm import TextAutoencoder
from memlm.config import Attention, SearchConfig, StackConfig
from memlm.models.autoencoder import SearchEncoder


@pytest.fixture(scope="session")
def searched(trained: TextAutoencoder) -> TextAutoencoder:
    """One whose memories can be searched, by a part that learned nothing: only the same words are near each other."""
    torch.manual_seed(0)
    stack = StackConfig(dim=16, num_layers=1, mixer=Attention(num_heads=2))
    cfg = SearchConfig(dim=8, num_words=64, word_dim=8, stack=stack)
    search = SearchEncoder(cfg, trained.config.shape)
    search.spell(trained.tokenizer.token_bytes)
    return trained.with_search(cfg, search, {})
