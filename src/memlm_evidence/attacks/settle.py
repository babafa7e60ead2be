"""The settling test: every attack there is on one model's embedding, and what follows from how it withstands them.

The claim under test is that next-token training leaves little of a text in one hidden state. A model so trained whose
one state gives the text back refutes it, whatever the attack.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from memlm.config import READERS, ProbeConfig, SettleConfig
from memlm.data.cache import default_cache
from memlm.data.corpus import Document
from memlm.evaluation.bootstrap import ratio_interval
from memlm.probing.encoder_probe import EncoderProbe, ReaderSpec
from memlm.probing.encoders import FrozenEncoder, StateEncoder, load_encoder
from memlm.probing.probe import documents_of
from memlm.probing.texts import ProbeTexts
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance, Result
from memlm_evidence.attacks.positions import invert_positions
from memlm_evidence.attacks.search import SearchConfig, search

REFUTED = 0.9
"""One vector gives back at least this share of the tokens, at 95% confidence: the claim does not hold for this model
at this length."""
HELD = 0.15
"""No attack gets more than this share from one vector, at 95% confidence: the claim stands, against these attacks."""
_NUM_PROPOSALS = 16

Row = dict[str, Any]


def settle(
    encoder: str | Path | FrozenEncoder,
    texts: Sequence[str] | None = None,
    *,
    cfg: SettleConfig | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    cache: Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Result:
    """Attack a causal model's last-token state with trained readers and with search, and its states one by one.

    Args:
        encoder: a causal language model: ours, or any that `load_encoder` takes.
        texts: documents; by default the presidential addresses that come with memlm.
        cfg: how hard to try; by default `SettleConfig()`.
        precision: of a pretrained model's weights.
        cache: folder; by default memlm's own.
        quiet: show no progress.
        settings: fields of `SettleConfig` to set anew.

    Returns:
        `attacks`, each with what it was given and what it recovered, `verdict` in words, and `claim`: "refuted",
        "undecided" or "stands".

    Raises:
        ValueError: the model is not causal, or as `probe`.
    """
    cfg = replace(cfg or SettleConfig(), **settings)
    documents = documents_of(texts)
    if not isinstance(encoder, FrozenEncoder):
        encoder = load_encoder(encoder, precision=precision)
    if not isinstance(encoder, StateEncoder) or not encoder.model.causal:
        raise ValueError(
            f"{encoder.name} is no causal language model: the claim is about next-token training; use probe"
        )
    attack = _Attack(encoder, documents, cfg, cache or default_cache(), quiet)
    attacks = [*attack.trained_readers(), attack.search(), attack.positions()]
    claim = claim_of(attacks)
    values = {
        "encoder": encoder.name,
        "chunk_len": cfg.chunk_len,
        "layer": attack.view.layer,
        "attacks": attacks,
        "claim": claim,
        "verdict": _verdict(encoder.name, cfg, attacks, claim),
    }
    settings = {"config": asdict(cfg), "encoder": encoder.fingerprint}
    return Result(name="settle", measures=values, provenance=Provenance.here(**settings))


class _Attack:
    """Attacks on one view of one encoder."""

    def __init__(
        self, encoder: StateEncoder, documents: Sequence[Document], cfg: SettleConfig, cache: Path, quiet: bool
    ) -> None:
        self.encoder, self.cfg, self.quiet = encoder, cfg, quiet
        probing = ProbeConfig(
            chunk_lens=(cfg.chunk_len,), layers=(cfg.layer,), poolings=("last",), seeds=(cfg.seed,), reading=cfg.reading
        )
        texts = ProbeTexts(encoder.tokenizer, documents, cfg.reading.test_fraction)
        self.probe = EncoderProbe(encoder, texts, probing, cfg.chunk_len, cache=cache, quiet=quiet)
        (self.view,) = self.probe.views
        self.dtype = str(encoder.token_table.dtype).removeprefix("torch.")
        self.texts = torch.from_numpy(self.probe.data.chunks.test.tokens[: cfg.num_texts])

    def trained_readers(self) -> Iterator[Row]:
        """Trained readers: they see pairs of texts and embeddings, and of the model its token embeddings alone."""
        for kind, reader in READERS.items():
            spec = ReaderSpec(self.view, reader, self.cfg.seed)
            row = self.probe.row(spec)
            names = ("token_accuracy", "exact_match", "retained_bits_per_token", "retained_fraction", "lower_bound")
            yield {
                "attack": f"{kind} reader",
                "given": f"one vector, {self.dtype}",
                "knows": f"{row['num_train_chunks']:,} pairs of text and vector; the token embeddings",
                "num_texts": row["num_chunks"],
                **{name: row[name] for name in names},
                "intervals": {name: row["intervals"][name] for name in names if name in row["intervals"]},
            }

    def search(self) -> Row:
        """Search for the text whose embedding it is, from a reader's guesses, verified by encoding it again."""
        starts, proposals = self._guesses()
        allowed = torch.from_numpy(self.probe.data.types)
        options = SearchConfig(
            num_steps=self.cfg.search_steps,
            num_candidates=self.cfg.num_candidates,
            patience=max(10, self.cfg.search_steps // 4),
            seed=self.cfg.seed,
        )
        embed = self.encoder.from_inputs(self.view)

        def attack(number: int) -> tuple[Tensor, Tensor, int]:
            with torch.no_grad():
                target = embed(self.encoder.model.embed_tokens(self.texts[number : number + 1]))[0]
            found = search(
                embed,
                self.encoder.token_table,
                target,
                starts[number],
                options,
                allowed=allowed,
                proposals=proposals[number],
            )
            return found.tokens, torch.tensor(found.exact), found.num_encodings

        row = self._each("searching for", attack, "exact_fraction")
        guessed = (starts[:, 0] == self.texts).float().mean()
        return {
            "attack": "search",
            "given": f"one vector, {self.dtype}",
            "knows": "the model's weights; a trained reader's guesses; which tokens occur in all of the text",
            "start_token_accuracy": float(guessed),
            **row,
        }

    def positions(self) -> Row:
        """Not one vector but all: the reference that says the text is in the states, only not in one of them."""

        def attack(number: int) -> tuple[Tensor, Tensor, int]:
            tokens = self.texts[number : number + 1]
            mask = torch.ones_like(tokens, dtype=torch.bool)
            with torch.no_grad():
                (states,) = self.encoder.model.states(self.encoder.model.embed_tokens(tokens), mask, [self.view.layer])
            skipped = self.encoder.model.num_prefix
            recovered = invert_positions(
                self.encoder.model, states[0, skipped : skipped + tokens.shape[1]], self.view.layer
            )
            return recovered.tokens, recovered.verified, recovered.num_encodings

        row = self._each("inverting", attack, "verified_fraction")
        return {
            "attack": "positions",
            "given": f"all {self.cfg.chunk_len} states of layer {self.view.layer}, {self.dtype}",
            "knows": "the model's weights",
            **row,
        }

    def _guesses(self) -> tuple[Int[Tensor, "text start token"], Int[Tensor, "text token choice"]]:
        """Whole texts to start from, and the likeliest tokens at each position, as the model's token ids."""
        reader, embedded = self.probe.trained(ReaderSpec(self.view, READERS["parallel"], self.cfg.seed))
        memory = reader.transform(embedded.test[: self.cfg.num_texts])
        mask = torch.ones_like(self.texts, dtype=torch.bool)
        with torch.no_grad():
            logits = reader.module(self.texts, mask, memory).logits.float()
        types = torch.from_numpy(self.probe.data.types)
        proposals = types[logits.topk(min(_NUM_PROPOSALS, logits.shape[-1])).indices]
        generator = torch.Generator().manual_seed(self.cfg.seed)
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 3, replacement=True, generator=generator)
        drawn = types[drawn].view(*self.texts.shape, 3).movedim(-1, 1)
        return torch.cat((proposals[..., 0][:, None], drawn), dim=1), proposals

    def _each(self, doing: str, attack: Callable[[int], tuple[Tensor, Tensor, int]], verified: str) -> Row:
        """An attack on every text: token accuracy, exact match, the share that the attacker could verify."""
        right, sure, encodings = [], [], 0
        total = self.texts.numel()
        with track(f"{doing.capitalize()} texts", total=total, unit="tokens", quiet=self.quiet) as advance:
            for number, text in enumerate(self.texts):
                tokens, checked, tried = attack(number)
                encodings += tried
                right.append((tokens == text).float().numpy())
                sure.append(float(checked.float().mean()))
                advance(len(text), note=f"{np.mean(right):.2f} of tokens right")
        hits = np.array([[row.mean(), row.all()] for row in right])
        sums = np.column_stack((hits, np.ones(len(hits))))
        intervals = {
            name: list(ratio_interval(sums[:, [column, 2]]))
            for column, name in enumerate(("token_accuracy", "exact_match"))
            if len(sums) > 1
        }
        return {
            "num_texts": len(right),
            "token_accuracy": float(hits[:, 0].mean()),
            "exact_match": float(hits[:, 1].mean()),
            verified: float(np.mean(sure)),
            "encodings_per_text": encodings / len(right),
            "accuracy_by_position": np.mean(right, axis=0).tolist(),
            "intervals": intervals,
        }


def _one_vector(attacks: Sequence[Row]) -> list[Row]:
    return [row for row in attacks if row["given"].startswith("one vector")]


def claim_of(attacks: Sequence[Row]) -> Literal["refuted", "undecided", "stands"]:
    """What the intervals of the attacks on one vector say of the claim; those on all states are left out."""
    ends = [row["intervals"].get("token_accuracy", (0.0, 1.0)) for row in _one_vector(attacks)]
    if max(low for low, _ in ends) >= REFUTED:
        return "refuted"
    return "stands" if max(high for _, high in ends) <= HELD else "undecided"


def _verdict(name: str, cfg: SettleConfig, attacks: Sequence[Row], claim: str) -> str:
    best = max(_one_vector(attacks), key=lambda row: row["token_accuracy"])
    states = attacks[-1]
    found = (
        f"Of {cfg.chunk_len} tokens, the strongest attack on one vector of {name} ({best['attack']}) recovers "
        f"{best['token_accuracy']:.1%}, on {best['num_texts']} texts. "
    )
    meaning = {
        "refuted": "That is nearly all of the text: for this model at this length, the claim that next-token training "
        "leaves little of a text in one hidden state is refuted. ",
        "undecided": f"At 95% confidence that is neither little ({HELD:.0%} at most) nor most ({REFUTED:.0%} or more): "
        "the claim is neither refuted nor borne out at this length, on so many texts. ",
        "stands": "That is little: the claim stands, against these attacks and budgets. A stronger attack may yet "
        "refute it; a failed one proves nothing. ",
    }[claim]
    reference = f"With the states of all positions, {states['token_accuracy']:.1%} are recovered"
    if states["token_accuracy"] >= REFUTED:
        reference += ": what one vector lacks is not missing from the states together"
    reference += ". "
    if any(row.get("lower_bound") for row in attacks):
        reference += "Readers that were still learning when their steps ended might have got more."
    return (found + meaning + reference).strip()
