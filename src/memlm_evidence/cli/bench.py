"""`memlm bench`."""

from collections.abc import Mapping
from typing import ClassVar

from memlm.cli.command import Group


class Bench(Group):
    """Benchmarks of cost and capacity, where possible as a ratio of two things measured side by side."""

    commands: ClassVar[Mapping[str, str]] = {
        "campaign": "memlm_evidence.campaign.campaign:Campaign",
        "density": "memlm_evidence.benchmarks.density:Density",
        "drift": "memlm_evidence.benchmarks.drift:Drift",
        "everyday": "memlm_evidence.benchmarks.everyday:Everyday",
        "fidelity": "memlm_evidence.benchmarks.fidelity:Fidelity",
        "generation": "memlm_evidence.benchmarks.generation:Generation",
        "memory": "memlm_evidence.benchmarks.memory_files:MemoryFiles",
        "paper": "memlm_evidence.benchmarks.paper:Paper",
        "probe": "memlm_evidence.benchmarks.probe:ProbeSpeed",
        "reader": "memlm_evidence.benchmarks.reader:ReaderBenchmark",
        "recall": "memlm_evidence.benchmarks.recall:Recall",
        "search": "memlm_evidence.benchmarks.search:Search",
        "size": "memlm_evidence.benchmarks.size:Size",
        "speed": "memlm_evidence.benchmarks.speed:Speed",
        "substitution": "memlm_evidence.benchmarks.substitution:Substitution",
        "train": "memlm_evidence.benchmarks.memory_training:MemoryTraining",
    }
