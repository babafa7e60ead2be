"""The settling test: every attack there is on one model's hidden state, and what follows from how it withstands them.

The claim under test is that next-token training leaves little of a text in one hidden state. A text that comes back
whole from one state, whatever the attack, was in it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool

from memlm.config import READERS, ProbeConfig, SettleConfig
from memlm.data.cache import default_cache
from memlm.evaluation.bootstrap import mean_interval
from memlm.models.pretrained import PretrainedModel
from memlm.probing.encoders import FrozenEncoder, StateEncoder, load_encoder
from memlm.probing.inversion.embedder import Ids
from memlm.probing.inversion.language import Language, NoLanguage
from memlm.probing.inversion.readout import Readout
from memlm.probing.probe import EncoderProbe
from memlm.probing.specs import ReaderSpec, reader_named
from memlm.probing.texts import ProbeTexts, documents_of
from memlm.probing.trained_reader import TrainedReader
from memlm.runtime.cache import Cache, digest
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance
from memlm_evidence.attacks.positions import Inversion
from memlm_evidence.attacks.results import AttackRow, SettleResult, claim_of, verdict_of
from memlm_evidence.attacks.states import StateEmbedder, find_text

_FORMAT = 1
"""Of what is kept; one more whenever an attack would go otherwise."""
_NUM_STARTS = 48
"""Texts that a search sets out from."""

Recover = Callable[[int], dict[str, Any]]
"""A text's number → as JSON the `tokens` recovered, which of them are `verified`, and how many `encodings` it took."""


def settle(
    encoder: str | Path | FrozenEncoder,
    texts: Sequence[str] | None = None,
    *,
    train_texts: Sequence[str] | None = None,
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
    documents, learned = documents_of(texts), documents_of(train_texts)
    itself = "" if isinstance(encoder, FrozenEncoder) else str(encoder)
    if not isinstance(encoder, FrozenEncoder):
        encoder = load_encoder(encoder, precision=precision)
    if not isinstance(encoder, StateEncoder) or not encoder.model.causal:
        raise ValueError(
            f"{encoder.name} is no causal language model: the claim is about next-token training; use probe"
        )
    has_head = isinstance(encoder.model, PretrainedModel) and encoder.model.head is not None
    speaker = cfg.language_model or (itself if has_head else "")
    language = Language.load(speaker, encoder.tokenizer) if speaker else NoLanguage(encoder.tokenizer)
    read = ProbeTexts.after(learned, documents, encoder.tokenizer, cfg.reading.test_fraction)
    options: Any = {"cache": cache or default_cache(), "quiet": quiet}
    # All are made first, so that a length that is impossible is refused before anything that takes long is begun.
    targets = {length: _Target(encoder, language, read, cfg, length, **options) for length in cfg.chunk_lens}
    attacks = {length: target.attacks() for length, target in targets.items()}
    claims = {length: claim_of(rows) for length, rows in attacks.items()}
    return SettleResult(
        encoder=encoder.name,
        layer=targets[cfg.chunk_lens[0]].view.layer,
        attacks=tuple(row for rows in attacks.values() for row in rows),
        claim="refuted" if "refuted" in claims.values() else "withstood",
        claims=claims,
        verdict=verdict_of(encoder.name, _precision(encoder, cfg), cfg.encodings, attacks),
        provenance=Provenance.here(config=asdict(cfg), encoder=encoder.fingerprint, language_model=speaker),
    )


class _Target:
    """One view of one encoder, under attack, by texts of one length."""

    def __init__(
        self,
        encoder: StateEncoder,
        language: Language | NoLanguage,
        texts: ProbeTexts,
        cfg: SettleConfig,
        chunk_len: int,
        *,
        cache: Path,
        quiet: bool,
    ) -> None:
        self.encoder, self.language, self.cfg, self.chunk_len, self.quiet = encoder, language, cfg, chunk_len, quiet
        probing = ProbeConfig(layers=(cfg.layer,), poolings=("last",), seeds=(cfg.seed,), reading=cfg.reading)
        self.probe = EncoderProbe(encoder, texts, probing, chunk_len, cache=cache, quiet=quiet)
        (self.view,) = self.probe.views
        self.precision = _precision(encoder, cfg)
        self.cache = Cache(cache / "attacks")
        # Those that are not cut within a character: the search writes texts out.
        rows = self.probe.data.chunks.test.tokens
        whole = [row for row in rows if np.array_equal(encoder.tokenizer.encode(encoder.tokenizer.decode(row)), row)]
        self.texts = torch.from_numpy(np.array(whole[: cfg.num_texts] or rows[: cfg.num_texts], dtype=np.int64))
        if not whole:
            raise ValueError(f"no chunk of {chunk_len} tokens comes back from its own text; give other text")

    def attacks(self) -> Sequence[AttackRow]:
        """All there are."""
        return (*self.trained_readers(), self.search(), self.positions())

    def trained_readers(self) -> Iterator[AttackRow]:
        """Trained readers: they see pairs of texts and embeddings, and of the model its token embeddings alone."""
        names = ("token_accuracy", "exact_match", "retained_bits_per_token", "retained_fraction", "lower_bound")
        for kind in self.cfg.readers:
            reader = reader_named(kind, self.cfg)
            row = self.probe.row(ReaderSpec(self.view, reader, self.cfg.seed, self.cfg.degradation))
            yield AttackRow(
                attack=f"{kind} reader",
                given=f"one vector, {self.precision}",
                chunk_len=self.chunk_len,
                num_vectors=1,
                knows=f"{row.num_train_chunks:,} pairs of text and vector; the token embeddings",
                num_texts=row.num_chunks,
                **{name: getattr(row, name) for name in names},
                intervals={name: row.intervals[name] for name in names if name in row.intervals},
            )

    def search(self) -> AttackRow:
        """Search for the text whose state it is, from a reader's guesses, verified by encoding it again."""
        embedder, readout, starts = self._prepared()
        states = embedder.states(list(map(tuple, self.texts.tolist())))

        def recover(number: int) -> dict[str, Any]:
            found = find_text(
                embedder,
                states[number],
                starts[number],
                readout,
                self.language,
                budget=self.cfg.encodings,
                seed=self.cfg.seed,
            )
            return {"tokens": found.text, "verified": [found.verified], "encodings": found.num_encodings}

        given = {name: getattr(self.cfg, name) for name in ("encodings", "seed", "bits")}
        given |= {"language": self.language.name, "readout": self.probe.data.learned_digest}
        keys = [{**given, "attack": "search", "starts": digest(each)} for each in starts]
        begun = torch.tensor([start[0] for start in starts])
        return AttackRow(
            attack="search",
            given=f"one vector, {self.precision}",
            chunk_len=self.chunk_len,
            num_vectors=1,
            knows="the model's weights; what a trained reader knows; what is likely text, if a language model says it",
            start_token_accuracy=float((begun == self.texts).float().mean()),
            **self._each("Searching for texts", keys, recover, verified="exact_fraction"),
        )

    def positions(self) -> AttackRow:
        """Not one vector but all: the reference that says the text is in the states, only not in one of them."""
        model, layer = self.encoder.model, self.view.layer

        def recover(number: int) -> dict[str, Any]:
            tokens = self.texts[number : number + 1]
            mask = torch.ones_like(tokens, dtype=torch.bool)
            with torch.no_grad():
                (states,) = model.states(model.embed_tokens(tokens), mask, [layer])
            states = states[0, model.num_prefix : model.num_prefix + tokens.shape[1]]
            found = Inversion(model=model, states=states, layer=layer).recover()
            return {
                "tokens": found.tokens.tolist(),
                "verified": found.verified.tolist(),
                "encodings": found.num_encodings,
            }

        keys = [{"attack": "positions"}] * len(self.texts)
        row = self._each("Inverting texts", keys, recover, verified="verified_fraction")
        return AttackRow(
            attack="positions",
            given=f"all {self.chunk_len} states of layer {layer}, {_precision(self.encoder)}",
            chunk_len=self.chunk_len,
            num_vectors=self.chunk_len,
            knows="the model's weights",
            **row,
        )

    def _prepared(self) -> tuple[StateEmbedder, Readout, Sequence[Sequence[Ids]]]:
        """What the search reads states with, and the texts it sets out from: what a trained reader makes of the states,
        the likeliest first."""
        reader, _ = self.probe.trained(ReaderSpec(self.view, READERS["parallel"], self.cfg.seed, self.cfg.degradation))
        assert isinstance(reader, TrainedReader)
        learned = (self.probe.before or self.probe).data
        vectors = (self.probe.before or self.probe).embeddings[self.view].train
        embedder = StateEmbedder(self.encoder, self.view, reader.transform, torch.from_numpy(learned.learned_types))
        whitened = torch.nn.functional.normalize(embedder.whitened(torch.from_numpy(np.array(vectors[:, 0]))), dim=-1)
        allowed = torch.zeros(self.encoder.tokenizer.vocab_size, dtype=torch.bool)
        allowed[torch.from_numpy(learned.learned_types)] = True
        readout = Readout.of_pairs(torch.from_numpy(learned.chunks.train.tokens.astype(np.int64)), whitened, allowed)
        return embedder, readout, self._guesses(reader, embedder)

    def _guesses(self, reader: TrainedReader, embedder: StateEmbedder) -> Sequence[Sequence[Ids]]:
        """Of each text the reader's likeliest, then drawn ones."""
        states = embedder.states(list(map(tuple, self.texts.tolist())))
        mask = torch.ones_like(self.texts, dtype=torch.bool)
        with torch.no_grad():
            logits = reader.module(self.texts, mask, reader.transform(states[:, None].numpy())).logits.float()
        generator = torch.Generator().manual_seed(self.cfg.seed)
        flat = logits.softmax(-1).flatten(0, 1)
        drawn = torch.multinomial(flat, _NUM_STARTS, replacement=True, generator=generator)
        drawn = drawn.view(*self.texts.shape, _NUM_STARTS).movedim(-1, 1)
        tokens = torch.from_numpy(self.probe.data.types)[torch.cat((logits.argmax(-1)[:, None], drawn), dim=1)]
        return [list(dict.fromkeys(map(tuple, starts))) for starts in tokens.tolist()]

    def _each(
        self, title: str, keys: Sequence[Mapping[str, Any]], recover: Recover, *, verified: str
    ) -> dict[str, Any]:
        """An attack on every text, measured; what was recovered is kept by its key, for an interrupted run to go on.

        `verified` names the share that the attacker could verify.
        """
        right, sure, encodings = list[Bool[np.ndarray, " token"]](), list[float](), 0
        about = {"format": _FORMAT, "encoder": self.encoder.fingerprint, "view": str(self.view)}
        with track(title, total=self.texts.numel(), unit="tokens", quiet=self.quiet) as advance:
            for number, (text, key) in enumerate(zip(self.texts.tolist(), keys, strict=True)):
                found: Any = self.cache.get({**about, **key, "text": text}, partial(recover, number))
                encodings += found["encodings"]
                right.append(np.array(found["tokens"]) == text)
                sure.append(float(np.mean(found["verified"])))
                advance(len(text), note=f"{np.mean(right):.2f} of tokens right")
        hits = np.stack(right)
        shares = {"token_accuracy": hits.mean(axis=1), "exact_match": hits.all(axis=1)}
        return {
            "num_texts": len(hits),
            **{name: float(share.mean()) for name, share in shares.items()},
            verified: float(np.mean(sure)),
            "num_found": int((shares["exact_match"] & (np.array(sure) == 1)).sum()),
            "encodings_per_text": encodings / len(hits),
            "accuracy_by_position": tuple(hits.mean(axis=0).tolist()),
            "intervals": {name: mean_interval(share) for name, share in shares.items() if len(share) > 1},
        }


def _precision(encoder: StateEncoder, cfg: SettleConfig | None = None) -> str:
    """What numbers the states are given in."""
    dtype = str(encoder.token_table.dtype).removeprefix("torch.")
    return f"{dtype}, rounded to {cfg.degradation}" if cfg and cfg.degradation else dtype
