"""The command people run first."""

from dataclasses import dataclass
from pathlib import Path

from memlm.cli.command import Answer, Command


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Train an autoencoder on presidential addresses, regenerate held-out ones, and write a report.

    One vector holds 64 tokens. It takes minutes on two cores. If it is interrupted, run it again: it resumes.
    """

    out: Path = Path("demo")
    """Folder for the model, metrics, samples and report.html."""
    reference: bool = False
    """Also train the paper's recipe here, on as many tokens. By default the report shows a recorded run of it."""
    seed: int = 0
    """Random seed."""

    def run(self) -> Answer:
        """Run the demo and show it."""
        from memlm.cli.show import print_metrics, print_samples
        from memlm_evidence.demo import run_demo

        demo = run_demo(self.out, train_reference=self.reference, seed=self.seed)
        console = self.console()
        print_samples(console, demo.samples)
        print_metrics(console, demo.results)
        self.say(f"The whole report: {demo.report}")
        return demo.summary()
