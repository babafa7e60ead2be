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
    LanguageModelConfig,
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
from memlm.config.probe import (
    READERS,
    AutoregressiveReader,
    Degradation,
    LinearReader,
    Noise,
    ParallelReader,
    ProbeConfig,
    Quantization,
    Reader,
    ReadingConfig,
    SettleConfig,
    StatePooling,
)
from memlm.config.training import (
    AdamW,
    GrowthStage,
    LanguageModelRecipe,
    Muon,
    Optimizer,
    RecipeConfig,
    RetrievalStage,
    TrainingConfig,
)

__all__ = [
    "READERS",
    "AdamW",
    "Attention",
    "AutoencoderConfig",
    "AutoregressiveReader",
    "BpeTokenizer",
    "Config",
    "Corpus",
    "DataConfig",
    "Degradation",
    "FileCorpus",
    "GrowthStage",
    "HubCorpus",
    "LanguageModelConfig",
    "LanguageModelRecipe",
    "LastToken",
    "LearnedQuery",
    "LinearReader",
    "MaskedMixer",
    "Mean",
    "MemoryShape",
    "Mixer",
    "Muon",
    "NamedCorpus",
    "Noise",
    "Optimizer",
    "ParallelReader",
    "Pooling",
    "Positional",
    "PretrainedTokenizer",
    "ProbeConfig",
    "Quantization",
    "Reader",
    "ReadingConfig",
    "RecipeConfig",
    "Repeat",
    "RetrievalStage",
    "SettleConfig",
    "SlidingWindow",
    "StackConfig",
    "StatePooling",
    "Tokenizer",
    "TrainingConfig",
    "Unpooling",
]
