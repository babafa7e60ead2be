"""Everyday text: how much of what people type comes back exactly, by kind and length, and whether errors are marked."""

from dataclasses import asdict
from typing import Any

import torch

from memlm.data.chunks import beginnings
from memlm.data.texts import EVERYDAY_KINDS, evaluation_documents, everyday_documents, everyday_lines
from memlm.data.token_store import tokenize_documents
from memlm.evaluation.checked import FILLS, Checked, calibration, exactness
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance
from memlm.text.autoencoder import TextAutoencoder

_CHARACTERS_PER_TOKEN = 8
"""More than a token has in any of these texts, blanks aside."""


def everyday(
    model: TextAutoencoder, *, num_texts: int = 400, noise: float = 0.0, seed: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Send everyday text through a model's memories; `regenerate` is told nothing but the vectors.

    With `noise`, of this standard deviation, memories are disturbed on the way: are errors marked then?

    Returns:
        `exact_by_fill`, the share of texts that come back exactly, by kind and length in tokens, `intervals_by_fill`,
        and `worst`; `exact_lines`, the same of whole lines (a word, a name, a sentence), without noise;
        `marked_wrong_fraction` and `marked_right_fraction`, of all wrong and right tokens, and `by_confidence`
        (`evaluation.checked`); `novel_token_accuracy`, of a novel, in full chunks, from what the decoder gives back at
        once, without noise.
    """
    if num_texts < 1 or not 0 <= noise < float("inf"):
        raise ValueError(f"num_texts must be positive and noise not negative, not {num_texts} and {noise}")
    torch.manual_seed(seed)
    chunk_len = model.config.shape.chunk_len
    fills = [fill for fill in FILLS if fill <= chunk_len]
    checked: dict[str, dict[int, Checked]] = {kind: {} for kind in EVERYDAY_KINDS}
    total = len(EVERYDAY_KINDS) * num_texts * sum(fills)
    with track("Everyday text", total=total, unit="tokens", quiet=quiet) as advance:
        for kind, row in checked.items():
            documents = everyday_documents(kind, num_texts, _CHARACTERS_PER_TOKEN * chunk_len, seed)
            split = tokenize_documents(model.tokenizer, documents)
            for fill in fills:
                row[fill] = model.check(beginnings(split, chunk_len, fill), noise=noise)
                advance(num_texts * fill, f"{kind} of {fill}")
    measured = {kind: exactness({fill: some.exact for fill, some in row.items()}) for kind, row in checked.items()}
    exact = {kind: found["exact_by_fill"] for kind, found in measured.items()}
    worst = min((share, kind, fill) for kind, row in exact.items() for fill, share in row.items())
    return {
        "exact_by_fill": exact,
        "intervals_by_fill": {kind: found["exact_by_fill_intervals"] for kind, found in measured.items()},
        "worst": {"exact": worst[0], "kind": worst[1], "fill": worst[2]},
        "exact_lines": {kind: _exact_lines(model, everyday_lines(kind)[: 2 * num_texts]) for kind in EVERYDAY_KINDS},
        **calibration(Checked.concat([some for row in checked.values() for some in row.values()])),
        **_novel(model),
        "num_texts": num_texts,
        "noise": noise,
        "provenance": asdict(Provenance.here(seed=seed, encoder=model.encoder_fingerprint, model=model.provenance)),
    }


def _exact_lines(model: TextAutoencoder, lines: list[str]) -> float:
    again = model.regenerate(model.encode(lines))
    return sum(one == other for one, other in zip(lines, again, strict=True)) / len(lines)


def _novel(model: TextAutoencoder) -> dict[str, float]:
    novel = model.evaluate([document.text for document in evaluation_documents("novel")])
    return {f"novel_{name}": novel.measures[name] for name in ("token_accuracy", "exact_match")}
