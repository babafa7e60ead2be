"""The command line, generated from dataclasses; nothing heavy is imported before a command needs it."""

import json as json_format
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from memlm.config import FileCorpus, HubCorpus, RecipeConfig
from memlm.recipes import RECIPES

Recipe: Any = Annotated[
    Union[  # noqa: UP007  # made of the recipes there are
        tuple(
            Annotated[RecipeConfig, tyro.conf.subcommand(name, constructor=recipe, prefix_name=False)]
            for name, recipe in RECIPES.items()
        )
    ],
    tyro.conf.arg(name=""),
]
Answer = Mapping[str, Any]
# Options may follow a subcommand's name, where people look for them: memlm train demo --out runs/mine
CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has."""

    json: bool = False
    """Print one JSON object on standard output, and everything else on standard error."""

    def run(self) -> Answer:
        """Do it; returns what `--json` prints."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr if self.json else sys.stdout)


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Train an autoencoder on presidential addresses, regenerate unseen ones, and write a page about it.

    One vector for 64 tokens. Takes minutes on two cores; stopped and started again it goes on where it was.
    """

    out: Path = Path("demo")
    """Folder for model, metrics, samples and report.html."""
    reference: bool = False
    """Also train the paper's recipe, on as many tokens, instead of showing its recorded run."""
    seed: int = 0

    def run(self) -> Answer:
        """Run the demo and show it."""
        from rich.console import Console

        from memlm.demo import run_demo
        from memlm.report.terminal import print_metrics, print_samples

        demo = run_demo(self.out, train_reference=self.reference, seed=self.seed)
        console = Console(stderr=self.json)
        print_samples(console, demo.samples)
        print_metrics(console, demo.results)
        self.say(f"The whole report: {demo.report}")
        return demo.summary()


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a recipe. Killed and run again, it goes on where it was.

    memlm train autoencoder --out runs/mine --text 'books/*.txt' --chunk-len 128 --memory-dim 512

    Any field of a recipe's configuration can be set; memlm recipe NAME shows them all:

    memlm train autoencoder --out runs/noisy --set model.memory_noise=0.1 training.precision=fp32

    Several processes: torchrun --nproc_per_node 2 -m memlm train ...
    """

    recipe: Recipe = field(default_factory=RECIPES["autoencoder"])
    out: Path
    """Folder for checkpoints, metrics and the model."""
    text: tuple[str, ...] = ()
    """Train on these files (globs, or - for standard input) instead of the recipe's corpus."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with invalid UTF-8 in them: stop with the byte offset, or put U+FFFD in its place."""
    dataset: str | None = None
    """Train on this Hugging Face dataset, streamed, instead of the recipe's corpus."""
    set: tuple[str, ...] = ()
    """Fields of the recipe to set anew, as path.to.field=value."""

    def run(self) -> Answer:
        """Train, then evaluate on held-out and foreign text."""
        from memlm.demo import train_and_evaluate

        recipe = _with_corpus(self.recipe, self.text, self.dataset, self.errors).with_values(self.set)
        _, results = train_and_evaluate(recipe, self.out)
        if not results:  # this is not the process that speaks
            return {}
        _show_results(self, results)
        self.say(f"The model: {self.out / 'model'}")
        return {"model": str(self.out / "model"), "results": [result.to_dict() for result in results]}


@dataclass(frozen=True, kw_only=True)
class Recipes(Command):
    """Show a recipe's whole configuration as JSON: every field that `train --set` can set."""

    recipe: Recipe

    def run(self) -> Answer:
        """Show it."""
        self.say(self.recipe.to_json())
        return asdict(self.recipe)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure how much of a text a model's memories give back.

    memlm evaluate english --text novel.txt --json
    """

    model: tyro.conf.Positional[str]
    """A model in the box (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input; without any, the texts that come with memlm: a novel, verse, source code
    and random tokens."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with invalid UTF-8: stop with the byte offset, or put U+FFFD in its place."""

    def run(self) -> Answer:
        """Evaluate and show."""
        import memlm
        from memlm.evaluation_sets import evaluate_sets, foreign_sets

        model = memlm.load(self.model)
        if self.text:
            texts = _read_texts(self.text, self.errors)
            results = [model.evaluate(texts, name="text", quiet=False)]
        else:
            results = evaluate_sets(model, foreign_sets(model.tokenizer))
        _show_results(self, results)
        answer = [result.to_dict() for result in results]
        return answer[0] if self.text else {"results": answer}


@dataclass(frozen=True, kw_only=True)
class Regenerate(Command):
    """Send text through a model's memories and show what comes back, wrong tokens marked.

    echo 'Fellow citizens of the Senate: ...' | memlm regenerate english
    """

    model: tyro.conf.Positional[str]
    """A model in the box (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ("-",)
    """Files, globs, or - for standard input."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with invalid UTF-8: stop with the byte offset, or put U+FFFD in its place."""

    def run(self) -> Answer:
        """Regenerate and show."""
        from rich.console import Console

        import memlm
        from memlm.report.terminal import print_samples
        from memlm.samples import regenerated

        samples = list(regenerated(memlm.load(self.model), _read_texts(self.text, self.errors)))
        print_samples(Console(stderr=self.json), samples)
        return {"samples": samples}


@dataclass(frozen=True, kw_only=True)
class Fidelity(Command):
    """Tokens and seconds to 90% token accuracy: the paper's recipe against ours, on the same data, side by side."""

    chunk_len: int = 64
    memory_dim: int = 256
    mixer: Literal["attention", "masked_mixer"] = "masked_mixer"
    """The reference's token mixer; the masked mixer is the paper's stronger autoencoder."""
    budget_ratio: float = 25
    """Give the reference at most this many times the tokens and the time that ours took."""
    seed: int = 0

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm.benchmarks.fidelity import fidelity

        return fidelity(
            chunk_len=self.chunk_len,
            memory_dim=self.memory_dim,
            mixer=self.mixer,
            budget_ratio=self.budget_ratio,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Density(Command):
    """Held-out fidelity by chunk length and tokens per dimension. Stopped and started again it goes on where it was."""

    out: Path = Path("runs/density")
    """Folder of the cells' runs."""
    chunk_lens: tuple[int, ...] = (32, 64, 128, 256)
    tokens_per_dim: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    num_tokens: int = 4_000_000
    """Token budget of every cell."""
    seed: int = 0

    def run(self) -> Answer:
        """Fill the table."""
        from memlm.benchmarks.density import density_table

        return density_table(
            self.out,
            chunk_lens=self.chunk_lens,
            tokens_per_dim=self.tokens_per_dim,
            num_tokens=self.num_tokens,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Speed(Command):
    """Tokens per second of training and encoding, ours against the reference, and where a training step's time goes."""

    def run(self) -> Answer:
        """Run the benchmark."""
        from memlm.benchmarks.speed import speed

        return speed()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Benchmarks: ratios of two things run side by side."""

    benchmark: Annotated[
        Annotated[Fidelity, tyro.conf.subcommand("fidelity")]
        | Annotated[Density, tyro.conf.subcommand("density")]
        | Annotated[Speed, tyro.conf.subcommand("speed")],
        tyro.conf.arg(name=""),
    ]


Commands = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Recipes, tyro.conf.subcommand("recipe")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Regenerate, tyro.conf.subcommand("regenerate")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def main() -> None:
    """memlm: measure, make and use vectors that hold a whole chunk of text."""
    try:
        chosen = tyro.cli(Commands, prog="memlm", description=main.__doc__, config=CONFIG)
        command: Command = chosen.benchmark if isinstance(chosen, Bench) else chosen
        answer = command.run()
        if command.json and answer:
            print(json_format.dumps(answer))
        elif isinstance(command, Fidelity | Density | Speed):
            print(json_format.dumps(answer, indent=2))
        sys.stdout.flush()
    except (ValueError, OSError, FloatingPointError) as error:
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Exception) -> None:
    if isinstance(error, BrokenPipeError):
        # The reader of our output is gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        print(f"memlm: {error}", file=sys.stderr)
    sys.exit(2)


def _with_corpus(
    recipe: RecipeConfig, text: tuple[str, ...], dataset: str | None, errors: Literal["strict", "replace"]
) -> RecipeConfig:
    if text and dataset:
        raise ValueError("give --text or --dataset, not both")
    if text:
        return replace(recipe, data=replace(recipe.data, corpus=FileCorpus(paths=text, errors=errors)))
    if dataset:
        return replace(recipe, data=replace(recipe.data, corpus=HubCorpus(name=dataset)))
    return recipe


def _read_texts(paths: tuple[str, ...], errors: Literal["strict", "replace"]) -> list[str]:
    from memlm.data.corpus import read_documents

    return [document.text for document in read_documents(FileCorpus(paths=paths, errors=errors))]


def _show_results(command: Command, results: list[Any]) -> None:
    from rich.console import Console

    from memlm.report.terminal import print_metrics

    print_metrics(Console(stderr=command.json), results)
