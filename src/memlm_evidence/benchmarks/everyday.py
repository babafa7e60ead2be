"""`memlm bench everyday`."""

import operator
from dataclasses import dataclass

import torch
import tyro

from memlm.cli.command import Answer, UsesModel
from memlm.data.chunks import beginnings
from memlm.data.texts import EVERYDAY_KINDS, evaluation_documents, everyday_documents, everyday_lines
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.evaluation.checked import FILLS, Checked, calibration, exactness
from memlm.runtime.progress import track
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.measuring import Benchmark, made_here

_CHARACTERS_PER_TOKEN = 8
"""More than a token has in any of these texts, blanks aside."""


@dataclass(frozen=True, kw_only=True)
class Everyday(Benchmark, UsesModel):
    """Measure how much everyday text comes back exactly: words, names, dates, URLs, code, other alphabets, emoji, ...

    memlm bench everyday --json

    For each kind of text and each length in tokens, this gives the share of texts that are regenerated without an error
    from their vectors alone. It also checks that errors are marked as unsure.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    num_texts: int = 400
    """Number of texts of each kind and length."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added to the memories, whose root mean square is 1, to check that the errors
    it causes are marked."""
    seed: int = 0
    """Random seed."""

    def run(self) -> Answer:
        """Measure the model that is named."""
        return self.measure(TextAutoencoder.from_pretrained(self.model, device=self.device))

    def measure(self, model: TextAutoencoder) -> Answer:
        """Send everyday text through a model's memories; `regenerate` is told nothing but the vectors.

        `exact_by_fill` is the share of texts that come back exactly, by kind and length in tokens; `exact_lines` that
        of whole lines (a word, a name, a sentence), and `novel_` measures those of a novel in full chunks, both without
        noise. What is marked is explained in `evaluation.checked`.
        """
        if self.num_texts < 1 or not 0 <= self.noise < float("inf"):
            raise ValueError(
                f"num_texts must be positive and noise not negative, not {self.num_texts} and {self.noise}"
            )
        torch.manual_seed(self.seed)
        checked = self._checked(model)
        measured = {kind: exactness({fill: some.exact for fill, some in row.items()}) for kind, row in checked.items()}
        exact = {kind: found["exact_by_fill"] for kind, found in measured.items()}
        worst = min((share, kind, fill) for kind, row in exact.items() for fill, share in row.items())
        exact_lines = {}
        for kind in EVERYDAY_KINDS:
            lines = everyday_lines(kind)[: 2 * self.num_texts]
            again = model.regenerate(model.encode(lines))
            exact_lines[kind] = sum(map(operator.eq, lines, again)) / len(lines)
        novel = model.evaluate([document.text for document in evaluation_documents("novel")])
        return {
            "exact_by_fill": exact,
            "intervals_by_fill": {kind: found["exact_by_fill_intervals"] for kind, found in measured.items()},
            "worst": dict(zip(("exact", "kind", "fill"), worst, strict=True)),
            "exact_lines": exact_lines,
            **calibration(Checked.concat([some for row in checked.values() for some in row.values()])),
            **{f"novel_{name}": novel.measures[name] for name in ("token_accuracy", "exact_match")},
            "num_texts": self.num_texts,
            "noise": self.noise,
            **made_here(seed=self.seed, encoder=model.encoder_fingerprint, model=model.provenance),
        }

    def _checked(self, model: TextAutoencoder) -> dict[str, dict[int, Checked]]:
        """Texts of each kind and length, and what comes back of them."""
        chunk_len = model.config.shape.chunk_len
        fills = [fill for fill in FILLS if fill <= chunk_len]
        checked: dict[str, dict[int, Checked]] = {kind: {} for kind in EVERYDAY_KINDS}
        total = len(EVERYDAY_KINDS) * self.num_texts * sum(fills)
        with track("Everyday text", total=total, unit="tokens") as advance:
            for kind, row in checked.items():
                split = everyday_split(model, kind, self.num_texts, self.seed)
                for fill in fills:
                    row[fill] = model.check(beginnings(split, chunk_len, fill), noise=self.noise)
                    advance(self.num_texts * fill, f"{kind} of {fill}")
        return checked


def everyday_split(model: TextAutoencoder, kind: str, number: int, seed: int) -> TokenSplit:
    """So many everyday texts of a kind, each long enough for a full chunk."""
    num_characters = _CHARACTERS_PER_TOKEN * model.config.shape.chunk_len
    return tokenize_documents(model.tokenizer, everyday_documents(kind, number, num_characters, seed))
