"""`memlm bench`."""

from collections.abc import Mapping
from typing import ClassVar

from memlm.cli.command import Group


class Bench(Group):
    """Run a benchmark of cost or capacity. Where possible, it gives the ratio of two things measured side by side."""

    commands: ClassVar[Mapping[str, str]] = {
        "campaign": "memlm_evidence.campaign.campaign:Campaign",
        "correction": "memlm_evidence.benchmarks.correction:Correction",
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
        "serve": "memlm_evidence.benchmarks.serving:Serving",
        "size": "memlm_evidence.benchmarks.size:Size",
        "speed": "memlm_evidence.benchmarks.speed:Speed",
        "store": "memlm_evidence.benchmarks.vector_store:StoreBenchmark",
        "substitution": "memlm_evidence.benchmarks.substitution:Substitution",
        "train": "memlm_evidence.benchmarks.memory_training:MemoryTraining",
    }
