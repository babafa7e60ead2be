"""What experiments at the paper's sizes have in common: which machine they need, and how their models are read.

Launched on several processes (torchrun), an experiment trains and no more. In one process it measures what was trained,
after training what was not.
"""

from dataclasses import replace
from pathlib import Path

import torch

from memlm.config import DataConfig, HubCorpus, ProbeConfig, ReadingConfig, Recipe
from memlm.data.cache import default_cache
from memlm.data.tokenizer import Tokenizer
from memlm.probing.encoder_probe import EncoderProbe
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.results import ProbeRow
from memlm.probing.texts import ProbeTexts
from memlm.training.footprint import require_fits, work
from memlm_evidence.benchmarks.paper import GPU, GPU_FLOPS, UTILIZATION, training_of

_MOST_WITHOUT_GPU = 1e17
"""Operations: a day or two of a good processor's."""
_READ_BYTES = 1_000_000_000
"""Of text that readers are trained and measured on."""


def require_machine(recipe: Recipe, folder: Path) -> None:
    """Check that a model can be trained here, unless it has been, before anything is begun.

    Raises:
        ValueError: it does not fit into memory, or would take years without a GPU; says what it needs.
    """
    if (folder / "model").exists():
        return
    require_fits(recipe)
    cfg, objective, row_shape = training_of(recipe)
    operations = work(recipe.model, objective, row_shape).flops_per_token * cfg.num_tokens
    if operations > _MOST_WITHOUT_GPU and not torch.accelerator.is_available():
        hours = operations / (GPU_FLOPS * UTILIZATION) / 3600
        raise ValueError(
            f"{recipe.name} takes {operations:.1e} operations, some {hours:,.0f} hours of one {GPU}, and this "
            "machine has no GPU; run it where there are some, torchrun --nproc_per_node 8 -m memlm reproduce --preset "
            "paper, or take another preset (memlm bench paper tells what each model takes)"
        )


def texts_of(data: DataConfig, tokenizer: Tokenizer, reading: ReadingConfig) -> ProbeTexts:
    """The beginning of a corpus, which is enough for readers."""
    corpus = data.corpus
    if isinstance(corpus, HubCorpus):
        corpus = replace(corpus, max_bytes=min(corpus.max_bytes, _READ_BYTES))
    return ProbeTexts.of_splits(replace(data, corpus=corpus), tokenizer, reading.test_fraction)


def read(encoder: FrozenEncoder, texts: ProbeTexts, chunk_len: int, reading: ReadingConfig, seed: int) -> ProbeRow:
    """What a reader finds in an encoder's default view."""
    cfg = ProbeConfig(chunk_lens=(chunk_len,), seeds=(seed,), reading=reading)
    (row,) = EncoderProbe(encoder, texts, cfg, chunk_len, cache=default_cache(), quiet=False).rows()
    return row
