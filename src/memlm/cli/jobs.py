"""The commands that train, evaluate and show."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from memlm.cli.command import Answer, Command, ReadsText, UsesModel
from memlm.config import FileCorpus, HubCorpus, LanguageModelRecipe, MemoryModelRecipe, RecipeConfig
from memlm.recipes import LANGUAGE_MODELS, MEMORY_MODELS, RECIPES
from memlm.text.regenerated import Regenerated

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
class Train(ReadsText):
    """Train a recipe. If it is interrupted, run the same command again: it resumes from its last checkpoint.

    memlm train autoencoder --out runs/mine --text 'docs/**/*.md' --chunk-len 128 --memory-dim 512

    Any field of a recipe's configuration can be overridden; memlm recipe NAME shows them all:

    memlm train autoencoder --out runs/noisy --set model.memory_noise=0.1 training.precision=fp32

    Several processes: torchrun --nproc_per_node 2 -m memlm train ... (--set training.sharded=true divides the model)
    """

    recipe: Recipe = field(default_factory=RECIPES["autoencoder"])
    out: Path
    """Folder for checkpoints, metrics and the model, which will be in its subfolder model."""
    text: tuple[str, ...] = ()
    """Train on these files (globs, or - for standard input) instead of the recipe's corpus."""
    dataset: str | None = None
    """Train on this Hugging Face dataset, streamed, instead of the recipe's corpus."""
    set: tuple[str, ...] = ()
    """Override fields of the recipe, as path.to.field=value."""

    def run(self) -> Answer:
        """Train, then evaluate on held-out and foreign text."""
        from memlm.data.token_store import prepare
        from memlm.training.evaluated import train_and_evaluate
        from memlm.training.footprint import require_fits

        files = self.corpus(self.text) if self.text else None
        recipe = with_corpus(self.recipe, files, self.dataset).with_values(self.set)
        require_fits(recipe)
        match recipe:
            case LanguageModelRecipe():
                return self._language_model(recipe)
            case MemoryModelRecipe():
                return self._memory_model(recipe)
        _, results = train_and_evaluate(recipe, prepare(recipe.data), self.out)
        if not results:  # only the main process reports
            return {}
        _show_results(self, results)
        self.say(f"The model: {self.out / 'model'}")
        return {"model": str(self.out / "model"), "results": [result.to_dict() for result in results]}

    def _language_model(self, recipe: LanguageModelRecipe) -> Answer:
        from memlm.data.token_store import prepare
        from memlm.text.evaluation_sets import HELD_OUT
        from memlm.training.accelerator import is_main_process
        from memlm.training.language_model import train_language_model

        prepared = prepare(recipe.data)
        trained = train_language_model(recipe, self.out, prepared=prepared)
        if not is_main_process():
            return {}
        result = trained.evaluate_split(prepared.splits["test"], name=HELD_OUT)
        self.say(f"next-token loss on held-out text: {result.causal_nats_per_token:.4f} nats/token")
        self.say(f"The model: {self.out / 'model'}; memlm probe and memlm settle measure what its hidden states hold")
        return {
            "model": str(self.out / "model"),
            "tokens_trained": trained.provenance["tokens"],
            "results": [result.to_dict()],
        }

    def _memory_model(self, recipe: MemoryModelRecipe) -> Answer:
        from memlm.data.token_store import prepare
        from memlm.text.evaluation_sets import HELD_OUT
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
    """Show a recipe's whole configuration as JSON: every field that `train --set` can override."""

    recipe: Recipe

    def run(self) -> Answer:
        """Show it."""
        self.say(self.recipe.to_json())
        return asdict(self.recipe)


@dataclass(frozen=True, kw_only=True)
class Evaluate(UsesModel, ReadsText):
    """Measure how much of a text a model's memories give back.

    memlm evaluate english --text README.md --json
    """

    model: tyro.conf.Positional[str]
    """A model that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input; without any, the texts that come with memlm: a novel, verse, source code
    and random tokens."""

    def run(self) -> Answer:
        """Evaluate and show."""
        import memlm
        from memlm.text.checkpoint_folder import kind_of
        from memlm.text.evaluation_sets import evaluate_sets, foreign_sets

        if kind_of(self.model) == "memory_model":
            return self._memory_model()
        model = memlm.load(self.model, device=self.device)
        if self.text:
            texts = self.documents(self.text)
            results = [model.evaluate(texts, name="text", quiet=False)]
        else:
            results = evaluate_sets(model, foreign_sets(model.tokenizer))
        _show_results(self, results)
        answer = [result.to_dict() for result in results]
        return answer[0] if self.text else {"results": answer}

    def _memory_model(self) -> Answer:
        from memlm.text.memory_model import TextMemoryModel

        if not self.text:
            raise ValueError("a memory model has no standard texts to be evaluated on: give --text")
        texts = self.documents(self.text)
        result = TextMemoryModel.from_pretrained(self.model, device=self.device).evaluate(
            texts, name="text", quiet=False
        )
        _show_prediction(self, result)
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class Regenerate(UsesModel, ReadsText):
    """Encode text into memories, decode them again, and show what comes back.

    echo 'Fellow citizens of the Senate: ...' | memlm regenerate english

    In a terminal, wrong tokens are marked, and those that the model itself is unsure of. Into a pipe or a file goes the
    regenerated text and nothing else:

    memlm regenerate english --text README.md > regenerated.md
    """

    model: tyro.conf.Positional[str]
    """A model that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ("-",)
    """Files, globs, or - for standard input."""

    def run(self) -> Answer:
        """Regenerate and show."""
        import memlm
        from memlm.text.samples import regenerated
        from memlm_evidence.pages.terminal import print_samples

        model, texts = memlm.load(self.model, device=self.device), self.documents(self.text)
        if not self.json and not sys.stdout.isatty():
            self._write(texts, model.regenerate(model.encode(texts)))
            return {}
        samples = list(regenerated(model, texts))
        print_samples(self.console(), samples)
        return {"samples": samples}

    def _write(self, texts: Sequence[str], regenerated: Sequence[Regenerated]) -> None:
        """What came back, byte for byte; on standard error whether it is what was sent, and what may be wrong."""
        for number, (text, back) in enumerate(zip(texts, regenerated, strict=True)):
            sys.stdout.buffer.write(back.encode())
            verdict = "regenerated without an error" if back == text else "regenerated with errors"
            unsure = "".join(f"; unsure: {back[start:end]!r} at character {start}" for start, end in back.unsure[:5])
            self.say(f"text {number}: {verdict}{unsure}", aside=True)
        sys.stdout.buffer.flush()


def with_corpus(
    recipe: RecipeConfig | LanguageModelRecipe | MemoryModelRecipe,
    files: FileCorpus | None,
    dataset: str | None,
) -> RecipeConfig | LanguageModelRecipe | MemoryModelRecipe:
    """The recipe on another corpus, if one is given."""
    if files and dataset:
        raise ValueError("give --text or --dataset, not both")
    corpus = files or (HubCorpus(name=dataset) if dataset else recipe.data.corpus)
    return replace(recipe, data=replace(recipe.data, corpus=corpus))


def _show_prediction(command: Command, result: Any) -> None:
    from memlm.runtime.wording import in_words

    by_chunk = ", ".join(f"{nats:.3f}" for nats in result.causal_nats_by_chunk)
    command.say(f"next-token loss: {result.causal_nats_per_token:.4f} nats/token; by number of past chunks: {by_chunk}")
    if "retention" in result.measures:
        command.say(f"{in_words(result.retention['token_accuracy'], 2)} of the tokens come back from its memories")


def _show_results(command: Command, results: list[Any]) -> None:
    from memlm_evidence.pages.terminal import print_metrics

    print_metrics(command.console(), results)
