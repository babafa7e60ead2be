"""All experiments and their claims, in the order of the argument."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memlm_evidence.claims import Claim, ExperimentResult
from memlm_evidence.experiments.costs import MEMORY_TRAINING, SUBSTITUTION
from memlm_evidence.experiments.embeddings import EMBEDDINGS
from memlm_evidence.experiments.exact_recall import EXACT_RECALL
from memlm_evidence.experiments.experiment import Experiment
from memlm_evidence.experiments.foreign_text import FOREIGN_TEXT
from memlm_evidence.experiments.memory_model import MEMORY_MODEL
from memlm_evidence.experiments.non_invertible import NON_INVERTIBLE
from memlm_evidence.experiments.settle_causal import SETTLE_CAUSAL

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    EMBEDDINGS,
    FOREIGN_TEXT,
    MEMORY_MODEL,
    EXACT_RECALL,
    SUBSTITUTION,
    MEMORY_TRAINING,
    NON_INVERTIBLE,
    SETTLE_CAUSAL,
)
CLAIMS: tuple[Claim[Any], ...] = tuple(
    replace(claim, experiment=experiment.name) for experiment in EXPERIMENTS for claim in experiment.claims
)
PRESETS = ("quick", "standard", "paper")


def named(names: Sequence[str]) -> list[Claim[Any]]:
    """The claims of these names, in the order of the argument; all, without any.

    Raises:
        ValueError: there is no such claim; says which is nearest.
    """
    known = [claim.name for claim in CLAIMS]
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"there is no claim {name!r}; did you mean {nearest}? There are {', '.join(known)}")
    return [claim for claim in CLAIMS if not names or claim.name in names]


def read_results(folders: Sequence[Path]) -> Mapping[str, list[Any]]:
    """The results in folders, by experiment, one for each seed.

    A file is named by its experiment, and by its seed if it is one of several: `recall.json`, `recall-seed-2.json`. It
    holds one result, or a list of them. Files of other names are left alone.

    Raises:
        ValueError: a folder that does not exist, or the file that is no such result: names the field that is absent.
    """
    known = {experiment.name: experiment.result for experiment in EXPERIMENTS}
    found: dict[str, list[Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; give one that `memlm reproduce` has written into")
        for path in sorted(folder.glob("*.json")):
            name = path.stem.split("-seed-")[0]
            if name in known:
                found.setdefault(name, []).extend(_read(path, known[name]))
    return found


def _read(path: Path, result: type[ExperimentResult]) -> list[ExperimentResult]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return [result.from_dict(row) for row in (read if isinstance(read, list) else [read])]
    except ValueError as error:
        raise ValueError(f"{path} is not a result that memlm wrote: {error}") from None
