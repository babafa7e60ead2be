"""The commands that measure embeddings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from memlm.cli.command import Answer, Command
from memlm.cli.jobs import read_texts
from memlm.config import ProbeConfig, ReadingConfig, SettleConfig, StatePooling
from memlm.files import atomic_write
from memlm.results import Result


@dataclass(frozen=True, kw_only=True)
class _Reads(Command):
    """What every command has that reads embeddings."""

    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input; without any, the presidential addresses that come with memlm."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with invalid UTF-8: stop with the byte offset, or put U+FFFD in its place."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of a pretrained model's weights; bf16 is about twice as fast."""
    steps: int = 1000
    """Optimizer steps that a reader is trained for."""
    max_chunks: int = 50_000
    """Embed at most this many training chunks."""
    test_chunks: int = 1_000
    """Embed at most this many test chunks."""

    def texts(self) -> list[str] | None:
        return read_texts(self.text, self.errors) if self.text else None

    def reading(self) -> ReadingConfig:
        return ReadingConfig(num_steps=self.steps, max_chunks=self.max_chunks, test_chunks=self.test_chunks)


@dataclass(frozen=True, kw_only=True)
class Probe(_Reads):
    """Measure how much of a text any encoder's embeddings hold, with the controls that keep the number honest.

    The encoder is frozen and embeds the text once. Readers are trained to regenerate the text from the embeddings alone
    and measured on documents kept apart. Interrupted and run again, it goes on where it was.

    memlm probe minilm --text novel.txt --chunk-len 16 32 64 --out runs/minilm

    memlm probe smollm2 --precision bf16 --layer 8 16 -1 --pooling last mean --bits 8 4 2 1
    """

    encoder: tyro.conf.Positional[str]
    """A memlm checkpoint (folder, or english), a Hugging Face or sentence-transformers model (folder or hub name), a
    GGUF file, or a model that comes as a Python package: smollm2, minilm."""
    chunk_len: tuple[int, ...] = (16,)
    """Tokens per chunk; several give a curve."""
    layer: tuple[int, ...] = (-1,)
    """Layers whose states are pooled: 0 is the token embeddings, -1 the last."""
    pooling: tuple[StatePooling, ...] = ()
    """How states become an embedding; by default what the model was made for (memory, sentence, last token, or mean).
    `all` keeps every position's state, `positional` is a fixed random projection of all of them."""
    reader: tuple[Literal["parallel", "linear", "autoregressive"], ...] = ("parallel",)
    """What is trained to regenerate the text."""
    bits: tuple[int, ...] = ()
    """Also read embeddings quantized to so many bits a dimension."""
    noise: tuple[float, ...] = ()
    """Also read embeddings with Gaussian noise of so many standard deviations."""
    seed: tuple[int, ...] = (0,)
    """Of readers; several give the spread."""
    controls: Literal["yes", "no"] = "yes"
    """Measure the controls: untrained, shuffled, constant, random tokens, positive. They take most of the time."""
    out: Path | None = None
    """Folder for probe.json and report.html."""

    def run(self) -> Answer:
        """Probe and show."""
        from rich.console import Console

        import memlm
        from memlm.report.probe import write_probe_report
        from memlm.report.terminal import print_probe

        cfg = ProbeConfig(
            chunk_lens=self.chunk_len,
            layers=self.layer,
            poolings=self.pooling,
            readers=self.reader,
            bits=self.bits,
            noise=self.noise,
            seeds=self.seed,
            controls=self.controls == "yes",
            reading=self.reading(),
        )
        result = memlm.probe(self.encoder, self.texts(), cfg=cfg, precision=self.precision, quiet=False)
        print_probe(Console(stderr=self.json), result)
        if self.out:
            _keep(result, self.out / "probe.json")
            self.say(f"The whole report: {write_probe_report(self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class Settle(_Reads):
    """Attack a causal language model's last hidden state with all there is, and say what follows.

    The claim: next-token training leaves little of a text in one hidden state. Trained readers, a white-box search
    verified by encoding again, and, for reference, an inversion of all states. The verdict comes with its conditions.

    memlm settle smollm2 --chunk-len 16 --num-texts 8
    """

    encoder: tyro.conf.Positional[str]
    """A causal language model: a memlm checkpoint, a Hugging Face folder or hub name, a GGUF file, or smollm2."""
    chunk_len: int = 16
    """Tokens per text."""
    layer: int = -1
    """Layer whose state is attacked."""
    num_texts: int = 8
    """Texts that are searched for, and inverted position by position."""
    search_steps: int = 100
    """Rounds of candidates for each text that is searched for."""
    seed: int = 0

    def run(self) -> Answer:
        """Attack and show."""
        import memlm

        cfg = SettleConfig(
            chunk_len=self.chunk_len,
            layer=self.layer,
            num_texts=self.num_texts,
            search_steps=self.search_steps,
            seed=self.seed,
            reading=self.reading(),
        )
        result = memlm.settle(self.encoder, self.texts(), cfg=cfg, precision=self.precision, quiet=False)
        for row in result.attacks:
            what = f"{row['attack']}: {row['token_accuracy']:.3f} of tokens, {row['exact_match']:.3f} exact"
            self.say(f"{what}, {row['num_texts']} texts; given {row['given']}; knows {row['knows']}")
        self.say(result.verdict)
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class Embeddings(Command):
    """Embeddings of untrained, causal, retrieval and autoencoder models, trained on equal tokens and probed alike.

    Claim: autoencoders' hold nearly all of 64 tokens (≥ 0.98), the others little, whatever the data and compute.
    Cost: under 15 minutes on two cores for one seed; what was trained before is not trained again.
    """

    out: Path = Path("runs/embeddings")
    """Folder of the trained encoders."""
    chunk_len: int = 64
    num_tokens: int = 750_000
    """Tokens every encoder is trained on."""
    mixers: tuple[Literal["attention", "masked_mixer"], ...] = ("masked_mixer",)
    """Of the language models."""
    full: bool = False
    """Also every size with every budget, and objectives crossed with poolings; takes three times as long."""
    seed: int = 0

    def run(self) -> Answer:
        """Train, probe, compare."""
        from memlm.reproduce.embeddings import Plan, reproduce_embeddings

        budgets = (self.num_tokens // 4, self.num_tokens // 2, self.num_tokens)
        plan = Plan(
            chunk_len=self.chunk_len,
            num_tokens=self.num_tokens,
            budgets=budgets,
            mixers=self.mixers,
            grid=self.full,
            cross=self.full,
            seed=self.seed,
        )
        result = reproduce_embeddings(self.out, plan)
        for name, accuracy in result.token_accuracy.items():
            self.say(f"{name}: token accuracy {accuracy:.4f}, retained fraction {result.retained_fraction[name]:.4f}")
        for name in ("slope_compute", "slope_data"):
            low, high = result.intervals[name]
            self.say(f"{name}: {result.measures[name]:+.4f} retained fraction a decade [{low:+.4f}, {high:+.4f}]")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class MemoryModels(Command):
    """Memory models by causal, combined and curriculum training, beside no memory, full context and recurrent memory.

    Claim: causal training leaves memories poor; combined training makes them rich (≥ 0.995 of tokens) at the same
    next-token loss; a frozen autoencoder's encoder with a curriculum makes that cheap.
    Cost: 17 minutes on two cores; what was trained before is not trained again.
    """

    out: Path = Path("runs/memory-model")
    """Folder of the trained arms."""
    chunk_len: int = 32
    memory_dim: int = 256
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 128
    """Width of the decoder."""
    num_tokens: int = 1_000_000
    """Causal tokens that every arm is trained on."""
    full: bool = False
    """Also an encoder-decoder and an oracle, and, at half the tokens, sweeps over the weight of retention, the size of
    the decoder and the ways in which a memory may enter it; takes twice as long."""
    seed: int = 0

    def run(self) -> Answer:
        """Train, measure, compare."""
        from memlm.report.memory_model import write_memory_report
        from memlm.reproduce.arms import Plan
        from memlm.reproduce.memory_model import reproduce_memory_model

        plan = Plan(
            chunk_len=self.chunk_len,
            memory_dim=self.memory_dim,
            num_positions=self.num_positions,
            dim=self.dim,
            num_tokens=self.num_tokens,
            full=self.full,
            sweep_tokens=self.num_tokens // 2,
            seed=self.seed,
        )
        result = reproduce_memory_model(self.out, plan)
        _keep(result, self.out / f"memory-model-seed-{self.seed}.json")
        for name, nats in result.causal_nats.items():
            retained = result.retention_accuracy.get(name)
            self.say(f"{name}: {nats:.4f} nats/token" + (f", retention {retained:.4f}" if retained else ""))
        self.say(f"The whole report: {write_memory_report(self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class RecallOfFacts(Command):
    """Exact strings from anywhere in the past: memories by combined and by causal training, and the tokens themselves.

    Claim: combined memories give back facts that are asked for by their keys (≥ 0.95 of the strings, at every
    distance); causal training's do not.
    Cost: some 12 minutes a model on two cores; what was trained before is not trained again.
    """

    out: Path = Path("runs/memory-model")
    """Folder of the trained models."""
    pointer_span: int = 12
    """Tokens by which a decoder finds what it copies; 0 lets it read memories alone, as positions."""
    reading_fraction: float = 0.25
    """Share of the tokens that the combined model first learns to read memories from."""
    num_tokens: int = 8_000_000
    """Tokens that every model is trained on."""
    num_texts: int = 100
    """Texts for each kind of fact, number of past chunks and distance."""
    models: tuple[Literal["combined", "causal", "full_context"], ...] = ("combined", "causal", "full_context")
    seed: int = 0

    def run(self) -> Answer:
        """Train and ask."""
        from memlm.report.memory_model import write_memory_report
        from memlm.reproduce.recall import RecallPlan, reproduce_recall

        plan = RecallPlan(
            pointer_span=self.pointer_span,
            reading_fraction=self.reading_fraction,
            num_tokens=self.num_tokens,
            num_texts=self.num_texts,
            models=self.models,
            seed=self.seed,
        )
        result = reproduce_recall(self.out, plan)
        _keep(result, self.out / f"recall-seed-{self.seed}.json")
        for name, by_distance in result.recall.items():
            shown = ", ".join(f"{rate:.3f} at {far}" for far, rate in by_distance.items())
            self.say(f"{name}: {shown} chunks; blind {result.chance[name]:.3f}")
        self.say(f"The whole report: {write_memory_report(self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class NonInvertible(Command):
    """Next-token prediction asks a memory for the past's predictive state alone, on sources whose entropies are known.

    Claim: of 64 tokens of a Markov chain, causal training keeps the state (≥ 0.9 of its bits) and little else (< 0.2
    of the rest); regeneration and combined training keep all (≥ 0.95). What later questions ask for is kept by all.
    The argument, with proofs: docs/theory.md.
    """

    out: Path = Path("runs/non-invertible")
    """Folder of the result."""
    chunk_lens: tuple[int, ...] = (16, 32, 64)
    """Tokens of a chunk of the Markov chain; other sources have the last."""
    steps: int = 600
    """Training steps of each model."""
    reading_steps: int = 200
    """Training steps of each reader."""
    num_windows: int = 1024
    """Windows that everything is measured on."""
    seed: int = 0

    def run(self) -> Answer:
        """Train and read."""
        from memlm.reproduce.non_invertible import NonInvertiblePlan, reproduce_non_invertible

        plan = NonInvertiblePlan(
            chunk_lens=self.chunk_lens,
            steps=self.steps,
            reading_steps=self.reading_steps,
            num_windows=self.num_windows,
            seed=self.seed,
        )
        result = reproduce_non_invertible(plan)
        _keep(result, self.out / f"non-invertible-seed-{self.seed}.json")
        for row in result.rows:
            self.say(
                f"{row['source']}, {row['num_tokens']} tokens, {row['objective']}: "
                f"{row['retained_bits']:.1f} of {row['entropy_bits']:.1f} bits, "
                f"of the state {row['retained_state_bits']:.2f} of {row['state_bits']:.2f}"
            )
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """The paper's claims, each measured by one command."""

    claim: Annotated[
        Annotated[Embeddings, tyro.conf.subcommand("embeddings")]
        | Annotated[MemoryModels, tyro.conf.subcommand("memory-model")]
        | Annotated[RecallOfFacts, tyro.conf.subcommand("recall")]
        | Annotated[NonInvertible, tyro.conf.subcommand("non-invertible")],
        tyro.conf.arg(name=""),
    ]


def _keep(result: Result, path: Path) -> None:
    """Write a result to a file, whole or not at all."""
    atomic_write(path, json.dumps(result.to_dict(), indent=2) + "\n")
