"""All configuration of memlm: frozen dataclasses with units in their names, and JSON in and out.

Nothing here imports torch, so the command line can show and check a configuration at once. A variant is a
union of small classes told apart by `kind`; a table leads from each class to what it configures.

Words: a *chunk* is `chunk_len` consecutive tokens; a *memory* is the `num_slots` vectors of `memory_dim` that
stand for it.
"""

from memlm.config.base import Config as Config
from memlm.config.data import BpeTokenizer as BpeTokenizer
from memlm.config.data import Corpus as Corpus
from memlm.config.data import DataConfig as DataConfig
from memlm.config.data import FileCorpus as FileCorpus
from memlm.config.data import HubCorpus as HubCorpus
from memlm.config.data import NamedCorpus as NamedCorpus
from memlm.config.data import PretrainedTokenizer as PretrainedTokenizer
from memlm.config.data import Tokenizer as Tokenizer
from memlm.config.decoder import CrossAttention as CrossAttention
from memlm.config.decoder import Decoder as Decoder
from memlm.config.decoder import DecoderConfig as DecoderConfig
from memlm.config.decoder import Insertion as Insertion
from memlm.config.decoder import InsertionConfig as InsertionConfig
from memlm.config.decoder import LoraConfig as LoraConfig
from memlm.config.decoder import MemoryModelConfig as MemoryModelConfig
from memlm.config.decoder import Prefix as Prefix
from memlm.config.decoder import PretrainedDecoder as PretrainedDecoder
from memlm.config.decoder import RecurrentConfig as RecurrentConfig
from memlm.config.decoder import RecurrentDecoder as RecurrentDecoder
from memlm.config.decoder import Unpooled as Unpooled
from memlm.config.leak import LeakConfig as LeakConfig
from memlm.config.memory_reader import AS_TOKENS as AS_TOKENS
from memlm.config.memory_reader import MAX_RATIO as MAX_RATIO
from memlm.config.memory_reader import PER_MEMORY as PER_MEMORY
from memlm.config.memory_reader import MemoryReaderConfig as MemoryReaderConfig
from memlm.config.memory_reader import ReadingWindow as ReadingWindow
from memlm.config.memory_reader import Source as Source
from memlm.config.model import Aligned as Aligned
from memlm.config.model import Attention as Attention
from memlm.config.model import AutoencoderConfig as AutoencoderConfig
from memlm.config.model import ContextConfig as ContextConfig
from memlm.config.model import LanguageModelConfig as LanguageModelConfig
from memlm.config.model import LastToken as LastToken
from memlm.config.model import LearnedQuery as LearnedQuery
from memlm.config.model import Mamba as Mamba
from memlm.config.model import MaskedMixer as MaskedMixer
from memlm.config.model import Mean as Mean
from memlm.config.model import MemoryShape as MemoryShape
from memlm.config.model import Mixer as Mixer
from memlm.config.model import MixerConfig as MixerConfig
from memlm.config.model import Pooling as Pooling
from memlm.config.model import PoolingConfig as PoolingConfig
from memlm.config.model import Positional as Positional
from memlm.config.model import RecurrentMixer as RecurrentMixer
from memlm.config.model import Repeat as Repeat
from memlm.config.model import SearchConfig as SearchConfig
from memlm.config.model import SlidingWindow as SlidingWindow
from memlm.config.model import StackConfig as StackConfig
from memlm.config.model import Unpooling as Unpooling
from memlm.config.probe import READERS as READERS
from memlm.config.probe import AutoregressiveReader as AutoregressiveReader
from memlm.config.probe import Degradation as Degradation
from memlm.config.probe import LinearReader as LinearReader
from memlm.config.probe import Noise as Noise
from memlm.config.probe import ParallelReader as ParallelReader
from memlm.config.probe import PretrainedReader as PretrainedReader
from memlm.config.probe import ProbeConfig as ProbeConfig
from memlm.config.probe import Quantization as Quantization
from memlm.config.probe import Reader as Reader
from memlm.config.probe import ReaderName as ReaderName
from memlm.config.probe import ReadingConfig as ReadingConfig
from memlm.config.probe import SettleConfig as SettleConfig
from memlm.config.probe import StatePooling as StatePooling
from memlm.config.recipe import AutoencoderRecipe as AutoencoderRecipe
from memlm.config.recipe import LanguageModelRecipe as LanguageModelRecipe
from memlm.config.recipe import MemoryModelRecipe as MemoryModelRecipe
from memlm.config.recipe import MemoryReaderRecipe as MemoryReaderRecipe
from memlm.config.recipe import ModelConfig as ModelConfig
from memlm.config.recipe import Recipe as Recipe
from memlm.config.recipe import Stage as Stage
from memlm.config.recipe import Weights as Weights
from memlm.config.recipe import WindowConfig as WindowConfig
from memlm.config.training import AdamW as AdamW
from memlm.config.training import Muon as Muon
from memlm.config.training import Optimizer as Optimizer
from memlm.config.training import TrainingConfig as TrainingConfig
