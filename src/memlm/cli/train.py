"""`memlm train` and `memlm recipe`."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Union

import tyro

from memlm.cli.command import Answer, Command, ReadsText
from memlm.cli.model import show_results
from memlm.config import FileCorpus, HubCorpus, Recipe
from memlm.recipes import RECIPES

AnyRecipe: Any = Annotated[
    Union[  # noqa: UP007  # made of the recipes there are
        tuple(
            Annotated[Recipe, tyro.conf.subcommand(name, constructor=recipe, prefix_name=False)]
            for name, recipe in RECIPES.items()
        )
    ],
    tyro.conf.arg(name=""),
]


@dataclass(frozen=True, kw_only=True)
class Train(ReadsText):
    """Train a recipe; run again after an interruption, the same command resumes from the last checkpoint.

    memlm train autoencoder --out runs/mine --text 'docs/**/*.md' --chunk-len 128 --memory-dim 512

    You can override any field of a recipe's configuration; memlm recipe NAME shows them all:

    memlm train autoencoder --out runs/noisy --set model.memory_noise=0.1 'stages.*.training.precision=fp32'

    With several processes: torchrun --nproc_per_node 2 -m memlm train ... (--set 'stages.*.training.sharded=true'
    divides the model among them)
    """

    recipe: AnyRecipe = field(default_factory=RECIPES["autoencoder"])
    out: Path
    """Folder for checkpoints and metrics; the model is written to its subfolder model."""
    text: tuple[str, ...] = ()
    """Train on these files (globs, or - for standard input) instead of the recipe's corpus."""
    dataset: str | None = None
    """Train on this streamed data set instead of the recipe's corpus: a name on the Hugging Face hub, a folder of
    Parquet or JSON lines files, or a glob of them."""
    set: tuple[str, ...] = ()
    """Override fields of the recipe, each given as path.to.field=value."""

    recipes: ClassVar[Collection[str]] = tuple(RECIPES)

    def run(self) -> Answer:
        """Train, then evaluate on held-out text, and an autoencoder on foreign text too."""
        from memlm.data.token_store import prepare
        from memlm.text.autoencoder import TextAutoencoder
        from memlm.text.evaluation_sets import HELD_OUT, evaluate_standard_sets
        from memlm.training.accelerator import is_main_process
        from memlm.training.footprint import require_fits
        from memlm.training.train import train

        files = self.corpus(self.text) if self.text else None
        recipe = with_corpus(self.recipe, files, self.dataset).with_values(self.set)
        require_fits(recipe)
        prepared = prepare(recipe.data)
        trained = train(recipe, self.out, prepared=prepared)
        if not is_main_process():
            return {}
        if isinstance(trained, TextAutoencoder) and trained.config.search:
            results = []  # the text's part is as it was
            self.say(f"To measure what it finds: memlm bench search {self.out / 'model'}", aside=True)
        elif isinstance(trained, TextAutoencoder):
            results = evaluate_standard_sets(trained, prepared, self.out)
        else:
            results = [trained.evaluate_split(prepared.splits["test"], name=HELD_OUT, quiet=False)]
        if results:
            show_results(self, results)
        self.say(f"The model: {self.out / 'model'}")
        return {
            "model": str(self.out / "model"),
            "tokens_trained": trained.provenance["tokens"],
            "results": [result.to_dict() for result in results],
        }


@dataclass(frozen=True, kw_only=True)
class Recipes(Command):
    """Show a recipe's configuration as JSON: every field that `train --set` can override."""

    recipe: AnyRecipe

    recipes: ClassVar[Collection[str]] = tuple(RECIPES)

    def run(self) -> Answer:
        """Show it."""
        self.say(self.recipe.to_json())
        return asdict(self.recipe)


def with_corpus(recipe: Recipe, files: FileCorpus | None, dataset: str | None) -> Recipe:
    """The recipe on another corpus, if one is given."""
    if files and dataset:
        raise ValueError("give --text or --dataset, not both")
    corpus = files or (HubCorpus(name=dataset) if dataset else recipe.data.corpus)
    return replace(recipe, data=replace(recipe.data, corpus=corpus))
