"""The commands that reproduce the paper's claims."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from memlm.cli.command import Answer, Command, Group, HasWorkers, write_result
from memlm_evidence.claims import decide


@dataclass(frozen=True, kw_only=True)
class OneExperiment(Command):
    """One experiment with its main settings: a subclass has those fields of the experiment's plan that are options."""

    out: Path
    """Folder for the results."""
    seed: int = 0
    """Random seed."""

    experiment: ClassVar[str]
    """Its name in the table of experiments."""

    def plan(self, standard: Any) -> Any:
        """The standard preset's plan, with the values that were given."""
        return self.configured(standard)

    def run(self) -> Answer:
        """Measure, keep the result, say what was found, and write the page of all results in the folder."""
        from memlm_evidence.experiments.table import CLAIMS, EXPERIMENTS, read_results, write_claims_report

        (experiment,) = (each for each in EXPERIMENTS if each.name == self.experiment)
        result = experiment.run(self.out, self.plan(experiment.presets["standard"](self.seed)))
        assert result is not None
        write_result(result, self.out / f"{self.experiment}-seed-{self.seed}.json")
        for line in result.lines():
            self.say(line)
        found = read_results([self.out])
        self.say(f"The whole report: {write_claims_report(decide(found, CLAIMS), found, self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class Embeddings(OneExperiment):
    """Probe embeddings of untrained, causal, retrieval and autoencoder models, trained on equally many tokens.

    Claim: autoencoders' embeddings hold nearly all of 64 tokens (≥ 0.98), the others little, whatever the data and
    compute. Cost: under 15 minutes on two cores for one seed. Models that the folder already holds are not trained
    again.
    """

    out: Path = Path("runs/embeddings")
    """Folder for the trained encoders and the results."""
    chunk_len: int = 64
    """Tokens per chunk."""
    num_tokens: int = 750_000
    """Tokens that every encoder is trained on."""
    mixers: tuple[Literal["attention", "masked_mixer"], ...] = ("masked_mixer",)
    """Mixers of the language models."""
    full: bool = False
    """Also measure every size with every budget, and every objective with every pooling; takes three times as long."""

    experiment: ClassVar[str] = "embeddings"

    def plan(self, standard: Any) -> Any:
        """Also models of fewer tokens; with `full`, all there are."""
        budgets = (self.num_tokens // 4, self.num_tokens // 2, self.num_tokens)
        return replace(self.configured(standard), budgets=budgets, grid=self.full, cross=self.full)


@dataclass(frozen=True, kw_only=True)
class MemoryModels(OneExperiment):
    """Compare memory models by training objective, and with no memory, full context and recurrent memory.

    Claim: causal training leaves memories poor; combined training makes them rich (≥ 0.995 of tokens) at the same
    next-token loss; a frozen autoencoder's encoder with a curriculum makes that cheap.
    Cost: 17 minutes on two cores. Models that the folder already holds are not trained again.
    """

    out: Path = Path("runs/memory-model")
    """Folder for the trained models and the results."""
    chunk_len: int = 32
    """Tokens per chunk."""
    memory_dim: int = 256
    """Dimensions of a memory."""
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 128
    """Width of the decoder."""
    num_tokens: int = 1_000_000
    """Tokens on which every model learns next-token prediction."""
    full: bool = False
    """Also measure an encoder-decoder and an oracle. With half the tokens, also vary the weight of retention, the size
    of the decoder and the way memories enter it. Takes twice as long."""

    experiment: ClassVar[str] = "memory-model"

    def plan(self, standard: Any) -> Any:
        """Variants are trained on half the tokens."""
        return replace(self.configured(standard), variant_tokens=self.num_tokens // 2)


@dataclass(frozen=True, kw_only=True)
class RecallOfFacts(OneExperiment):
    """Measure recall of exact strings from the past: from combined or causal memories, and from the tokens themselves.

    Claim: memories of combined training give back facts that are asked for by their keys (≥ 0.95 of the strings, at
    every distance); memories of causal training do not.
    Cost: some 16 minutes per model on a core. Models that the folder already holds are not trained again.
    """

    out: Path = Path("runs/memory-model")
    """Folder for the trained models and the results."""
    pointer_span: int = 12
    """Tokens in a key of the pointer, by which the decoder finds what it copies. With 0 there is no pointer, and the
    decoder only reads memories as positions."""
    reading_fraction: float = 0.25
    """Share of the tokens on which the combined model first learns only to read memories."""
    num_tokens: int = 8_000_000
    """Tokens that every model is trained on."""
    num_texts: int = 1000
    """Number of texts for each kind of fact, number of past chunks and distance."""
    models: tuple[Literal["combined", "causal", "full_context"], ...] = ("combined", "causal", "full_context")
    """The models to train and measure; full_context reads the past as tokens."""

    experiment: ClassVar[str] = "recall"


@dataclass(frozen=True, kw_only=True)
class NonInvertible(OneExperiment, HasWorkers):
    """Measure, on sources of known entropy, whether next-token prediction keeps more than the past's predictive state.

    Claim: of 64 tokens of a Markov chain, causal training keeps the state (≥ 0.9 of its bits) and little else (< 0.2
    of the rest); regeneration and combined training keep all (≥ 0.95). All keep what later questions ask for.
    Two more comparisons: memories of few bits with the rate-distortion limit, and retained bits with the exact mutual
    information. The argument, with proofs: docs/theory.md.
    Cost: under 20 minutes on two cores. If it is interrupted, run it again: it resumes.
    """

    out: Path = Path("runs/non-invertible")
    """Folder for the results."""
    chunk_lens: tuple[int, ...] = (64, 32, 16)
    """Tokens per chunk for the Markov chain; each length is measured."""
    chunk_len: int = 32
    """Tokens per chunk for the other sources."""
    steps: int = 600
    """Training steps of each model."""
    reading_steps: int = 200
    """Training steps of each reader."""
    num_windows: int = 1024
    """Number of windows, of two chunks each, that each model is measured on."""
    workers: int = 0
    """Number of processes that measure side by side; 0 is one per core."""

    experiment: ClassVar[str] = "non-invertible"

    def plan(self, standard: Any) -> Any:
        """The options are those of the plan for states."""
        return replace(standard, state=self.configured(standard.state), **self.who(self.workers))


class Reproduce(Group):
    """Measure and decide the paper's claims: all, some by name, or one experiment with its settings."""

    commands: ClassVar[Mapping[str, str]] = {
        "claims": "memlm_evidence.cli.claims:Claims",
        "embeddings": "memlm_evidence.cli.reproduce:Embeddings",
        "memory-model": "memlm_evidence.cli.reproduce:MemoryModels",
        "recall": "memlm_evidence.cli.reproduce:RecallOfFacts",
        "non-invertible": "memlm_evidence.cli.reproduce:NonInvertible",
    }
    default = "claims"
