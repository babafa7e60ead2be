"""Memory readers: predict next tokens from memories of the past, and regenerate stretches of them."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memlm.config import AS_TOKENS, MemoryReaderRecipe, Stage
from memlm.data.chunks import Windows, all_windows, lazy_chunks, sample_windows, split_into_chunks
from memlm.data.token_store import PreparedData
from memlm.models.decoded import decode
from memlm.models.load_pretrained import tokenizer_of
from memlm.models.memory_reader import MemoryReader, ReaderBatch, Reading, lengths_mask, pad
from memlm.nn.pooling import MemoryVectors
from memlm.text.memory_reader import TextMemoryReader, encoder_of
from memlm.text.past import Past, groups_of, past_of
from memlm.training.model_training import Evaluator, ModelTraining, Sampler, evenly_spaced

_COUNTED_TOKENS = 1_000_000
"""Tokens of the corpus by which the language model's tokens are counted as common or rare."""
_MAX_VALIDATION_WINDOWS = 16


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
        cfg = recipe.model
        self.encoder, self.model_tokenizer = encoder_of(cfg), tokenizer_of(cfg.decoder.name, cfg.decoder.revision)
        self.begins_with = f" {self.encoder.encoder_fingerprint}"
        cfg = replace(cfg, encoder_fingerprint=self.encoder.encoder_fingerprint)
        super().__init__(replace(recipe, model=cfg), prepared)
        if self.encoder.tokenizer.fingerprint != prepared.tokenizer.fingerprint:
            raise ValueError(f"memories of {cfg.encoder!r} are of its own tokens: set data.tokenizer.name to it")
        self.surprisal = self._surprisal()

    def fresh(self, stage: Stage) -> nn.Module:
        """The language model with adapters that do nothing yet, which knows how rare its tokens are."""
        model = super().fresh(stage)
        assert isinstance(model, MemoryReader)
        number = len(model.surprisal)
        model.surprisal.copy_(torch.from_numpy(np.pad(self.surprisal, (0, number))[:number]))
        return model

    def sampler(self, stage: Stage, model: nn.Module | None = None) -> Sampler:
        """Random windows of the training split; each step draws a ratio, and how many memories there are."""
        cfg, window = stage.training, self.recipe.model.window
        chunks = lazy_chunks(self.prepared.splits["train"], self.recipe.model.shape.chunk_len)
        num_rows = cfg.batch_tokens // window.predicted_tokens

        def batch(step: int) -> ReaderBatch:
            random = np.random.default_rng([cfg.seed, step, 3])
            number = int(random.integers(1, window.max_memories + 1))
            windows = sample_windows(chunks, number + 1, num_rows, seed=cfg.seed, step=step)
            return self.batch(windows, [*stage.weights.terms], self._ratio(random), random)

        return batch

    def _ratio(self, random: np.random.Generator) -> int | None:
        """A step's ratio; None for one without memories."""
        cfg = self.recipe.model
        if not cfg.ratios or (AS_TOKENS not in cfg.ratios and random.random() < cfg.window.unread_fraction):
            return None
        return int(random.choice(cfg.ratios))

    def batch(self, windows: Windows, terms: list[str], ratio: int | None, random: np.random.Generator) -> ReaderBatch:
        """What these windows are for each term of the loss; without memories there is nothing to regenerate from."""
        found = self._given_back(windows)
        readings = {}
        if "causal" in terms:
            readings["causal"] = self._prediction(windows, found, ratio)
        if "retention" in terms:
            regenerated = int(random.choice(self.recipe.model.ratios)) if ratio is None else ratio
            readings["retention"] = self._regeneration(found, regenerated, random)
        return ReaderBatch(readings)

    def evaluator(self, stage: Stage) -> Evaluator:
        """The next-token loss at each ratio, and how much is regenerated, teacher-forced, on validation windows."""
        cfg = self.recipe.model
        split = split_into_chunks(self.prepared.splits["validation"], cfg.shape.chunk_len)
        windows = all_windows(split, cfg.window.max_memories + 1)
        windows = windows.rows(np.flatnonzero(windows.mask.all((1, 2))))
        windows = windows.rows(evenly_spaced(len(windows.tokens), _MAX_VALIDATION_WINDOWS))

        def evaluate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, MemoryReader)
            found: dict[str, float] = {}
            for ratio in cfg.ratios or [None]:
                readings = self.batch(windows, [*stage.weights.terms], ratio, np.random.default_rng(0)).readings
                for term, reading in readings.items():
                    with torch.no_grad():
                        nats = model.nats(reading.rows(slice(None), model.ask.device)).cpu()[reading.scored]
                    found[f"{term}_nats_per_token_ratio_{ratio}"] = float(nats.mean())
            for term in stage.weights.terms:
                each = [value for name, value in found.items() if name.startswith(f"{term}_nats_per_token_ratio")]
                found[f"{term}_nats_per_token"] = float(np.mean(each))
            return found

        return evaluate

    def _given_back(self, windows: Windows) -> list[tuple[list[list[int]], MemoryVectors]]:
        """Of each window, the tokens that the memories of all chunks but the last give back, and the memories."""
        model, shape = self.encoder.model, windows.tokens[:, :-1].shape
        tokens, mask = (torch.from_numpy(part[:, :-1]).flatten(0, 1) for part in (windows.tokens, windows.mask))
        with torch.no_grad():
            memory = model.encoder(tokens, mask)
        rows = decode(model, memory, None if self.encoder.holds_length else mask.sum(1)).rows()
        chunks = [row.tokens for row in rows]
        return [
            (chunks[start : start + shape[1]], memory[start : start + shape[1]])
            for start in range(0, len(chunks), shape[1])
        ]

    def _prediction(
        self, windows: Windows, found: list[tuple[list[list[int]], MemoryVectors]], ratio: int | None
    ) -> Reading:
        """The last chunk's first tokens, after memories of those before it and the last tokens of the past."""
        window, last = self.recipe.model.window, windows.tokens.shape[1] - 1
        pasts, texts, scored = [], [], []
        for (chunks, vectors), tokens, mask in zip(found, windows.tokens[:, last], windows.mask[:, last], strict=True):
            whole = self._past([*chunks, tokens[mask].tolist()], vectors)
            now = int(np.searchsorted(whole.chunk, last))
            recent = max(0, now - window.recent_tokens)
            pasts.append(Past(whole.tokens[:recent], whole.chunk[:recent], vectors))
            texts.append(whole.tokens[recent : now + window.predicted_tokens].tolist())
            scored.append([place >= max(now - recent, 1) for place in range(len(texts[-1]))])
        return self._reading(pasts, texts, scored, ratio, regenerates=False)

    def _regeneration(
        self, found: list[tuple[list[list[int]], MemoryVectors]], ratio: int, random: np.random.Generator
    ) -> Reading:
        """A stretch of one memory of each row, given back; of a bare vector, all of it."""
        cfg = self.recipe.model
        bare, longest = cfg.source == "vector", cfg.window.regenerated_tokens
        length = cfg.shape.chunk_len if bare else int(random.integers(max(1, longest // 4), longest + 1))
        pasts = []
        for chunks, vectors in found:
            number = int(random.integers(len(chunks)))
            start = int(random.integers(max(1, len(chunks[number]) - length + 1)))
            pasts.append(self._past([chunks[number][start : start + length]], vectors[number : number + 1]))
        texts = [past.tokens.tolist() for past in pasts]
        return self._reading(pasts, texts, [[True] * len(text) for text in texts], ratio, regenerates=True)

    def _reading(
        self,
        pasts: list[Past],
        texts: list[list[int]],
        scored: list[list[bool]],
        ratio: int | None,
        *,
        regenerates: bool,
    ) -> Reading:
        past = groups_of(pasts, self.recipe.model, self.surprisal, ratio)
        return Reading(past, pad(texts), lengths_mask(texts), pad(scored).bool(), regenerates)

    def _past(self, chunks: list[list[int]], vectors: MemoryVectors) -> Past:
        return past_of(chunks, vectors, self.encoder.tokenizer, self.model_tokenizer)

    def _surprisal(self) -> NDArray[np.float64]:
        """Nats of each of the language model's tokens by its frequency in the training split."""
        tokens = self.prepared.splits["train"].tokens[:_COUNTED_TOKENS]
        text = self.prepared.tokenizer.decode(tokens.tolist())
        counts = np.bincount(self.model_tokenizer.encode(text), minlength=self.model_tokenizer.vocab_size)
        return -np.log((counts + 0.5) / (counts + 0.5).sum())
