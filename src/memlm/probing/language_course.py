"""How a pretrained language model learns to read embeddings: words first, then in rounds that double the pairs."""

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memlm.config import AdamW, MemoryShape, PretrainedReader, TrainingConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.information import unconditional_log_probs
from memlm.models.batch import Batch, batch_chunks, compute_in_batches
from memlm.models.language_reader import LanguageReader, Words
from memlm.nn.mixers import Tokens
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.language_guess import Guesses
from memlm.probing.language_texts import LanguageTexts
from memlm.probing.texts import Splits
from memlm.probing.transform import Transform
from memlm.runtime.cpu import precision_on
from memlm.runtime.files import atomic_file
from memlm.text.model import default_device
from memlm.training.checkpoint import RunFolder
from memlm.training.loop import fit
from memlm.training.objectives import Objective

_WORDS = Objective("words", lambda words, batch: words(batch))
_WORDS_PAIRS, _WORDS_EPOCHS, _WORDS_RATE = 256, 4, 3e-3
_WARMUP_STEPS, _CHECKPOINT_STEPS = 30, 50
_GUESSING_STEPS = 1000
"""Of a smaller reader: a minute or two."""
_LONGEST = 0.99
"""A text is written as long as this share of the training texts are, in the language model's tokens."""

LanguageNats = Float[np.ndarray, "chunk language_token"]


class Round(NamedTuple):
    """A reader after so many pairs."""

    num_pairs: int
    weights: dict[str, Tensor]
    nats: LanguageNats
    """Of the validation texts."""


@dataclass
class Course:
    """A language model's training on these embeddings; each round is kept in the folder, and can be resumed."""

    texts: LanguageTexts
    chunks: Splits[Chunks]
    """As numbered for readers."""
    embeddings: Splits[Vectors]
    transform: Transform
    cfg: PretrainedReader
    num_steps: int
    """Of the first two rounds together."""
    codes: Float[Tensor, "type code"] | None
    """Of the tokens that chunks are of, for a smaller reader's guesses; None where there is nothing to guess from."""
    seed: int
    title: str
    folder: Path
    quiet: bool = False
    guesses: Guesses | None = field(default=None, init=False)
    _rounds: list[Round] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.train = self.texts.read(self.chunks.train)
        self.written_len = int(np.quantile(self.train.mask.sum(1), _LONGEST))
        self.device = torch.device(default_device())
        if self.codes is not None:
            self.guesses = self._learned_guesses(self.codes)
        self.validation = self.read(self.chunks.validation, self.embeddings.validation)

    @property
    def num_given(self) -> int:
        """Tokens of a guess."""
        return self.written_len if self.guesses else 0

    def read(self, chunks: Chunks, vectors: Vectors) -> Chunks:
        """Numbered chunks in the language model's tokens; before each stands what is guessed of it, if anything is."""
        return self.after_guess(self.texts.read(chunks), vectors)

    def prepare(self, vectors: Vectors) -> tuple[MemoryVectors, Tokens]:
        """Embeddings as the reader gets them, and what is guessed of them."""
        return self.transform(vectors), torch.from_numpy(self._guessed(vectors))

    def round(self, number: int) -> Round:
        """The reader after this round; those before it are trained where they have not been."""
        while len(self._rounds) <= number:
            self._rounds.append(self._kept(len(self._rounds)))
        return self._rounds[number]

    def reader(self, number: int) -> LanguageReader:
        """The reader after a round."""
        reader = self._fresh()
        reader.load_state_dict(self.round(number).weights)
        return reader

    def nats(self, reader: LanguageReader, chunks: Chunks, vectors: Vectors) -> LanguageNats:
        """What each of the language model's tokens costs, of numbered chunks; 0 at the padding."""
        read, memory = self.read(chunks, vectors), self.transform(vectors)
        num_rows = batch_chunks(read.chunk_len, len(reader.decoder.head.get_parameter("weight")))
        with self._autocast():
            (nats,) = compute_in_batches(reader, read, num_rows, lambda batch: (reader(*batch),), memory=memory)
        return nats

    def written(self, reader: LanguageReader, chunks: Chunks, vectors: Vectors) -> list[str]:
        """What the reader writes greedily in place of numbered chunks; it is told how many tokens they have."""
        read, memory = self.read(chunks, vectors), self.transform(vectors)
        num_rows = batch_chunks(1 + self.num_given, len(reader.decoder.head.get_parameter("weight")))

        def compute(batch: Batch) -> tuple[Tensor]:
            assert batch.memory is not None
            return (reader.greedy(batch.memory, batch.tokens[:, : self.num_given], self.written_len),)

        with self._autocast():
            (tokens,) = compute_in_batches(reader, read, num_rows, compute, memory=memory)
        return self.texts.cut([self.texts.language.decode(row) for row in tokens], chunks.chunk_len)

    def after_guess(self, texts: Chunks, vectors: Vectors) -> Chunks:
        """Texts in the language model's tokens, each after what is guessed of it."""
        given = self._guessed(vectors)
        mask = np.concatenate([np.ones(given.shape, dtype=np.bool_), texts.mask], axis=1)
        return texts._replace(tokens=np.concatenate([given, texts.tokens], axis=1), mask=mask)

    def _guessed(self, vectors: Vectors) -> Int[np.ndarray, "chunk given"]:
        """What is guessed of embeddings, in the language model's tokens."""
        if not self.guesses:
            return np.zeros((len(vectors), 0), np.int64)
        begin = self.texts.language.special_tokens[0]
        return self.guesses.tokens(vectors, self.num_given, begin[0] if begin else 0)

    def _fresh(self) -> LanguageReader:
        torch.manual_seed(self.seed)
        num_slots, dim = self.transform.shape
        shape = MemoryShape(vocab_size=1, chunk_len=self.written_len, num_slots=num_slots, memory_dim=dim)
        begin = self.texts.language.special_tokens[0]
        return LanguageReader(self.cfg, shape, begin, self.device, self.num_given).to(self.device)

    def _autocast(self) -> torch.autocast:
        enabled = precision_on(self.device) == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # --- training ----------------------------------------------------------------------------------------------

    def _learned_guesses(self, codes: Float[Tensor, "type code"]) -> Guesses | None:
        """None if they are not worth reading."""
        guesses, (train, validation, _) = Guesses(codes, self.chunks, self.transform, self.texts), self.chunks
        guesses.learn(
            train,
            self.embeddings.train,
            _GUESSING_STEPS,
            self.seed,
            self.folder / "guess.safetensors",
            title=f"{self.title}, a first guess",
            quiet=self.quiet,
        )
        return guesses if guesses.are_worth_reading(validation, self.embeddings.validation) else None

    def _kept(self, number: int) -> Round:
        """A round as it is in the folder, trained if it is not there; what validation text costs it is kept beside."""
        path, num_pairs = self.folder / f"round-{number}.safetensors", self._steps(number) * self.cfg.batch_pairs
        if not path.exists():
            state = self._trained(number).state_dict()
            with atomic_file(path) as temporary:
                save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        weights = load_file(path)
        content = hashlib.sha256(self.validation.tokens.tobytes()).hexdigest()[:16]
        measured = path.with_name(f"{path.stem}-{content}.npy")
        if not measured.exists():
            reader = self._fresh()
            reader.load_state_dict(weights)
            nats = self.nats(reader, self.chunks.validation, self.embeddings.validation)
            with atomic_file(measured) as temporary, temporary.open("wb") as file:
                np.save(file, nats)
        return Round(num_pairs, weights, np.load(measured, allow_pickle=False))

    def _trained(self, number: int) -> LanguageReader:
        reader = self._fresh()
        title = f"{self.title}, round {number + 1}"
        if number:
            reader.load_state_dict(self.round(number - 1).weights)
        else:
            self._learn_words(reader)
        begin = self._steps(number - 1) if number else 0
        batches = _Batches(self, self.train, begin, self._steps(number), self.cfg.batch_pairs, guessed=True)
        reading = Objective(
            "reading",
            lambda reader, batch: reader(*batch).sum(),
            count=lambda batch: int(batch.mask[:, self.num_given :].sum()),
        )
        self._fit(reader, reading, batches, self.cfg.learning_rate, number + 1, title)
        return reader

    def _steps(self, number: int) -> int:
        """Steps up to the end of a round."""
        return max(1, self.num_steps // 2) * 2**number

    def _learn_words(self, reader: LanguageReader) -> None:
        """Fit the hint to which tokens the training texts have, and where."""
        tokens, mask = self.train.tokens, self.train.mask
        types, number = np.unique(tokens[mask], return_inverse=True)
        numbered = np.zeros_like(tokens)
        numbered[mask] = number
        log_probs = torch.from_numpy(unconditional_log_probs(number, len(types))).float()
        words, num_rows = Words(reader, torch.from_numpy(types), log_probs), min(_WORDS_PAIRS, len(tokens))
        num_steps = _WORDS_EPOCHS * len(tokens) // num_rows
        batches = _Batches(self, self.train._replace(tokens=numbered), 0, num_steps, num_rows, guessed=False)
        self._fit(words, _WORDS, batches, _WORDS_RATE, 0, f"{self.title}, its words")

    def _fit(
        self, module: nn.Module, objective: Objective, batches: "_Batches", rate: float, stage: int, title: str
    ) -> None:
        per_step = max(1, batches.num_tokens // batches.num_steps)
        training = TrainingConfig(
            num_tokens=batches.num_tokens,
            batch_tokens=per_step,
            optimizer=AdamW(learning_rate=rate, betas=(0.9, 0.98)),
            warmup_tokens=min(_WARMUP_STEPS, batches.num_steps // 5) * per_step,
            decay_fraction=1.0 if objective is _WORDS else 0.5,
            checkpoint_tokens=_CHECKPOINT_STEPS * per_step,
            seed=self.seed,
        )
        folder = RunFolder(self.folder, self.folder.name, stage)
        fit(module, batches, objective, training, folder=folder, title=title, quiet=self.quiet)


class _Batches:
    """Pairs by the number of a step from `begin` on; each once, in a random order, before any comes again.

    Where they are `guessed`, what is guessed of each comes first: worked out for a step's pairs, since a course reads
    few of many.
    """

    def __init__(self, course: Course, chunks: Chunks, begin: int, end: int, num_rows: int, *, guessed: bool) -> None:
        self.course, self.chunks, self.begin, self.num_rows = course, chunks, begin, num_rows
        self.num_steps, self.guessed = end - begin, guessed
        self.order = np.random.default_rng(course.seed).permutation(len(chunks.tokens))
        lengths = chunks.mask.sum(1) + (course.num_given if guessed else 0)
        self.num_tokens = int(sum(lengths[self.rows(step)].sum() for step in range(self.num_steps)))

    def rows(self, step: int) -> np.ndarray:
        """Which training pairs."""
        return self.order[((self.begin + step) * self.num_rows + np.arange(self.num_rows)) % len(self.order)]

    def __call__(self, step: int) -> Batch:
        course, rows = self.course, self.rows(step)
        generator = torch.Generator().manual_seed(course.seed * 1_000_003 + self.begin + step)
        texts, vectors = self.chunks.rows(rows), course.embeddings.train[rows]
        longest = int(texts.mask.sum(1).max())
        texts = texts._replace(tokens=texts.tokens[:, :longest], mask=texts.mask[:, :longest])
        if self.guessed:
            texts = course.after_guess(texts, vectors)
        return Batch.of(texts, course.transform(vectors, generator))
