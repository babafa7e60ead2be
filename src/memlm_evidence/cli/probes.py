"""The commands that measure embeddings."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from memlm.cli.command import Answer, HasWorkers, ReadsText, write_result
from memlm.config import ProbeConfig, SettleConfig

if TYPE_CHECKING:
    from rich.console import Console

    from memlm.probing.results import ProbeResult


@dataclass(frozen=True, kw_only=True)
class _Reads(ReadsText):
    """What every command has that reads embeddings."""

    text: tuple[str, ...] = ()
    """Text to measure on: files, globs, or - for standard input; by default the presidential addresses that come with
    memlm."""
    train_text: tuple[str, ...] = ()
    """Text to train the readers on: files or globs; by default the presidential addresses. If these are the files of
    --text, part of their text is held out to measure on."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of a pretrained encoder's weights; bf16 is about twice as fast."""

    def texts(self) -> dict[str, Any]:
        """What to measure on, and what readers learn from."""
        read = {paths: self.documents(paths) if paths else None for paths in (self.text, self.train_text)}
        return {"texts": read[self.text], "train_texts": read[self.train_text]}


@dataclass(frozen=True, kw_only=True)
class Probe(_Reads, HasWorkers):
    """Measure how much of a text any encoder's embeddings hold, with controls that keep the number honest.

    The encoder is frozen and embeds the text once. Readers are trained to regenerate text from the embeddings alone,
    and measured on text that they have not seen. If the command is interrupted, run it again: it resumes.

    Readers are trained on the presidential addresses, unless you give --train-text. They are kept, so measuring another
    text takes about a minute. --text may be short (50 kB). If it has 2 MB or more, part of it trains the readers
    further.

    memlm probe minilm --text README.md --chunk-len 16 32 64 --out runs/minilm

    memlm probe minilm --text 'notes/*.md' --train-text 'notes/*.md'    # trained on some of them, measured on others

    memlm probe smollm2 --precision bf16 --layer 8 16 -1 --pooling last mean --bits 8 4 2 1
    """

    encoder: tyro.conf.Positional[str]
    """A memlm checkpoint (folder, or english), a Hugging Face or sentence-transformers model (folder or hub name), a
    GGUF file, or a model that comes as a Python package: smollm2, minilm."""
    cfg: tyro.conf.OmitArgPrefixes[ProbeConfig] = field(default_factory=ProbeConfig)
    workers: int = 1
    """Number of processes that measure combinations and controls side by side; 0 is one per core. They share the cores,
    and each loads the encoder."""
    controls: Literal["yes", "no"] = "yes"
    """Measure the controls too: untrained, shuffled, constant, random tokens, positive. They take most of the time."""
    out: Path | None = None
    """Folder for probe.json and report.html; without it, the result is only printed."""

    def run(self) -> Answer:
        """Probe and show."""
        import memlm
        from memlm_evidence.pages.probe import probe_page

        cfg = replace(self.cfg, controls=self.controls == "yes")
        who = self.who(self.workers)
        result = memlm.probe(self.encoder, cfg=cfg, precision=self.precision, quiet=False, **who, **self.texts())
        print_probe(self.console(), result)
        if self.out:
            write_result(result, self.out / "probe.json")
            self.say(f"The whole report: {probe_page(result).write(self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class Settle(_Reads):
    """Attack a causal language model's last hidden state with every method here, and give the verdict.

    The claim under attack: next-token training leaves little of a text in one hidden state. The attacks are trained
    readers and a white-box search, whose finds are verified by encoding them again. For reference, all states are
    inverted too. The verdict for each length is refuted or withstood, with its conditions. One text that comes back
    whole refutes the claim; if none does, that only says that these attacks failed.

    memlm settle smollm2 --chunk-len 8 16 --num-texts 4 --encodings 5000

    memlm settle runs/causal/model --text novel.txt --reader parallel pretrained
    """

    encoder: tyro.conf.Positional[str]
    """A causal language model: a memlm checkpoint, a Hugging Face folder or hub name, a GGUF file, or smollm2."""
    cfg: tyro.conf.OmitArgPrefixes[SettleConfig] = field(default_factory=SettleConfig)

    def run(self) -> Answer:
        """Attack and show."""
        from memlm.runtime.wording import share
        from memlm_evidence import settle

        result = settle(self.encoder, cfg=self.cfg, precision=self.precision, quiet=False, **self.texts())
        for row in result.attacks:
            right, exact = share(row.token_accuracy, 3), share(row.exact_match, 3)
            what = f"{row.chunk_len} tokens, {row.attack}: {right} of tokens, {exact} of texts exact"
            self.say(f"{what}, of {row.num_texts} texts; given {row.given}; the attack knows {row.knows}")
        self.say(result.verdict)
        return result.to_dict()


def print_probe(console: "Console", result: "ProbeResult") -> None:
    """A probe's rows, with their 95% intervals, and what its controls say."""
    from rich.text import Text

    from memlm.cli.show import INTERVALS, print_table
    from memlm.runtime.wording import number, printable
    from memlm_evidence.pages.probe import controls_table, terminal_table, verdicts

    console.print(Text(printable(result.encoder), style="bold"))
    bound = any(row.lower_bound for row in result.rows)
    marks = "; ≥: a lower bound, because the reader was still learning" if bound else ""
    print_table(console, terminal_table(result.rows), INTERVALS + marks)
    for length, row in result.baselines.items():
        counted, causal = number(row.unconditional_nats_per_token), number(row.causal_nats_per_token)
        model = printable(row.causal_model)
        line = (
            f"Without an embedding, each of {length} tokens costs the reader {counted} nats, "
            f"and a language model ({model}) {causal}."
        )
        console.print(line, markup=False, highlight=False)
    if not result.round_trips:
        console.print("The tokenizer does not give the text back exactly, so only tokens are measured.")
    if not (judged := verdicts(result)):
        console.print("No controls were measured.")
        return
    styles = ["bold red" if verdict.failed else "" for verdict in judged]
    note = "measured with the first view and reader"
    print_table(console, controls_table(judged), note, text_columns=(0, 2), styles=styles)
