"""The command that varies a recipe's fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Union, get_args

import tyro

from memlm.cli.command import Answer, HasWorkers, ReadsText
from memlm.cli.train import AnyRecipe, with_corpus
from memlm.recipes import RECIPES
from memlm_evidence.sweep.ablations import ABLATIONS
from memlm_evidence.sweep.config import Axis, SweepConfig

Varied: Any = Annotated[
    Union[  # made of the recipes and ablations there are
        (
            *get_args(get_args(AnyRecipe)[0]),
            *(
                Annotated[SweepConfig, tyro.conf.subcommand(name, constructor=ablation, prefix_name=False)]
                for name, ablation in ABLATIONS.items()
            ),
        )
    ],
    tyro.conf.arg(name=""),
]


@dataclass(frozen=True, kw_only=True)
class Sweep(ReadsText, HasWorkers):
    """Train and evaluate a recipe with every combination of some fields' values.

    memlm sweep autoencoder --over model.shape.memory_dim=128,256 model.memory_noise=0,0.1 --out runs/sweep

    Fields that change together are named together. Name a variant, such as a mixer, by its kind:

    memlm sweep autoencoder --grown-from 0 --over model.encoder.mixer,model.decoder.mixer=attention,masked_mixer ...

    If the command is interrupted, run it again: it resumes. If you give more values, only the new ones are trained.
    Several processes and machines may share the folder. Ablations are ready-made sweeps:

    memlm sweep architecture --out runs/architecture

    On a Ray cluster, with a folder that all its machines share:

    memlm sweep architecture --out /shared/architecture --workers 0 --ray-address auto
    """

    recipe: Varied = field(default_factory=RECIPES["autoencoder"])
    over: tuple[str, ...] = ()
    """The fields to vary, each given as path.to.field=value,value. Values are written as for --set."""
    out: Path
    """Folder for the results and models of all runs, and for report.html."""
    seeds: tuple[int, ...] = ()
    """Train every combination with each of these random seeds; by default with the recipe's own seed."""
    shard: str = "0/1"
    """Train only a part of the runs, given as i/n: 0/4 is the first of four parts, 3/4 the last."""
    workers: int = 1
    """Number of processes that train side by side and share the cores; 0 is one per core."""
    retry: bool = False
    """Train failed runs again."""
    text: tuple[str, ...] = ()
    """Train on these files (globs) instead of the recipe's corpus."""
    dataset: str | None = None
    """Train on this streamed data set instead of the recipe's corpus: a name on the Hugging Face hub, a folder of
    Parquet or JSON lines files, or a glob of them."""
    set: tuple[str, ...] = ()
    """Override fields of the recipe in all runs, each given as path.to.field=value."""

    def run(self) -> Answer:
        """Train, evaluate, compare."""
        from memlm_evidence.sweep.page import best_of
        from memlm_evidence.sweep.rows import read_sweep
        from memlm_evidence.sweep.run import Shard, run_sweep

        shard, who = Shard.parse(self.shard), self.who(self.workers)
        path = run_sweep(self._sweep(), self.out, shard=shard, retry=self.retry, **who)
        swept = read_sweep(self.out)
        for run, fault in swept.failures:
            self.say(f"failed: {run}: {fault}")
        if not swept.rows and not swept.num_left:
            raise ValueError(f"nothing could be trained; {path} says why")
        total = len(swept.rows) + len(swept.failed) + swept.num_left
        self.say(f"{len(swept.rows)} of {total} runs measured; the best is {best_of(swept) or 'not known'}")
        self.say(f"The whole report: {path}")
        return {
            "name": swept.sweep.name,
            "cells": list(map(_told, swept.rows)),
            "failed": list(map(_told, swept.failed)),
            "num_left": swept.num_left,
            "best": swept.combinations[0].values if swept.rows else None,
            "report": str(path),
        }

    def _sweep(self) -> SweepConfig:
        """What is asked for, an ablation or a recipe, as one."""
        asked = self.recipe
        if not isinstance(asked, SweepConfig):
            asked = SweepConfig(name=asked.name, recipe=asked, axes=())
        if "-" in self.text:
            raise ValueError("a sweep reads its text more than once: give --text a file, not standard input")
        files = self.corpus(self.text) if self.text else None
        recipe = with_corpus(asked.recipe, files, self.dataset).with_values(self.set)
        axes = (*asked.axes, *map(Axis.parse, self.over))
        if not axes and not self.seeds:
            raise ValueError("nothing is varied: give --over path.to.field=value,value, or --seeds, or an ablation")
        return replace(asked, recipe=recipe, axes=axes, seeds=self.seeds)


def _told(row: Mapping[str, Any]) -> Answer:
    """A row without its recipe, which is in the folder."""
    return {name: value for name, value in row.items() if name != "recipe"}
