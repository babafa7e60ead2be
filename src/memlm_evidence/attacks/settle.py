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
from memlm.data.documents import Document
from memlm.evaluation.bootstrap import ratio_interval
from memlm.probing.encoders import FrozenEncoder, StateEncoder, load_encoder
from memlm.probing.probe import EncoderProbe
from memlm.probing.specs import ReaderSpec
from memlm.probing.texts import ProbeTexts, documents_of
from memlm.probing.trained_reader import TrainedReader
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance
from memlm_evidence.attacks.positions import Inversion
from memlm_evidence.attacks.results import AttackRow, SettleResult, claim_of, verdict_of
from memlm_evidence.attacks.search import Search

_NUM_PROPOSALS, _NUM_DRAWN = 16, 3

Recover = Callable[[int], tuple[Tensor, Tensor, int]]
"""A text's number → the tokens recovered, which of them are verified, and how often something was encoded."""


def settle(
    encoder: str | Path | FrozenEncoder,
    texts: Sequence[str] | None = None,
    *,
    cfg: SettleConfig | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    cache: Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> SettleResult:
    """Attack a causal model's last-token state with trained readers and with search, and its states one by one.

    Everything is given as to `memlm.probe`, but that `cfg` and `settings` are `SettleConfig`'s.

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
    target = _Target(encoder, documents, cfg, cache or default_cache(), quiet)
    attacks = (*target.trained_readers(), target.search(), target.positions())
    return SettleResult(
        encoder=encoder.name,
        chunk_len=cfg.chunk_len,
        layer=target.view.layer,
        attacks=attacks,
        claim=claim_of(attacks),
        verdict=verdict_of(encoder.name, cfg.chunk_len, attacks),
        provenance=Provenance.here(config=asdict(cfg), encoder=encoder.fingerprint),
    )


class _Target:
    """One view of one encoder, under attack."""

    def __init__(
        self, encoder: StateEncoder, documents: Sequence[Document], cfg: SettleConfig, cache: Path, quiet: bool
    ) -> None:
        self.encoder, self.model, self.cfg, self.quiet = encoder, encoder.model, cfg, quiet
        probing = ProbeConfig(
            chunk_lens=(cfg.chunk_len,), layers=(cfg.layer,), poolings=("last",), seeds=(cfg.seed,), reading=cfg.reading
        )
        texts = ProbeTexts(encoder.tokenizer, documents, cfg.reading.test_fraction)
        self.probe = EncoderProbe(encoder, texts, probing, cfg.chunk_len, cache=cache, quiet=quiet)
        (self.view,) = self.probe.views
        self.dtype = str(encoder.token_table.dtype).removeprefix("torch.")
        self.texts = torch.from_numpy(self.probe.data.chunks.test.tokens[: cfg.num_texts])
        self.types = torch.from_numpy(self.probe.data.types)

    def trained_readers(self) -> Iterator[AttackRow]:
        """Trained readers: they see pairs of texts and embeddings, and of the model its token embeddings alone."""
        names = ("token_accuracy", "exact_match", "retained_bits_per_token", "retained_fraction", "lower_bound")
        for kind, reader in READERS.items():
            row = self.probe.row(ReaderSpec(self.view, reader, self.cfg.seed))
            yield AttackRow(
                attack=f"{kind} reader",
                given=f"one vector, {self.dtype}",
                num_vectors=1,
                knows=f"{row.num_train_chunks:,} pairs of text and vector; the token embeddings",
                num_texts=row.num_chunks,
                **{name: getattr(row, name) for name in names},
                intervals={name: row.intervals[name] for name in names if name in row.intervals},
            )

    def search(self) -> AttackRow:
        """Search for the text whose embedding it is, from a reader's guesses, verified by encoding it again."""
        starts, proposals = self._guesses()
        embed, table = self.encoder.from_inputs(self.view), self.encoder.token_table

        def recover(number: int) -> tuple[Tensor, Tensor, int]:
            with torch.no_grad():
                target = embed(self.model.embed_tokens(self.texts[number : number + 1]))[0]
            found = Search(
                embed=embed,
                token_table=table,
                target=target,
                allowed=self.types,
                proposals=proposals[number],
                num_steps=self.cfg.search_steps,
                num_candidates=self.cfg.num_candidates,
                patience=max(10, self.cfg.search_steps // 4),
                seed=self.cfg.seed,
            ).find(starts[number])
            return found.tokens, torch.tensor(found.exact), found.num_encodings

        return AttackRow(
            attack="search",
            given=f"one vector, {self.dtype}",
            num_vectors=1,
            knows="the model's weights; a trained reader's guesses; which tokens occur in all of the text",
            start_token_accuracy=float((starts[:, 0] == self.texts).float().mean()),
            **self._each("Searching for texts", recover, verified="exact_fraction"),
        )

    def positions(self) -> AttackRow:
        """Not one vector but all: the reference that says the text is in the states, only not in one of them."""
        layer, skipped = self.view.layer, self.model.num_prefix

        def recover(number: int) -> tuple[Tensor, Tensor, int]:
            tokens = self.texts[number : number + 1]
            mask = torch.ones_like(tokens, dtype=torch.bool)
            with torch.no_grad():
                (states,) = self.model.states(self.model.embed_tokens(tokens), mask, [layer])
            states = states[0, skipped : skipped + tokens.shape[1]]
            return Inversion(model=self.model, states=states, layer=layer).recover()

        return AttackRow(
            attack="positions",
            given=f"all {self.cfg.chunk_len} states of layer {layer}, {self.dtype}",
            num_vectors=self.cfg.chunk_len,
            knows="the model's weights",
            **self._each("Inverting texts", recover, verified="verified_fraction"),
        )

    def _guesses(self) -> tuple[Int[Tensor, "text start token"], Int[Tensor, "text token choice"]]:
        """Whole texts to start from, and the likeliest tokens at each position, as the model's token ids."""
        reader, embeddings = self.probe.trained(ReaderSpec(self.view, READERS["parallel"], self.cfg.seed))
        assert isinstance(reader, TrainedReader)
        memory = reader.transform(embeddings.test[: self.cfg.num_texts])
        mask = torch.ones_like(self.texts, dtype=torch.bool)
        with torch.no_grad():
            logits = reader.module(self.texts, mask, memory).logits.float()
        proposals = self.types[logits.topk(min(_NUM_PROPOSALS, logits.shape[-1])).indices]
        generator = torch.Generator().manual_seed(self.cfg.seed)
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), _NUM_DRAWN, replacement=True, generator=generator)
        drawn = self.types[drawn].view(*self.texts.shape, _NUM_DRAWN).movedim(-1, 1)
        return torch.cat((proposals[..., 0][:, None], drawn), dim=1), proposals

    def _each(self, title: str, recover: Recover, *, verified: str) -> dict[str, Any]:
        """An attack on every text, measured; `verified` names the share that the attacker could verify."""
        right, sure, encodings = [], [], 0
        with track(title, total=self.texts.numel(), unit="tokens", quiet=self.quiet) as advance:
            for number, text in enumerate(self.texts):
                tokens, checked, tried = recover(number)
                encodings += tried
                right.append((tokens == text).numpy())
                sure.append(float(checked.float().mean()))
                advance(len(text), note=f"{np.mean(right):.2f} of tokens right")
        hits = np.stack(right)
        shares = {"token_accuracy": hits.mean(axis=1), "exact_match": hits.all(axis=1)}
        return {
            "num_texts": len(hits),
            **{name: float(share.mean()) for name, share in shares.items()},
            verified: float(np.mean(sure)),
            "encodings_per_text": encodings / len(hits),
            "accuracy_by_position": tuple(hits.mean(axis=0).tolist()),
            "intervals": {
                name: ratio_interval(np.column_stack((share, np.ones(len(share)))))
                for name, share in shares.items()
                if len(share) > 1
            },
        }
