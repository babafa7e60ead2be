"""Teaching a trained autoencoder what follows what (`models.context`), so that its memory files are smaller."""

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import NamedTuple

import torch

from memlm.config import ContextConfig, DataConfig
from memlm.data.chunks import sample_chunks, with_end_tokens
from memlm.data.documents import Document, split_of
from memlm.data.token_store import tokenize_documents
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch, token_nats
from memlm.recipes.scale import muon_training
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.loop import fit
from memlm.training.objectives import RETENTION

_BATCH_CHUNKS = 32
_VALIDATION_CHUNKS = 256


class Expectation(NamedTuple):
    """What tokens cost on held-out text, in bits each."""

    from_memory: float
    """From the memory alone."""
    in_context: float
    """From the memory and the tokens before."""


def learn_context(
    model: TextAutoencoder,
    documents: Iterable[Document],
    *,
    context: ContextConfig | None = None,
    num_tokens: int = 4_000_000,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[TextAutoencoder, Expectation]:
    """The model with a context, learned from texts; encoder and decoder stay as they are, and so do its memories.

    Files that it wrote before are still read. Where a recipe has a `context` from the start, memories learn what it
    does not tell.

    Args:
        model: an autoencoder.
        documents: to learn from, but for a few that are held out.
        context: of how many tokens, and how wide.
        num_tokens: to learn from.
        seed: of the first weights and of the order of the texts.
        quiet: show no progress.

    Raises:
        ValueError: the model has a context, or there is too little text to hold any of it out.
    """
    if model.config.context is not None:
        raise ValueError(
            "the model has a context already, without which its files cannot be read: let it learn on, with "
            "memlm train finetuned"
        )
    torch.manual_seed(seed)
    shape = model.config.shape
    context = context or ContextConfig(memory_alone=False)
    taught = Autoencoder(replace(model.config, context=context))
    taught.load_state_dict(model.model.state_dict(), strict=False)  # all but the context
    for name, parameter in taught.named_parameters():
        parameter.requires_grad_(name.startswith("context."))
    listed = list(documents)
    splits = {
        name: tokenize_documents(model.tokenizer, [one for one in listed if split_of(one, DataConfig()) in names])
        for name, names in {"train": ("train",), "held out": ("validation", "test")}.items()
    }
    if not all(len(split.tokens) for split in splits.values()):
        raise ValueError(
            f"of {len(listed)} documents none can be held out to measure with: give "
            "more files, or more text (a file counts as one document for each 32 KB)"
        )

    def batch(name: str, num_chunks: int, step: int) -> Batch:
        draw = {"seed": seed, "step": step, "short_fraction": 0.0}
        chunks = sample_chunks(splits[name], shape.chunk_len, num_chunks, **draw)  # type: ignore[arg-type]
        return Batch.of(with_end_tokens(chunks, shape.vocab_size) if shape.end_token else chunks)

    training = muon_training(num_tokens, _BATCH_CHUNKS * shape.chunk_len, seed, rates=(0.05, 1e-2))
    fit(taught, lambda step: batch("train", _BATCH_CHUNKS, step), RETENTION, training, title="Learning", quiet=quiet)
    found = _measured(taught.eval(), batch("held out", _VALIDATION_CHUNKS, 0))
    about = {"tokens": num_tokens, "seed": seed, "documents": len(listed), "held_out_bits": found._asdict()}
    provenance = {**model.provenance, "context": {**asdict(context), **about}}
    return TextAutoencoder(taught, model.tokenizer, model.unconditional, provenance), found


@torch.no_grad()
def _measured(model: Autoencoder, batch: Batch) -> Expectation:
    bits = torch.zeros(2, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(batch.tokens)), _BATCH_CHUNKS):
        some = batch.rows(rows, next(model.parameters()).device)
        states = model.decoder.states(model.encoder(some.tokens, some.mask))
        logits = model.decoder.head(states), model.expected(states, some.tokens)
        bits += torch.stack([token_nats(each, some).sum().double().cpu() for each in logits]) / math.log(2)
    return Expectation(*(bits / batch.num_tokens).tolist())
