"""Objectives: a model and a batch → summed nats, and what they are counted over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memlm.config import ModelConfig, Stage, Weights
from memlm.models.batch import Batch, next_token_nats, token_nats
from memlm.models.memory_reader import MemoryReader, ReaderBatch
from memlm.nn.mixers import Mask, Tokens
from memlm.nn.pooling import last_token


@dataclass(frozen=True)
class Objective:
    """What a model is trained for; a sum with a count, so that no way of portioning a batch changes the mean."""

    name: str
    nats: Callable[[nn.Module, Any], Tensor]
    """The loss, summed over what is counted; or one such sum for each term, side by side."""
    count: Callable[[Any], int] = lambda batch: batch.num_tokens
    """How many tokens (or texts) a batch's loss is summed over; of the batch alone."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the terms, by name, where there are several."""
    term_counts: Callable[[Any], list[int]] | None = None
    """What each term is summed over, where that differs."""
    unit: str = "nats"
    """Of the loss."""

    def counts(self, batch: Any) -> list[int]:
        """What each term is summed over, at least 1."""
        counts = self.term_counts(batch) if self.term_counts else [self.count(batch)] * len(self.terms)
        return [max(count, 1) for count in counts]

    @property
    def terms(self) -> Mapping[str, float]:
        """Every term's weight, by name."""
        return self.weights or {self.name: 1.0}


def _retention_nats(model: nn.Module, batch: Batch) -> Tensor:
    found = model(*batch)
    nats = token_nats(found.logits, batch).sum()
    expected = getattr(found, "expected", None)
    return nats if expected is None else nats + token_nats(expected, batch).sum()


def _causal_nats(model: nn.Module, batch: Batch) -> Tensor:
    return next_token_nats(model(batch.tokens, batch.mask), batch).sum()


RETENTION = Objective("retention", _retention_nats)
"""Regenerate each chunk from its memory alone (paper, §2; the copy task with blank inputs). Where an autoencoder has a
`context`, also from the memory and the tokens before, both in one sum."""

CAUSAL = Objective("causal", _causal_nats, count=lambda batch: int(batch.mask[:, 1:].sum()))
"""Predict each next token of a text."""


def objective_of(cfg: ModelConfig, stage: Stage) -> Objective:
    """What a stage trains a model of this kind for."""
    if cfg.kind == "memory_model":
        return combined(stage.weights)
    if cfg.kind == "memory_reader":
        return reading(stage.weights)
    (term,) = stage.weights.terms
    return {"retention": RETENTION, "causal": CAUSAL, "retrieval": retrieval(stage.retrieval_temperature)}[term]


def combined(weights: Weights) -> Objective:
    """Train a memory model on all terms that have a weight, from one pass of its encoder (paper, §4)."""
    terms = weights.terms

    def nats(model: nn.Module, batch: Batch) -> Tensor:
        predictions = model(*batch, terms=terms)
        return torch.stack([token_nats(getattr(predictions, term), batch).sum() for term in terms])

    return Objective("combined", nats, weights=terms)


def reading(weights: Weights, teacher: MemoryReader | None = None) -> Objective:
    """Train a reader to predict next tokens from memories, as a teacher predicts them that sees the past as tokens, and
    to give stretches of them back."""
    terms = weights.terms

    def counts(batch: ReaderBatch) -> list[int]:
        of = {"divergence": "causal"}
        return [int(batch.readings[of.get(term, term)].scored.sum()) for term in terms]

    def nats(model: nn.Module, batch: ReaderBatch) -> Tensor:
        return model(batch if teacher is None else taught(batch, teacher), [*terms])

    return Objective("reading", nats, weights=terms, term_counts=counts)


@torch.no_grad()
def taught(batch: ReaderBatch, teacher: MemoryReader) -> ReaderBatch:
    """A batch with what a teacher says of the texts whose whole past it can read."""
    readings = dict(batch.readings)
    for term, reading in batch.readings.items():
        if reading.whole is not None:
            logits = teacher.scored_logits(reading._replace(past=reading.whole))
            readings[term] = reading._replace(taught=logits.float().log_softmax(-1))
    return ReaderBatch(readings)


def retrieval(temperature: float) -> Objective:
    """Tell which texts belong together, by the cosine of their last-token states (InfoNCE, van den Oord et al. 2018).

    A batch's rows are cut into two texts of two thirds of their length, which overlap by a third (the random crops of
    Contriever, Izacard et al. 2022); each row's second text is to be told from the other rows' by its first. The model
    needs `states`, as a `LayeredModel`.
    """

    def nats(model: nn.Module, batch: Batch) -> Tensor:
        batch = batch.rows(_has_both(batch.mask), batch.tokens.device)
        length = crop_len(batch.tokens.shape[1])
        first = _direction(model, batch.tokens[:, :length], batch.mask[:, :length])
        second = _direction(model, batch.tokens[:, -length:], batch.mask[:, -length:])
        similarity = first @ second.T / temperature
        own = torch.arange(len(similarity), device=similarity.device)
        return F.cross_entropy(similarity, own, reduction="sum")

    return Objective("retrieval", nats, count=lambda batch: int(_has_both(batch.mask).sum()))


def crop_len(row_len: int) -> int:
    """Tokens of each of the two texts that a row gives in retrieval training."""
    return row_len * 2 // 3


def _has_both(mask: Mask) -> Bool[Tensor, " row"]:
    """Which rows have any token in their second text; a document may end in the first."""
    return mask[:, -crop_len(mask.shape[1])]


def _direction(model: nn.Module, tokens: Tokens, mask: Mask) -> Float[Tensor, "pair dim"]:
    (states,) = model.states(model.embed_tokens(tokens), mask, [model.num_layers])  # type: ignore[operator]
    return F.normalize(last_token(states, mask).float(), dim=-1)
