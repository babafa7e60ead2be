"""A model with its tokenizer, which can be saved, loaded and shared."""

from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import (
    AutoencoderConfig,
    LanguageModelConfig,
    MemoryModelConfig,
    MemoryReaderConfig,
    PretrainedDecoder,
)
from memlm.data.chunks import split_into_chunks
from memlm.data.documents import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.metrics import regeneration_measures, score
from memlm.models.autoencoder import Autoencoder, Encoder
from memlm.models.causal_decoder import PretrainedCausalDecoder
from memlm.models.language_model import LanguageModel
from memlm.models.memory_model import MemoryModel
from memlm.models.memory_reader import MemoryReader
from memlm.runtime.progress import track
from memlm.runtime.results import Interval, Provenance, Result
from memlm.text import checkpoint_folder
from memlm.text.checkpoint_folder import ModelConfig, StoredDtype
from memlm.text.memory import SEARCHED, Memory

Model = TypeVar("Model", bound=nn.Module)
Configuration = TypeVar("Configuration", bound=ModelConfig)
MemoryConfiguration = TypeVar("MemoryConfiguration", AutoencoderConfig, MemoryModelConfig)


class TextModel(Generic[Model, Configuration]):
    """A model with its tokenizer; base of all kinds."""

    config_class: ClassVar[type[ModelConfig]]
    """The class of its models' configurations, which tells its checkpoint folders from others."""
    tables: ClassVar[tuple[str, ...]] = ()
    """Names of tensors saved beside the model's; each is an argument and an attribute of the class."""

    def __init__(self, model: Model, tokenizer: Tokenizer, provenance: dict[str, Any]) -> None:
        """Raise ValueError where model and tokenizer do not belong together."""
        self.model, self.tokenizer, self.provenance = model.eval(), tokenizer, provenance
        self.source = ""
        """The name or path that it was loaded from."""
        if tokenizer.vocab_size != self.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} types, the model {self.config.vocab_size}: "
                "they do not belong together"
            )

    @property
    def config(self) -> Configuration:
        """The model's configuration."""
        return self.model.config  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def __repr__(self) -> str:
        shape = getattr(self.config, "shape", None)
        size = f", {shape.chunk_len} tokens → {shape.num_slots} × {shape.memory_dim}" if shape else ""
        return f"{type(self).__name__}({self.source or 'not saved'}{size}, on {self.device})"

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device.

        Raises:
            ValueError: there is no such device here.
        """
        try:
            place = torch.device(device)
            if place.type == "meta":
                raise RuntimeError("it holds no numbers")
            self.model.to(place)
        except (RuntimeError, AssertionError) as error:  # torch's own: an unknown name, or a build without CUDA
            raise ValueError(f"cannot use device {str(device)!r}: {str(error).splitlines()[0]}") from None
        return self

    def save_pretrained(self, folder: str | Path, *, dtype: StoredDtype = "fp32") -> None:
        """Write a checkpoint folder (config, safetensors, tokenizer, provenance), all or nothing.

        LoRA of a pretrained language model is in the subfolder `adapter`, which peft loads by itself.

        Args:
            folder: where.
            dtype: of stored matrices; bf16 takes half the space. Loaded weights are fp32. An encoder that was rounded
                is another encoder: it does not read the memories of the one before.

        Raises:
            ValueError: `folder` is a file, or holds something else than a checkpoint.
            OSError: the disk is full or not writable; an earlier checkpoint in `folder` is then kept.
        """
        tensors = {**self.model.state_dict(), **{name: getattr(self, name) for name in self.tables}}
        decoder = getattr(self.model, "decoder", None)
        adapter = decoder.adapter_config() if isinstance(decoder, PretrainedCausalDecoder) else None
        about = (self.config, tensors, self.tokenizer, self.provenance)
        checkpoint_folder.save(Path(folder), *about, adapter=adapter, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, device: torch.device | str | None = None
    ) -> Self:
        """Load a checkpoint: a folder, a model that ships with memlm (such as `english`), or a Hugging Face hub name.

        Args:
            name_or_path: which.
            revision: of a model on the hub.
            device: where to put it; by default on a GPU, where there is one.

        Raises:
            ValueError: there is no such model or device, or the checkpoint is incomplete or damaged.
        """
        folder = checkpoint_folder.locate(name_or_path, revision, cls.config_class)
        config, tensors, tokenizer, provenance = checkpoint_folder.load(folder, cls.config_class)
        if missing := [name for name in cls.tables if name not in tensors]:
            kind = checkpoint_folder.FORMATS[cls.config_class]
            raise ValueError(f"{folder} has no tensor {missing[0]!r}: not a {kind}")
        tables = {name: tensors.pop(name) for name in cls.tables}
        try:
            _require_stored(config, tensors)
            model: Any = build_model(config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        checkpoint_folder.load_weights(model, tensors, folder)
        try:
            loaded = cls(model, tokenizer, provenance=provenance, **tables)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        loaded.source = str(Path(name_or_path).resolve()) if Path(name_or_path).is_dir() else str(name_or_path)
        return loaded.to(device or default_device())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the checkpoint to the Hugging Face hub (options as for `HfApi.create_repo`); returns its address."""
        return checkpoint_folder.push(self.save_pretrained, repo_id, **options)


class MemoryTextModel(TextModel[Model, MemoryConfiguration]):
    """A model with an encoder, which regenerates text from memories; with the reader without a memory, to compare."""

    tables = ("unconditional",)

    def __init__(
        self, model: Model, tokenizer: Tokenizer, unconditional: Float[Tensor, " vocab"], provenance: dict[str, Any]
    ) -> None:
        """`unconditional` are a reader's log-probabilities, in nats, without a memory (`unconditional_log_probs`)."""
        super().__init__(model, tokenizer, provenance)
        if unconditional.shape != (self.config.vocab_size,):
            raise ValueError(
                f"the unconditional reader's table is {list(unconditional.shape)}, not {[self.config.vocab_size]}"
            )
        self.unconditional = unconditional

    @property
    def encoder(self) -> Encoder | None:
        """The encoder; a memory model may have none."""
        return self.model.encoder  # type: ignore[return-value]

    @cached_property
    def encoder_fingerprint(self) -> str:
        """A short hash of the encoder's weights and configuration; empty without one."""
        return self.encoder.fingerprint(self.tokenizer.fingerprint) if self.encoder else ""

    def own(self, memory: Memory) -> Memory:
        """A memory's text, as this model's decoder reads it; what memories are searched by may differ, or be missing.

        Raises:
            ValueError: another encoder made it, whose vectors would mean something else.
        """
        made, own = memory.of_text, self.encoder_fingerprint.split(SEARCHED)[0]
        if made.encoder != own:
            raise ValueError(
                f"this memory was made by encoder {made.encoder}, not by this one ({own or 'none'}); load the model "
                "that made it"
            )
        return made

    def _tokenize(self, texts: Iterable[str]) -> TokenSplit:
        """Each text as a document."""
        documents = (Document(f"text {i}", text, None) for i, text in enumerate(texts))
        return tokenize_documents(self.tokenizer, documents)

    def _regeneration(
        self, regenerator: nn.Module, split: TokenSplit, *, name: str, quiet: bool
    ) -> tuple[dict[str, Any], dict[str, Interval]]:
        """Measures of the decoder's most likely tokens (`evaluation.metrics.regeneration_measures`)."""
        shape = self.config.shape
        chunks = split_into_chunks(split, shape.chunk_len)
        total = int(chunks.mask.sum())
        with track(f"Regenerating {name}", total=total, unit="tokens", quiet=quiet) as advance:
            scores = score(regenerator, chunks, shape.vocab_size, advance=advance)
        return regeneration_measures(
            scores,
            -self.unconditional.numpy()[chunks.tokens],
            np.asarray(split.document_bytes),
            vocab_size=shape.vocab_size,
            memory_dims=shape.num_slots * shape.memory_dim,
        )

    def _result(self, name: str, values: dict[str, Any], intervals: dict[str, Interval]) -> Result:
        shape = self.config.shape
        values |= {"chunk_len": shape.chunk_len, "memory_dim": shape.memory_dim, "num_slots": shape.num_slots}
        made_by = Provenance.here(model=self.provenance, encoder=self.encoder_fingerprint)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)


MODELS: dict[type[ModelConfig], type[nn.Module]] = {
    AutoencoderConfig: Autoencoder,
    LanguageModelConfig: LanguageModel,
    MemoryModelConfig: MemoryModel,
    MemoryReaderConfig: MemoryReader,
}
"""Each configuration's model."""


def build_model(cfg: ModelConfig) -> nn.Module:
    """The model that a configuration describes, freshly initialized."""
    return MODELS[type(cfg)](cfg)


def _require_stored(cfg: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a configuration describes a larger model than there are weights of, before it is built."""
    if isinstance(getattr(cfg, "decoder", None), PretrainedDecoder):
        return  # whose weights are elsewhere
    stored = sum(tensor.numel() for tensor in tensors.values())
    numbers = {path: value for path, value in cfg.leaves().items() if isinstance(value, int | float)}
    # First what would take long to count: each of these has weights of its own.
    layers = max((number for path, number in numbers.items() if path.endswith("num_layers")), default=0)
    fits = layers <= len(tensors) and max(numbers.values()) <= stored
    if fits:
        try:
            with torch.device("meta"):
                fits = (
                    sum(each.numel() for each in build_model(cfg).state_dict().values()) <= 2 * stored
                )  # some are tied
        except (RuntimeError, OverflowError):  # torch cannot even count so many
            fits = False
    if not fits:
        raise ValueError(f"the weights do not fit config.json, which describes a model of more than {stored} weights")


def default_device() -> str:
    """A GPU, where there is one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def as_texts(texts: Iterable[str]) -> list[str]:
    """Texts of a list, a generator, a pandas Series or the like.

    Raises:
        ValueError: it is one string, whose characters would be the texts.
        TypeError: it has no order, or holds something else than strings; says what and where.
    """
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, not one string; wrap it: [text]")
    if isinstance(texts, (bytes, Mapping, Set)) or not hasattr(texts, "__iter__"):
        hint = {bytes: "; decode it", dict: "; give its values"}.get(type(texts), "")
        raise TypeError(f"expected a list of texts, not {type(texts).__name__}{hint}")
    listed: list[Any] = list(texts)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            hint = "; decode it" if isinstance(text, bytes) else ""
            raise TypeError(f"text {place} is {text!r:.40} ({type(text).__name__}), not a string{hint}")
    return listed
