"""`memlm evaluate`, and how measures are shown."""

from dataclasses import dataclass
from typing import Any

import tyro

from memlm.cli.command import Answer, Command, ReadsText, UsesModel


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
        from memlm.config import MemoryModelConfig
        from memlm.text.checkpoint_folder import config_class
        from memlm.text.evaluation_sets import evaluate_sets, foreign_sets

        if config_class(self.model) is MemoryModelConfig:
            return self._memory_model()
        model = memlm.load(self.model, device=self.device)
        if self.text:
            texts = self.documents(self.text)
            results = [model.evaluate(texts, name="text", quiet=False)]
        else:
            results = evaluate_sets(model, foreign_sets(model.tokenizer))
        show_results(self, results)
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
        show_results(self, [result])
        return result.to_dict()


def show_results(command: Command, results: list[Any]) -> None:
    """An autoencoder's measures as a table; of a model that predicts, what next tokens cost."""
    from memlm.cli.show import print_metrics
    from memlm.runtime.wording import in_words

    measures = results[0].measures
    if "causal_nats_per_token" not in measures:
        print_metrics(command.console(), results)
        return
    by_chunk = ", ".join(f"{nats:.3f}" for nats in measures.get("causal_nats_by_chunk", ()))
    past = f"; by number of past chunks: {by_chunk}" if by_chunk else ""
    command.say(f"next-token loss: {measures['causal_nats_per_token']:.4f} nats/token{past}")
    if "retention" in measures:
        share = in_words(measures["retention"]["token_accuracy"], 2)
        command.say(f"{share} of the tokens come back from its memories")
