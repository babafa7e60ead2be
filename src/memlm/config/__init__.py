"""All configuration of memlm: frozen dataclasses with units in their names, and JSON in and out.

Nothing here imports torch, so the command line can show and check a configuration at once. A variant is a
union of small classes told apart by `kind`; code chooses between them with `match`.

Words: a *chunk* is `chunk_len` consecutive tokens; a *memory* is the `num_slots` vectors of `memory_dim` that
stand for it.
"""

from memlm.config.base import Config
from memlm.config.data import (
    BpeTokenizer,
    Corpus,
    DataConfig,
    FileCorpus,
    HubCorpus,
    NamedCorpus,
    PretrainedTokenizer,
    Tokenizer,
)
from memlm.config.model import (
    Attention,
    AutoencoderConfig,
    LastToken,
    LearnedQuery,
    MaskedMixer,
    Mean,
    MemoryShape,
    Mixer,
    Pooling,
    Positional,
    Repeat,
    SlidingWindow,
    StackConfig,
    Unpooling,
)
from memlm.config.training import (
    AdamW,
    GrowthStage,
    Muon,
    Optimizer,
    RecipeConfig,
    TrainingConfig,
)

__all__ = [
    "AdamW",
    "Attention",
    "AutoencoderConfig",
    "BpeTokenizer",
    "Config",
    "Corpus",
    "DataConfig",
    "FileCorpus",
    "GrowthStage",
    "HubCorpus",
    "LastToken",
    "LearnedQuery",
    "MaskedMixer",
    "Mean",
    "MemoryShape",
    "Mixer",
    "Muon",
    "NamedCorpus",
    "Optimizer",
    "Pooling",
    "Positional",
    "PretrainedTokenizer",
    "RecipeConfig",
    "Repeat",
    "SlidingWindow",
    "StackConfig",
    "Tokenizer",
    "TrainingConfig",
    "Unpooling",
]
