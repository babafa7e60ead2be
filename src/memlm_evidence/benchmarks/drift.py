"""`memlm bench drift`."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.config.base import require
from memlm.data.chunks import beginnings, excerpts
from memlm.data.corpus import read_documents
from memlm.data.texts import EVERYDAY_KINDS, evaluation_documents, everyday_lines
from memlm.data.token_store import tokenize_documents
from memlm.runtime.progress import Advance, track
from memlm.store.codec import Codec
from memlm.store.packing import Bits
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.benchmarks.drift_rounds import Editor, Texts, Words, rounds_of, sender
from memlm_evidence.benchmarks.drift_rows import ALL_KINDS, History, print_drift, worst_rows
from memlm_evidence.benchmarks.everyday import everyday_split
from memlm_evidence.benchmarks.measuring import made_here

FILLS = (1, 2, 4, 8, 16, 32, 64, 96, 128)
"""Lengths of text, in tokens, that are told apart where a chunk holds them; and full chunks."""
REPORTED = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Rounds after which it is looked; and after the last one."""
VERSE = "verse"
Slices = dict[int, dict[str, Texts]]
"""Texts by their length in tokens and their kind."""


@dataclass(frozen=True, kw_only=True)
class Drift(UsesModel, ReadsText):
    """Measure how text changes when it is encoded and regenerated many times: text → memory → text → memory → ...

    memlm bench drift --json

    memlm bench drift runs/mine/model --text README.md --bits 32 8 4

    Memories are rounded as in memory files, and read without patches. Every text is measured as it is. Some texts are
    also measured with one word replaced in each round, as happens when a model edits its own past.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Text to measure on: files, globs, or - for standard input; by default everyday text of every kind, and verse."""
    bits: tuple[Bits, ...] = (32, 4)
    """Bits per dimension of a memory; each value is measured. 32 is full precision."""
    rounds: int = 100
    """Number of rounds; in each, a text is encoded and regenerated once."""
    num_texts: int = 50
    """Number of texts of each kind and length."""
    num_edited: int = 3
    """Number of texts of each kind and length that are also measured with a word replaced in each round; 0 for none."""
    seed: int = 0
    """Random seed."""

    def run(self) -> Answer:
        """Each of `rows` is of a `kind` of text (`all`: of all kinds), a length in `tokens`, and `bits`, with `edits`
        or without. By round: `changed`, the share of tokens that are not what they should be, which is the first
        text's, or what replaced it last; `exact`, of texts without such a token; with edits, of words that were never
        replaced (`untouched`) and of others (`replaced`), the shares that stand. `intervals` are of the last round, by
        a bootstrap over texts, of `exact` Wilson's; `last_change` is the last round in which a text changed by itself.
        `worst` are the rows with most changed in the end; `left_out` says what has no texts, or no words.
        """
        self._check()
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        codecs = [Codec(model, bits) for bits in self.bits]
        left_out: list[str] = []
        texts = self._texts(model, left_out)
        words = Words(model.tokenizer, everyday_lines("words"))
        edited = self._with_words(words, texts, left_out)
        if left_out:
            self.say(f"Left out: {'; '.join(left_out)}", aside=True)
        per_bits = sum(map(_number, texts.values())) + self.rounds * sum(map(_number, edited.values()))
        rows: list[dict[str, Any]] = []
        # A text takes what a full chunk does, however short it is.
        with track("Drifting", total=len(codecs) * per_bits * codecs[0].chunk_len, unit="tokens") as advance:
            for codec in codecs:
                for slices, replacing in ((texts, None), (edited, words)):
                    for kinds in slices.values():
                        rows += self._rows(codec, kinds, replacing, advance)
        answer = {
            "rows": rows,
            "worst": worst_rows(rows),
            "left_out": left_out,
            "rounds": self.rounds,
            **made_here(seed=self.seed, encoder=model.encoder_fingerprint, model=model.provenance),
        }
        print_drift(self.console(), answer)
        return answer

    def _check(self) -> None:
        require(self.rounds > 0, f"--rounds must be positive, not {self.rounds}")
        require(self.num_texts > 0, f"--num-texts must be positive, not {self.num_texts}")
        require(self.num_edited >= 0, f"--num-edited must be 0 or more, not {self.num_edited}")
        require(0 < len(self.bits) == len(set(self.bits)), f"--bits takes different numbers, not {[*self.bits]}")

    def _texts(self, model: TextAutoencoder, left_out: list[str]) -> Slices:
        """Texts by length and kind; what is too short is told in `left_out`."""
        chunk_len, tokenizer = model.config.shape.chunk_len, model.tokenizer
        if self.text:
            splits = {"text": tokenize_documents(tokenizer, read_documents(self.corpus(self.text)))}
        else:
            splits = {kind: everyday_split(model, kind, self.num_texts, self.seed) for kind in EVERYDAY_KINDS}
            splits[VERSE] = tokenize_documents(tokenizer, evaluation_documents(VERSE))
        found: Slices = {}
        for kind, split in splits.items():
            for tokens in sorted({*(fill for fill in FILLS if fill < chunk_len), chunk_len}):
                if kind in EVERYDAY_KINDS:
                    chunks = beginnings(split, chunk_len, tokens)
                else:
                    chunks = excerpts(split, chunk_len, tokens, self.num_texts)
                if len(chunks.tokens):
                    found.setdefault(tokens, {})[kind] = chunks.tokens[:, :tokens]
                else:
                    left_out.append(f"no text of {tokens} tokens in {kind}")
        return found

    def _with_words(self, words: Words, texts: Slices, left_out: list[str]) -> Slices:
        """The first texts of each slice that have words to replace; what has none is told in `left_out`."""
        found: Slices = {}
        for tokens, kinds in texts.items() if self.num_edited else ():
            for kind, some in kinds.items():
                chosen = [text for text in some if words.of(text)][: self.num_edited]
                if chosen:
                    found.setdefault(tokens, {})[kind] = np.stack(chosen)
                else:
                    left_out.append(f"no word to replace in {kind} of {tokens} tokens")
        return found

    def _rows(
        self, codec: Codec, kinds: Mapping[str, Texts], words: Words | None, advance: Advance
    ) -> list[dict[str, Any]]:
        """Send the texts of all kinds of one length together, and tell them apart again."""
        texts = np.concatenate([*kinds.values()])
        tokens, chunk_len = texts.shape[1], codec.chunk_len
        editor = Editor(words, texts, [self.seed, tokens]) if words else None
        history = History(texts, editor)
        for number, now in enumerate(islice(rounds_of(sender(codec), texts, editor), self.rounds + 1)):
            history.add(number, now, keep=number in REPORTED or number == self.rounds)
            if number and (editor or number == 1):
                advance(len(texts) * chunk_len, f"{tokens} tokens, {codec.bits} bits")
        ends = np.cumsum([0, *map(len, kinds.values())])
        slices = {kind: slice(*pair) for kind, pair in zip(kinds, pairwise(ends), strict=True)}
        about = {"tokens": tokens, "bits": codec.bits, "edits": editor is not None}
        if len(kinds) > 1:
            slices[ALL_KINDS] = slice(None)
        return [{"kind": kind, **about, **history.measures(some)} for kind, some in slices.items()]


def _number(kinds: Mapping[str, Texts]) -> int:
    return sum(map(len, kinds.values()))
