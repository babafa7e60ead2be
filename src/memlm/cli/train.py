"""`memlm train` and `memlm recipe`."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from memlm.cli.command import Answer, Command, ReadsText
from memlm.cli.evaluate import show_prediction, show_results
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
        show_results(self, results)
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
        show_prediction(self, result)
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
