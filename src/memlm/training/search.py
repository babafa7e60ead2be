"""What memories are searched by: a network that learns, from text alone, what a sentence encoder gives for it."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from memlm.config import AutoencoderRecipe, Stage
from memlm.data.aligned import AlignedSplit
from memlm.data.chunks import lazy_chunks, sample_spans
from memlm.data.token_store import PreparedData
from memlm.models.autoencoder import SearchEncoder
from memlm.models.load_pretrained import load_pretrained
from memlm.models.pretrained import SentenceModel
from memlm.nn.linear import orthogonal
from memlm.nn.mixers import Mask, Tokens
from memlm.runtime.progress import track
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import based_on
from memlm.text.model import default_device
from memlm.training.model_training import (
    MAX_VALIDATION_CHUNKS,
    Evaluator,
    ModelTraining,
    Sampler,
    evenly_spaced,
    require_fitting,
)
from memlm.training.objectives import Objective

_REDUCTION_STEP = 2**31
"""Of the texts by which the teacher's vectors are reduced; training never gets so far."""
_TEACHER_ROWS = 1024
"""Texts that the teacher reads at once, outside of training."""
_TEXTS_AT_ONCE = 64
_LONG_BYTES = 4_000_000
"""Of text that is worth a progress bar."""
_SHORTEST = 2
"""Tokens of a short text, before it is made whole words."""
NEAREST = 10


class SearchBatch(NamedTuple):
    """Texts as tokens, and as tokens of the teacher."""

    tokens: Tokens
    mask: Mask
    teacher_tokens: Int[Tensor, "batch other"]
    teacher_mask: Mask

    def rows(self, index: slice | Tensor, device: torch.device | str = "cpu") -> "SearchBatch":
        """Some of the texts, on a device."""
        return SearchBatch._make(part[index].to(device, non_blocking=True) for part in self)

    @property
    def num_tokens(self) -> int:
        """Real tokens."""
        return int(self.mask.sum())


class Teacher:
    """A frozen sentence encoder.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, name: str) -> None:
        model, self.tokenizer = load_pretrained(name)
        if not isinstance(model, SentenceModel):
            raise ValueError(f"{name} has no vector for a whole text: give a sentence-transformers model")
        self.model, self.fingerprint = model, model.fingerprint

    @torch.no_grad()
    def vectors(self, batch: SearchBatch) -> Float[Tensor, "batch teacher_dim"]:
        """Of length 1."""
        longest = self.model.max_sentence_len
        tokens, mask = batch.teacher_tokens[:, :longest], batch.teacher_mask[:, :longest]
        return F.normalize(self.model.to(tokens.device).sentence_embedding(tokens, mask).float(), dim=-1)

    def embed(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Float[Tensor, "text teacher_dim"]:
        """The vectors of any texts; what is longer than the teacher reads is cut, as sentence-transformers cuts it."""
        tokens = [ids[: self.model.max_sentence_len] for ids in self.tokenizer.encode_batch(texts)]
        found = torch.zeros(len(texts), 0)
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            some = order[start : start + _TEXTS_AT_ONCE]
            ids = pad_sequence([torch.from_numpy(tokens[place]).long() for place in some], batch_first=True)
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(tokens[place]) for place in some])[:, None]
            vectors = self.vectors(SearchBatch(ids, mask, ids, mask).rows(slice(None), device)).cpu()
            found = vectors.new_zeros(len(texts), vectors.shape[1]) if start == 0 else found
            found[some] = vectors
        return found

    def all_vectors(self, batch: SearchBatch, device: torch.device | str) -> Float[Tensor, "batch teacher_dim"]:
        """The same of many texts, some at a time, on the CPU."""
        parts = torch.split(torch.arange(len(batch.tokens)), _TEACHER_ROWS)
        return torch.cat([self.vectors(batch.rows(part, device)).cpu() for part in parts])


def likeness(teacher: Teacher) -> Objective:
    """Be near the teacher's vectors, reduced to as many dimensions: the cosine distance."""

    def distance(model: Any, batch: SearchBatch) -> Tensor:
        reduction = getattr(model, "module", model).reduction  # of a model in several processes
        target = F.normalize((teacher.vectors(batch) @ reduction).float(), dim=-1)
        made = F.normalize(model(batch.tokens, batch.mask)[:, 0].float(), dim=-1)
        return (1 - (made * target).sum(-1)).sum()

    return Objective("likeness", distance, count=lambda batch: len(batch.tokens), unit="distance")


def principal_directions(vectors: Float[Tensor, "text dim"], number: int) -> Float[Tensor, "dim number"]:
    """The directions that hold most of vectors, not centred: products of vectors are best kept by them.

    Turned at random: each then holds as much as any other, and rounding to few bits takes as little from all.
    """
    return torch.linalg.eigh(vectors.T @ vectors).eigenvectors[:, -number:] @ orthogonal(number, number)


class SearchTraining(ModelTraining):
    """The training of a `SearchEncoder`, beside an autoencoder that stays as it is.

    Raises:
        ValueError: the autoencoder is another than the recipe's model; or the teacher is no sentence encoder.
    """

    recipe: AutoencoderRecipe
    text_model = TextAutoencoder

    def __init__(self, recipe: AutoencoderRecipe, prepared: PreparedData) -> None:
        super().__init__(recipe, prepared)
        assert recipe.model.search is not None
        assert recipe.encoder_from is not None
        self.base = TextAutoencoder.from_pretrained(recipe.encoder_from, device="cpu")
        begun = self.base.config.search
        theirs, wanted = (replace(cfg, search=None).leaves() for cfg in (self.base.config, recipe.model))
        require_fitting(recipe.encoder_from, theirs, wanted, self.base.tokenizer, prepared)
        self.teacher = Teacher(recipe.model.search.teacher)
        search = recipe.model.search if begun else based_on(recipe.model.search, recipe.encoder_from)
        self.search = replace(search, teacher_fingerprint=self.teacher.fingerprint)
        if begun not in (None, self.search):
            raise ValueError(
                f"{recipe.encoder_from} has learned from another teacher, or in another form, than model.search says"
            )
        self.begins_with = f" {self.base.encoder_fingerprint} {self.teacher.fingerprint}"

    def build(self) -> SearchEncoder:
        """What is trained, without the text's encoder and decoder: new, or where an earlier training ended."""
        if self.base.model.search is not None:
            return copy.deepcopy(self.base.model.search).train().requires_grad_()
        torch.manual_seed(self.recipe.seed)
        model = SearchEncoder(self.search, self.recipe.model.shape)
        model.spell(self.prepared.tokenizer.token_bytes)
        texts = self._sampled(self.train_texts, self.recipe.stages[0], _REDUCTION_STEP, self.search.reduced_from)
        vectors = self.teacher.all_vectors(texts, default_device())
        if vectors.shape[1] != self.search.teacher_dim:
            raise ValueError(
                f"{self.search.teacher} has {vectors.shape[1]} dimensions: set model.search.teacher_dim to it"
            )
        model.reduction.copy_(principal_directions(vectors, self.search.dim))
        return model

    @cached_property
    def train_texts(self) -> AlignedSplit:
        """The training split, as the teacher reads it, too."""
        return self._aligned("train")

    def _aligned(self, name: str) -> AlignedSplit:
        split = self.prepared.splits[name]
        total, title = int(split.document_bytes.sum()), f"Tokenizing {name} for the teacher"
        with track(title, total=total, unit="bytes", quiet=total < _LONG_BYTES) as advance:
            return AlignedSplit.of(split, self.prepared.tokenizer, self.teacher.tokenizer, advance)

    def _sampled(self, texts: AlignedSplit, stage: Stage, step: int, number: int) -> SearchBatch:
        """Random texts; short ones, as queries are, consist of whole words."""
        cfg, chunk_len = stage.training, self.recipe.model.shape.chunk_len
        draw: Any = {"seed": cfg.seed, "step": step, "short_fraction": cfg.short_fraction, "shortest": _SHORTEST}
        spans = sample_spans(texts.split, chunk_len, number, **draw)
        return _read(texts, *texts.whole_words(*spans, chunk_len), chunk_len)

    def sampler(self, stage: Stage, model: nn.Module | None = None) -> Sampler:
        """Random texts of the training split."""
        number, texts = stage.training.batch_tokens // self.recipe.model.shape.chunk_len, self.train_texts
        return lambda step: self._sampled(texts, stage, step, number)

    def objective(self, stage: Stage) -> Objective:
        """Likeness to the teacher."""
        return likeness(self.teacher)

    def evaluator(self, stage: Stage) -> Evaluator:
        """The cosine to the teacher, of whole chunks and of short texts, and whether neighbours are the same."""
        texts, chunk_len = self._aligned("validation"), self.recipe.model.shape.chunk_len
        begin = lazy_chunks(texts.split, chunk_len).begin
        begin = begin[evenly_spaced(len(begin), MAX_VALIDATION_CHUNKS)]
        whole = _read(texts, begin, np.full(len(begin), chunk_len), chunk_len)
        all_short = replace(stage, training=replace(stage.training, short_fraction=1.0))
        short = self._sampled(texts, all_short, 0, len(begin))
        device = default_device()
        taught = [self.teacher.all_vectors(batch, device) for batch in (whole, short)]

        @torch.no_grad()
        def evaluate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, SearchEncoder)
            place = model.reduction.device
            made = [model(*batch.rows(slice(None), place)[:2])[:, 0].float().cpu() for batch in (whole, short)]
            targets = [vectors @ model.reduction.cpu() for vectors in taught]
            cosines = [float(F.cosine_similarity(one, other).mean()) for one, other in zip(made, targets, strict=True)]
            return {
                "cosine": cosines[0],
                "short_cosine": cosines[1],
                "same_neighbours": _same_neighbours(made[0], taught[0]),
                "reduced_same_neighbours": _same_neighbours(targets[0], taught[0]),
            }

        return evaluate

    def finish(self, model: nn.Module, provenance: dict[str, Any]) -> TextAutoencoder:
        """The autoencoder with what was trained beside it."""
        assert isinstance(model, SearchEncoder)
        return self.base.with_search(self.search, model, provenance)


def _read(texts: AlignedSplit, begin: NDArray[np.int64], length: NDArray[np.int64], chunk_len: int) -> SearchBatch:
    own, other = texts.read(begin, length, chunk_len)
    return SearchBatch(*(torch.from_numpy(part) for part in (own.tokens, own.mask, other.tokens, other.mask)))


def _same_neighbours(made: Float[Tensor, "text dim"], taught: Float[Tensor, "text teacher_dim"]) -> float:
    """The share of each text's nearest, among these, that are so in both spaces."""
    found = []
    for vectors in (made, taught):
        unit = F.normalize(vectors, dim=-1)
        found.append((unit @ unit.T).fill_diagonal_(-2).topk(min(NEAREST, len(unit) - 1)).indices)
    same = (found[0][:, :, None] == found[1][:, None]).any(-1)
    return float(same.float().mean())
