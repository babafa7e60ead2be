"""The commands that train, evaluate and show."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from memlm.cli.command import Answer, Command
from memlm.config import FileCorpus, HubCorpus, LanguageModelRecipe, MemoryModelRecipe, RecipeConfig
from memlm.recipes import LANGUAGE_MODELS, MEMORY_MODELS, RECIPES

Recipe: Any = Annotated[
    Union[  # noqa: UP007  # made of the recipes there are
        tuple(
            Annotated[kind, tyro.conf.subcommand(name, constructor=recipe, prefix_name=False)]
            for kind, recipes in (
                (RecipeConfig, RECIPES),
                (LanguageModelRecipe, LANGUAGE_MODELS),
                (MemoryModelRecipe, MEMORY_MODELS),
            )
            for name, recipe in recipes.items()
        )
    ],
    tyro.conf.arg(name=""),
]


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

    Several processes: torchrun --nproc_per_node 2 -m memlm train ... (--set training.sharded=true divides the model)
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
        from memlm.data.token_store import prepare
        from memlm.demo import train_and_evaluate
        from memlm.training.footprint import require_fits

        recipe = with_corpus(self.recipe, self.text, self.dataset, self.errors).with_values(self.set)
        require_fits(recipe)
        match recipe:
            case LanguageModelRecipe():
                return self._language_model(recipe)
            case MemoryModelRecipe():
                return self._memory_model(recipe)
        _, results = train_and_evaluate(recipe, prepare(recipe.data), self.out)
        if not results:  # this is not the process that speaks
            return {}
        _show_results(self, results)
        self.say(f"The model: {self.out / 'model'}")
        return {"model": str(self.out / "model"), "results": [result.to_dict() for result in results]}

    def _language_model(self, recipe: LanguageModelRecipe) -> Answer:
        from memlm.data.token_store import prepare
        from memlm.evaluation_sets import HELD_OUT
        from memlm.training.accelerator import is_main_process
        from memlm.training.language_model import train_language_model

        prepared = prepare(recipe.data)
        trained = train_language_model(recipe, self.out, prepared=prepared)
        if not is_main_process():
            return {}
        result = trained.evaluate_split(prepared.splits["test"], name=HELD_OUT)
        self.say(f"next tokens of held-out text: {result.causal_nats_per_token:.4f} nats/token")
        self.say(f"The model: {self.out / 'model'}; memlm probe or memlm settle tell what its states hold")
        return {
            "model": str(self.out / "model"),
            "tokens_trained": trained.provenance["tokens"],
            "results": [result.to_dict()],
        }

    def _memory_model(self, recipe: MemoryModelRecipe) -> Answer:
        from memlm.data.token_store import prepare
        from memlm.evaluation_sets import HELD_OUT
        from memlm.training.accelerator import is_main_process
        from memlm.training.memory_model import train_memory_model

        prepared = prepare(recipe.data)
        trained = train_memory_model(recipe, self.out, prepared=prepared)
        if not is_main_process():
            return {}
        result = trained.evaluate_split(prepared.splits["test"], name=HELD_OUT, quiet=False)
        _show_prediction(self, result)
        self.say(f"The model: {self.out / 'model'}")
        return {"model": str(self.out / "model"), "results": [result.to_dict()]}


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
        from memlm.checkpoint_folder import kind_of
        from memlm.evaluation_sets import evaluate_sets, foreign_sets

        if kind_of(self.model) == "memory_model":
            return self._memory_model()
        model = memlm.load(self.model)
        if self.text:
            texts = read_texts(self.text, self.errors)
            results = [model.evaluate(texts, name="text", quiet=False)]
        else:
            results = evaluate_sets(model, foreign_sets(model.tokenizer))
        _show_results(self, results)
        answer = [result.to_dict() for result in results]
        return answer[0] if self.text else {"results": answer}

    def _memory_model(self) -> Answer:
        from memlm.text_memory_model import TextMemoryModel

        if not self.text:
            raise ValueError("a memory model is evaluated on text of your own: give --text")
        texts = read_texts(self.text, self.errors)
        result = TextMemoryModel.from_pretrained(self.model).evaluate(texts, name="text", quiet=False)
        _show_prediction(self, result)
        return result.to_dict()


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

        samples = list(regenerated(memlm.load(self.model), read_texts(self.text, self.errors)))
        print_samples(Console(stderr=self.json), samples)
        return {"samples": samples}


def with_corpus(
    recipe: RecipeConfig | LanguageModelRecipe | MemoryModelRecipe,
    text: tuple[str, ...],
    dataset: str | None,
    errors: Literal["strict", "replace"],
) -> RecipeConfig | LanguageModelRecipe | MemoryModelRecipe:
    """The recipe on another corpus, if one is given."""
    if text and dataset:
        raise ValueError("give --text or --dataset, not both")
    if text:
        return replace(recipe, data=replace(recipe.data, corpus=FileCorpus(paths=text, errors=errors)))
    if dataset:
        return replace(recipe, data=replace(recipe.data, corpus=HubCorpus(name=dataset)))
    return recipe


def read_texts(paths: tuple[str, ...], errors: Literal["strict", "replace"]) -> list[str]:
    """The documents that files, globs and standard input hold."""
    from memlm.data.corpus import read_documents

    return [document.text for document in read_documents(FileCorpus(paths=paths, errors=errors))]


def _show_prediction(command: Command, result: Any) -> None:
    by_chunk = ", ".join(f"{nats:.3f}" for nats in result.causal_nats_by_chunk)
    command.say(f"next tokens: {result.causal_nats_per_token:.4f} nats/token; by chunks behind them: {by_chunk}")
    if "retention" in result.measures:
        command.say(f"its memories give back {result.retention['token_accuracy']:.4f} of the tokens")


def _show_results(command: Command, results: list[Any]) -> None:
    from rich.console import Console

    from memlm.report.terminal import print_metrics

    print_metrics(Console(stderr=command.json), results)
