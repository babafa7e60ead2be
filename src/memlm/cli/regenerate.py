"""`memlm regenerate`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.text.memory import Regenerated


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
        from memlm.cli.show import print_samples
        from memlm.text.samples import regenerated

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
