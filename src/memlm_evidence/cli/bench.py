"""`memlm bench`: benchmarks of cost and capacity, where possible as a ratio of two things measured side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from memlm.cli.command import Answer, Command, Group, ReadsText, UsesModel


@dataclass(frozen=True, kw_only=True)
class _Benchmark(Command):
    """What every benchmark has."""

    answer_is_output = True


@dataclass(frozen=True, kw_only=True)
class Fidelity(_Benchmark):
    """Tokens and seconds to 90% token accuracy: the paper's recipe against ours, on the same data, side by side."""

    chunk_len: int = 64
    memory_dim: int = 256
    mixer: Literal["attention", "masked_mixer"] = "masked_mixer"
    """The reference's token mixer; the masked mixer is the paper's stronger autoencoder."""
    budget_ratio: float = 60
    """Give the reference at most this many times the tokens that ours took."""
    seed: int = 0

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm_evidence.benchmarks.fidelity import fidelity

        return fidelity(
            chunk_len=self.chunk_len,
            memory_dim=self.memory_dim,
            mixer=self.mixer,
            budget_ratio=self.budget_ratio,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Density(_Benchmark):
    """Held-out fidelity by chunk length and tokens per dimension. If it is interrupted, run it again: it resumes."""

    out: Path = Path("runs/density")
    """Folder of the cells' runs."""
    chunk_lens: tuple[int, ...] = (32, 64, 128, 256)
    tokens_per_dim: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    num_tokens: int = 4_000_000
    """Token budget of every cell."""
    seed: int = 0

    def run(self) -> Answer:
        """Fill the table."""
        from memlm_evidence.benchmarks.density import density_table

        return density_table(
            self.out,
            chunk_lens=self.chunk_lens,
            tokens_per_dim=self.tokens_per_dim,
            num_tokens=self.num_tokens,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Speed(_Benchmark):
    """Tokens per second of training and encoding, ours against the reference, and where a training step's time goes."""

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm_evidence.benchmarks.speed import speed

        return speed()


@dataclass(frozen=True, kw_only=True)
class ProbeSpeed(_Benchmark):
    """How much faster a reader's step is from cached embeddings than with the encoder run again at every step."""

    encoder: str = "smollm2"
    """Any encoder that memlm probe takes."""
    chunk_len: int = 32
    precision: Literal["fp32", "bf16"] = "fp32"

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm_evidence.benchmarks.probe import probe_speed

        return probe_speed(self.encoder, chunk_len=self.chunk_len, precision=self.precision)


@dataclass(frozen=True, kw_only=True)
class Substitution(_Benchmark):
    """What a decoder saves that reads memories in place of tokens: time to first token, speed, cache and operations.

    One past is read as tokens; as memories yet to be made of them (cold); and as memories kept from before (cached).
    """

    chunk_len: int = 256
    """Tokens that one memory stands for."""
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 256
    """Width of the decoder; the larger it is, the less of its time goes into attention."""
    num_layers: int = 4
    """Layers of the decoder."""
    contexts: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    """Lengths of the past in tokens, each a whole number of chunks."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products' type (auto: bf16 where the processor multiplies in it); memories are fp32 either way."""

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm_evidence.benchmarks.substitution import substitution

        return substitution(
            chunk_len=self.chunk_len,
            num_positions=self.num_positions,
            dim=self.dim,
            num_layers=self.num_layers,
            contexts=self.contexts,
            precision=self.precision,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryTraining(_Benchmark):
    """How much faster a memory model's training step is with all chunks at once than with a loop over chunks.

    The loop is the paper's reference code's: one pass of encoder and decoder for each chunk and each objective. It has
    the same weights and gives the same losses. Beside it, on next tokens alone: recurrent memory, which carries memory
    tokens from chunk to chunk, and an encoder-decoder, which attends to all past tokens' states.
    """

    window_chunks: tuple[int, ...] = (4, 8, 16, 32)
    """Chunks of a window; the answer's own numbers are those of the first."""

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm_evidence.benchmarks.memory_training import memory_training

        return memory_training(self.window_chunks)


@dataclass(frozen=True, kw_only=True)
class Recall(_Benchmark, UsesModel, ReadsText):
    """How often a memory model gives back an exact string that stands anywhere in its past.

    Facts are hidden in real text: a name's number or code, the words after a marker. The last chunk asks for one of
    them, and the model answers from the memories of the chunks before. A model answers what it was trained to answer:

    memlm train memory-model --out runs/recall --recall-fraction 0.5

    memlm bench recall runs/recall/model --num-texts 200
    """

    model: tyro.conf.Positional[str]
    """A memory model: a checkpoint folder, or a Hugging Face hub name."""
    num_texts: int = 100
    """Texts for each kind of fact, number of past chunks and distance."""
    kinds: tuple[Literal["digits", "identifier", "words"], ...] = ("digits", "identifier", "words")
    """What to ask for: five digits, eight hexadecimal digits, four words."""
    num_facts: int = 2
    """Facts in each past, of which one is asked for by its name."""
    chunk_len: int | None = None
    """Tokens of the chunks that facts are put in, for a model that reads whole windows as tokens; otherwise its own."""
    text: tuple[str, ...] = ()
    """Real text to put facts in: files, globs, or - for standard input; without any, a novel that comes with memlm."""
    seed: int = 0

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm.text.memory_model import TextMemoryModel
        from memlm_evidence.benchmarks.recall import recall

        texts = self.documents(self.text) if self.text else ()
        return recall(
            TextMemoryModel.from_pretrained(self.model, device=self.device),
            num_texts=self.num_texts,
            kinds=self.kinds,
            seed=self.seed,
            num_facts=self.num_facts,
            chunk_len=self.chunk_len,
            texts=texts,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryFiles(_Benchmark, UsesModel, ReadsText):
    """How fast text is remembered and recalled, how much of that is matrix products, and what rounding memories costs.

    memlm bench memory --json

    memlm bench memory runs/mine/model --text README.md
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input; without any, a novel that comes with memlm."""

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm.text.autoencoder import TextAutoencoder
        from memlm_evidence.benchmarks.memory_files import memory_files

        texts = self.documents(self.text) if self.text else ()
        return memory_files(TextAutoencoder.from_pretrained(self.model, device=self.device), texts)


@dataclass(frozen=True, kw_only=True)
class Everyday(_Benchmark, UsesModel):
    """How much of what people type comes back exactly: words, names, dates, addresses, code, other alphabets, emoji.

    memlm bench everyday --json

    For each kind of text and each length in tokens: the share of texts that are regenerated without an error, from
    their vectors alone. And whether what is wrong is marked as unsure.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder: one that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    num_texts: int = 400
    """Texts of each kind and length."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on the memories, whose root mean square is 1: are errors marked then?"""
    seed: int = 0

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm.text.autoencoder import TextAutoencoder
        from memlm_evidence.benchmarks.everyday import everyday

        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        return everyday(model, num_texts=self.num_texts, noise=self.noise, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Paper(_Benchmark):
    """What training at the paper's sizes takes: parameters, memory, operations, GPU hours.

    Measured on the GPUs this runs on (torchrun --nproc_per_node 8 -m memlm bench paper); without any, computed for
    so many H100, and marked so.
    """

    num_gpus: int = 8
    """GPUs to compute for, where there are none to measure on."""

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm_evidence.benchmarks.paper import paper

        return paper(self.num_gpus)


class Bench(Group):
    """Benchmarks of cost and capacity, where possible as a ratio of two things measured side by side."""

    commands: ClassVar[Mapping[str, str]] = {
        "fidelity": "memlm_evidence.cli.bench:Fidelity",
        "density": "memlm_evidence.cli.bench:Density",
        "speed": "memlm_evidence.cli.bench:Speed",
        "probe": "memlm_evidence.cli.bench:ProbeSpeed",
        "substitution": "memlm_evidence.cli.bench:Substitution",
        "train": "memlm_evidence.cli.bench:MemoryTraining",
        "recall": "memlm_evidence.cli.bench:Recall",
        "memory": "memlm_evidence.cli.bench:MemoryFiles",
        "everyday": "memlm_evidence.cli.bench:Everyday",
        "paper": "memlm_evidence.cli.bench:Paper",
    }
