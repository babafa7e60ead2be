"""The parts of `memlm bench reader`: each is measured once, kept, and found again; and what they say together."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from memlm.data.facts import KINDS
from memlm.models.autoencoder import weights_fingerprint
from memlm.models.load_pretrained import load_causal
from memlm.runtime.cache import digest
from memlm.runtime.executor import Job, Row
from memlm.runtime.wording import installed_version
from memlm_evidence.benchmarks.reader_needles import BUDGET, RATIO, Needles
from memlm_evidence.benchmarks.reader_rows import Readers, Texts, loss_row, worst_irrelevant
from memlm_evidence.benchmarks.reader_times import Times

_UNCHANGED = "base-unchanged"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is measured; fields are the command's options."""

    readers: Readers
    texts: Mapping[str, Texts]
    """By their kinds."""
    ratios: tuple[int, ...]
    num_copies: int
    num_needles: int
    needle_tokens: tuple[int, ...]
    time_tokens: tuple[int, ...]

    def jobs(self) -> list[Job]:
        """All parts; times are taken last, and alone."""
        return [*self._losses(), self._unchanged(), *self._needles(), *self._times()]

    def answer(self, done: Mapping[str, Row]) -> dict[str, Any]:
        """What the parts' rows, by their names, say together."""
        rows = [
            {
                "kind": kind,
                "memories": memories,
                "ratio": ratio,
                **loss_row(
                    done[f"arms-{kind}-{memories}"],
                    done[f"losses-{kind}-{memories}-{ratio}"],
                    done.get(f"copies-{kind}"),
                    ratio,
                ),
            }
            for kind, texts in self.texts.items()
            for memories in texts.memories
            for ratio in self.ratios
        ]
        cells = {
            part: [_plain(row) for name, row in done.items() if name.startswith(part)] for part in ("needles", "times")
        }
        return {"rows": rows, **cells, **_plain(done[_UNCHANGED]), **worst_irrelevant(rows)}

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What every part depends on."""
        memory, last, full, precision = self.readers
        named = {"memory": memory, "last": last, "full": full}
        weights = {name: weights_fingerprint(each.model, str(each.config)) for name, each in named.items()}
        return {"memlm": installed_version("memlm"), **weights, "precision": precision, "device": memory.device.type}

    def _job(self, name: str, run: Callable[[], Row], num_tokens: int, **depends: Any) -> Job:
        plan, timed = digest({**self._about, "part": name, **depends}), name.startswith("times-")
        return Job(name=name, run=run, plan=plan, num_tokens=num_tokens, exclusive=timed)

    def _losses(self) -> Iterator[Job]:
        """Tokens are the positions that the language model reads and writes."""
        cfg = self.readers.memory.config
        chunk_len, after = cfg.shape.chunk_len, cfg.window.recent_tokens + cfg.window.predicted_tokens
        for kind, texts in self.texts.items():
            depends: dict[str, Any] = {"windows": [texts.number, texts.memories[-1]], "text": _fingerprint(texts)}
            for memories in texts.memories:
                past = memories * chunk_len
                read = texts.number * (past + 4 * after)
                yield self._job(f"arms-{kind}-{memories}", partial(texts.arms, memories), read, **depends)
                for ratio in self.ratios:
                    read, run = texts.number * 4 * (past // (ratio or chunk_len) + after), partial(texts.at, memories)
                    yield self._job(f"losses-{kind}-{memories}-{ratio}", partial(run, ratio), read, **depends)
            if not self.num_copies:
                continue
            written = self.num_copies * sum(chunk_len + chunk_len // (ratio or chunk_len) for ratio in self.ratios)
            run, depends = partial(texts.copies, self.ratios, self.num_copies), {**depends, "ratios": self.ratios}
            yield self._job(f"copies-{kind}", run, written, copies=self.num_copies, **depends)

    def _unchanged(self) -> Job:
        texts = next(iter(self.texts.values()))
        run = partial(base_unchanged, texts)
        return self._job(_UNCHANGED, run, 32 * texts.number, text=_fingerprint(texts), windows=texts.number)

    def _needles(self) -> Iterator[Job]:
        needles = Needles(self.readers, self.num_needles)
        for context in self.needle_tokens if self.num_needles else ():
            # Chunks are judged one by one and as a past, which is then read as memories, and with each choice.
            read = self.num_needles * (context // 4 + 5 * context // RATIO + 3 * BUDGET)
            for kind in KINDS:
                run = partial(needles.row, context, kind)
                yield self._job(f"needles-{context}-{kind}", run, read, number=self.num_needles)

    def _times(self) -> Iterator[Job]:
        times = Times(self.readers)
        for context in self.time_tokens:
            yield self._job(f"times-{context}", partial(times.row, context), 5 * context)


@torch.no_grad()
def base_unchanged(texts: Texts) -> Row:
    """Whether the language model without memories is what it was, bit for bit: its logits, and what it writes."""
    reader, rows = texts.readers.memory, texts.rows(texts.memories[0])
    cfg = reader.config.decoder
    base = load_causal(cfg.name, cfg.revision).eval().to(reader.device)
    length = min(len(row.next) for row in rows)
    ids = torch.tensor([row.next[:length] for row in rows[:16]], device=reader.device)
    options = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    with reader.without_memory() as unread:
        same = torch.equal(unread(ids).logits, base(ids).logits)
        same &= torch.equal(unread.generate(ids[:4], **options), base.generate(ids[:4], **options))
    return {"base_unchanged": bool(same)}


def _fingerprint(texts: Texts) -> str:
    """Of the text's tokens and where its documents begin."""
    split = texts.split
    return hashlib.sha256(split.tokens.tobytes() + split.document_starts.tobytes()).hexdigest()[:16]


def _plain(row: Row) -> Row:
    """A row without what says how it was made."""
    return {name: value for name, value in row.items() if name != "plan"}
