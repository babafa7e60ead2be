"""Memory readers: predict next tokens from memories of the past, and regenerate stretches of them."""

import os
import sys
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memlm.config import AS_TOKENS, MemoryReaderRecipe, PretrainedDecoder, Stage
from memlm.data.chunks import LazyChunks, Windows, gather_windows, lazy_chunks
from memlm.data.facts import FactTexts
from memlm.data.token_store import PreparedData
from memlm.evaluation.information import unconditional_log_probs
from memlm.models.load_pretrained import tokenizer_of, transformers_tokenizer, weights_fingerprint
from memlm.models.memory_reader import MemoryReader, ReaderBatch
from memlm.text.chats import has_chats
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.reader_losses import reader_losses, whole_windows
from memlm.text.reader_prompts import encoder_of
from memlm.text.readings import Readings
from memlm.training.chats import Chats, ChatSampler
from memlm.training.model_training import Evaluator, ModelTraining, Sampler
from memlm.training.objectives import Objective, reading

_COUNTED_TOKENS = 1_000_000
"""Tokens of the corpus by which the language model's tokens are counted as common or rare."""
_VALIDATION_WINDOWS = 16


class MemoryReaderTraining(ModelTraining):
    """A memory reader's training.

    Raises:
        ValueError: the encoder is not there, is another one, or has another tokenizer than the data.
    """

    recipe: MemoryReaderRecipe
    text_model = TextMemoryReader
    # A step without memories has no use for what reads them.
    all_weights_used = False

    def __init__(self, recipe: MemoryReaderRecipe, prepared: PreparedData) -> None:
        # Processes that fork cannot use this one's GPU.
        device = "cpu" if recipe.stages[-1].training.workers else _own_device()
        encoder, decoder = encoder_of(recipe.model, device), recipe.model.decoder
        if encoder.tokenizer.fingerprint != prepared.tokenizer.fingerprint:
            raise ValueError(
                f"memories of {recipe.model.encoder!r} are of its own tokens: set data.tokenizer.name to it"
            )
        tokenizer = tokenizer_of(decoder.name, decoder.revision)
        begin = tuple(tokenizer.special_tokens[0])
        self.begins_with = f" {encoder.encoder_fingerprint} {weights_fingerprint(decoder.name, decoder.revision)}"
        cfg = replace(recipe.model, encoder_fingerprint=encoder.encoder_fingerprint, begin=begin)
        super().__init__(replace(recipe, model=cfg), prepared)
        text = prepared.tokenizer.decode(prepared.splits["train"].tokens[:_COUNTED_TOKENS].tolist())
        surprisal = -unconditional_log_probs(tokenizer.encode(text), tokenizer.vocab_size)
        self.readings = Readings(config=cfg, encoder=encoder, model_tokenizer=tokenizer, surprisal=surprisal)

    def fresh(self, stage: Stage) -> nn.Module:
        """The language model with adapters that do nothing yet, which knows how rare its tokens are."""
        model = super().fresh(stage)
        assert isinstance(model, MemoryReader)
        surprisal, number = self.readings.surprisal, len(model.surprisal)
        if path := self.recipe.model.window.begin_with:
            before = self._reader(path)
            decide = ("source", "encoder_fingerprint", "decoder", "hidden_dim")
            others = [name for name in decide if getattr(before.config, name) != getattr(self.recipe.model, name)]
            if others:
                raise ValueError(f"{path} is nothing to begin with: its {', '.join(others)} is not this reader's")
            model.load_state_dict(before.model.state_dict())
        # Some models have more embeddings than tokens.
        model.surprisal.copy_(torch.from_numpy(np.pad(surprisal, (0, max(0, number - len(surprisal))))[:number]))
        model.config = replace(model.config, decoder_fingerprint=model.decoder.base_fingerprint())
        return model

    def sampler(self, stage: Stage, model: nn.Module | None = None) -> Sampler:
        """Random windows of the training split; each step draws a ratio, and how many memories there are."""
        cfg, window = stage.training, self.recipe.model.window
        chunks = lazy_chunks(self.prepared.splits["train"], self.recipe.model.shape.chunk_len)
        num_rows = cfg.batch_tokens // window.predicted_tokens
        facts = self._facts() if window.facts_fraction else None
        places = [_places_before(chunks, number) for number in range(1, window.max_memories + 1)]
        chats = self._chats(stage, chunks, places, facts, model)

        def batch(step: int) -> ReaderBatch:
            random = np.random.default_rng([cfg.seed, step, 3])
            # A text that is only regenerated has one memory.
            number = int(random.integers(window.max_memories)) + 1 if "causal" in stage.weights.terms else 1
            first = places[number - 1]
            windows = gather_windows(chunks, first[random.integers(len(first), size=num_rows)], number + 1)
            ratio = self._ratio(random)
            if chats and ratio is not None and number <= chats.most_chunks and random.random() < window.chat_fraction:
                asked = chats.sample(num_rows, number, random, seed=cfg.seed, step=step)
                return self._batch(asked.windows, [*stage.weights.terms], ratio, random, asked)
            if facts and (asking := int(random.binomial(num_rows, window.facts_fraction))):
                # In place of some of the windows.
                windows.tokens[:asking] = facts.practice(asking, number + 1, seed=cfg.seed, step=step)
                windows.mask[:asking] = True
            return self._batch(windows, [*stage.weights.terms], ratio, random)

        return batch

    def evaluator(self, stage: Stage) -> Evaluator:
        """The next-token loss at each ratio, and that of regeneration, teacher-forced, on validation windows."""
        windows = whole_windows(self.prepared.splits["validation"], self.recipe.model, _VALIDATION_WINDOWS)
        terms = [term for term in stage.weights.terms if term != "divergence"]

        def evaluate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, MemoryReader)
            return reader_losses(model, self.readings, windows, terms)

        return evaluate

    def objective(self, stage: Stage) -> Objective:
        """What a stage trains for; for the divergence the teacher is loaded."""
        path = self.recipe.model.window.teacher
        if not stage.weights.divergence:
            return super().objective(stage)
        if path is None:
            raise ValueError("the divergence has a weight and no teacher: set model.window.teacher to a checkpoint")
        teacher = self._reader(path).to(_own_device() or "cpu")
        return reading(stage.weights, teacher.model)

    def _reader(self, path: str) -> TextMemoryReader:
        """Another reader of the same language model.

        Raises:
            ValueError: it is of another one.
        """
        found = TextMemoryReader.from_pretrained(path, device="cpu")
        require_same_base(path, found.config.decoder, self.recipe.model.decoder)
        return found

    def _chats(
        self,
        stage: Stage,
        chunks: LazyChunks,
        places: list[NDArray[np.int64]],
        facts: FactTexts | None,
        model: nn.Module | None,
    ) -> ChatSampler | None:
        """Chats about the training split, where a stage has any, and the language model's chats have a format."""
        cfg = self.recipe.model
        tokenizer = transformers_tokenizer(cfg.decoder.name, cfg.decoder.revision)
        if not cfg.ratios or not cfg.window.chat_fraction or not stage.weights.causal or not has_chats(tokenizer):
            return None
        most = model.decoder.max_positions if isinstance(model, MemoryReader) else sys.maxsize
        return ChatSampler(cfg, self.prepared, chunks, places, facts, _own_device() or "cpu", most)

    def _facts(self) -> FactTexts:
        """Texts with facts in them."""
        chunk_len = self.recipe.model.shape.chunk_len
        return FactTexts(self.prepared.tokenizer, self.prepared.splits["train"].tokens, chunk_len=chunk_len)

    def _ratio(self, random: np.random.Generator) -> int | None:
        """A step's ratio; None for one without memories."""
        cfg = self.recipe.model
        if not cfg.ratios or (AS_TOKENS not in cfg.ratios and random.random() < cfg.window.unread_fraction):
            return None
        return self._memory_ratio(random)

    def _memory_ratio(self, random: np.random.Generator) -> int:
        """A ratio; the smaller, the oftener: those are learned first, and help the others."""
        cfg = self.recipe.model
        oftenness = np.array([ratio or cfg.shape.chunk_len for ratio in cfg.ratios]) ** -0.5
        return int(random.choice(cfg.ratios, p=oftenness / oftenness.sum()))

    def _batch(
        self,
        windows: Windows,
        terms: list[str],
        ratio: int | None,
        random: np.random.Generator,
        chats: Chats | None = None,
    ) -> ReaderBatch:
        """What these windows are for each term of the loss; regeneration always has memories."""
        found, readings, window = self.readings.given_back(windows), {}, self.recipe.model.window
        if "causal" in terms:
            rows = self.readings.answers(found, *chats[1:]) if chats else self.readings.continuations(windows, found)
            reads = ratio not in (AS_TOKENS, None)
            expanded = reads and random.random() < window.expanded_fraction
            misplaced = reads and not chats and random.random() < window.misplaced_fraction
            if misplaced:
                rows = [row._replace(past=other.past) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
            # Without memories, or after another text's, there is nothing to teach.
            whole = "divergence" in terms and ratio is not None and not misplaced
            readings["causal"] = self.readings.predictions(rows, ratio, expanded=expanded, whole=whole)
        if "retention" in terms:
            regenerated = self._memory_ratio(random) if ratio is None else ratio
            readings["retention"] = self.readings.regenerations(self.readings.stretches(found, random), regenerated)
        return ReaderBatch(readings)


def require_same_base(path: str, found: PretrainedDecoder, own: PretrainedDecoder) -> None:
    """Refuse a reader of another language model, whatever folders both lie in."""
    if found.name != own.name and len({weights_fingerprint(each.name, each.revision) for each in (found, own)}) > 1:
        raise ValueError(f"{path} adapts {found.name}, and this reader {own.name}: adapt the same model")


def _places_before(chunks: LazyChunks, number: int) -> NDArray[np.int64]:
    """The chunks that so many others of the same document follow.

    Raises:
        ValueError: there are none.
    """
    found = np.flatnonzero(chunks.document[:-number] == chunks.document[number:])
    if not len(found):
        raise ValueError(f"no text has {number + 1} chunks of {chunks.chunk_len} tokens: give longer texts")
    return found


def _own_device() -> str | None:
    """This process's GPU, where there are any."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else None
