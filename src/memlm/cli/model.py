"""The commands that run a model: `memlm evaluate`, `memlm regenerate` and `memlm generate`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from memlm.cli.command import Answer, Command, ReadsText, UsesModel
from memlm.cli.memory import memories_of
from memlm.cli.show import counts_tokens, print_metrics, print_samples
from memlm.config import MemoryModelConfig, MemoryReaderConfig
from memlm.runtime.files import BOXED_READER
from memlm.runtime.wording import in_words

if TYPE_CHECKING:
    from memlm.text.memory import Memory, Regenerated


@dataclass(frozen=True, kw_only=True)
class Evaluate(UsesModel, ReadsText):
    """Measure how much of a text a model's memories give back.

    memlm evaluate english --text README.md --json
    """

    model: tyro.conf.Positional[str]
    """A model that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """The text to measure on: files, globs, or - for standard input. By default the texts that come with memlm: a
    novel, verse, source code and random tokens."""

    def run(self) -> Answer:
        """Evaluate and show."""
        from memlm.text.autoencoder import TextAutoencoder
        from memlm.text.checkpoint_folder import config_class
        from memlm.text.evaluation_sets import evaluate_sets, foreign_sets
        from memlm.text.memory_model import TextMemoryModel

        kind = TextMemoryModel if config_class(self.model) is MemoryModelConfig else TextAutoencoder
        model = kind.from_pretrained(self.model, device=self.device)
        if self.text:
            results = [model.evaluate(self.documents(self.text), name="text", quiet=False)]
        elif isinstance(model, TextAutoencoder):
            results = evaluate_sets(model, foreign_sets(model.tokenizer))
        else:
            raise ValueError("a memory model has no standard texts to be evaluated on: give --text")
        show_results(self, results)
        answer = [result.to_dict() for result in results]
        return answer[0] if self.text else {"results": answer}


@dataclass(frozen=True, kw_only=True)
class Regenerate(UsesModel, ReadsText):
    """Encode text into memories, decode them again, and show what comes back.

    echo 'Fellow citizens of the Senate: ...' | memlm regenerate english

    In a terminal, wrong tokens are marked, and so are tokens that the model itself is unsure of. A pipe or a file gets
    only the regenerated text:

    memlm regenerate english --text README.md > regenerated.md
    """

    model: tyro.conf.Positional[str]
    """A model that ships with memlm (english), a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ("-",)
    """The text to encode: files, globs, or - for standard input (the default)."""
    thorough: bool = False
    """Search long for the right text wherever a memory differs from that of what was decoded, even if much is wrong. It
    takes seconds to a minute for each such chunk. Worth it for a model with two dimensions a token, or fewer."""

    def run(self) -> Answer:
        """Regenerate and show."""
        import memlm
        from memlm.text.samples import regenerated

        model, texts = memlm.load(self.model, device=self.device), self.documents(self.text)
        if not self.json and not sys.stdout.isatty():
            memory = model.encode(texts)
            self._write(texts, model.regenerate(memory, thorough=self.thorough, show_progress_bar=self.thorough))
            return {}
        samples = list(regenerated(model, texts, thorough=self.thorough))
        print_samples(self.console(), samples)
        return {"samples": samples}

    def _write(self, texts: Sequence[str], regenerated: "Sequence[Regenerated]") -> None:
        """What came back, byte for byte; on standard error whether it is what was sent, and what may be wrong."""
        for number, (text, back) in enumerate(zip(texts, regenerated, strict=True)):
            sys.stdout.buffer.write(back.encode())
            verdict = "regenerated without an error" if back == text else "regenerated with errors"
            unsure = "".join(f"; unsure: {back[start:end]!r} at character {start}" for start, end in back.unsure[:5])
            self.say(f"text {number}: {verdict}{unsure}", aside=True)
        sys.stdout.buffer.flush()


@dataclass(frozen=True, kw_only=True)
class Generate(UsesModel, ReadsText):
    """Continue a prompt with a memory model, which reads past text as one vector per chunk.

    memlm generate runs/memory/model --memory address.txt --prompt 'My fellow citizens,' --max-new-tokens 200

    memlm generate --memory notes.memory --chunks 10:20 --ratio 8
    """

    model: tyro.conf.Positional[str] = BOXED_READER
    """A memory model (of memlm train memory-model) or a reader (of memlm adapt): a checkpoint folder, a Hugging Face
    hub name, or the reader that ships with memlm."""
    prompt: str = ""
    """The text to continue."""
    memory: tuple[str, ...] = ()
    """The past, which stands before the prompt and is read as memories: text files (globs, or - for standard input), or
    one memory file that memlm remember wrote with this model's encoder."""
    chunks: str = ":"
    """Which chunks of the memory file to read, as 10:20, 10: or :20. A memory model reads the last of them."""
    ratio: int | None = None
    """For a reader: tokens of the past per position of the language model; 0 gives each memory one position. By default
    4, or a larger ratio if the past does not fit into the context otherwise."""
    expand: int = 0
    """For a reader: also read the chunks that matter to the prompt as text, up to this many tokens."""
    by: Literal["similarity", "likelihood", "attention"] = "similarity"
    """For a reader: how --expand chooses the chunks that matter. similarity: by the rare words that they share with the
    prompt. likelihood: by how likely they make the prompt. attention: by how much the prompt attends to them."""
    pointed_memories: int | None = None
    """For a memory model with a pointer: the pointer copies from this many memories, the latest. By default from those
    that the decoder reads."""
    max_new_tokens: int = 100
    """Write at most this many tokens."""
    temperature: float = 0.8
    """Sampling temperature; 0 always takes the likeliest token."""
    top_p: float = 0.95
    """Sample only from the likeliest tokens that together have this probability."""
    seed: int = 0
    """Random seed for sampling."""

    def run(self) -> Answer:
        """Generate and show."""
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p is a probability, above 0 and at most 1, not {self.top_p}")
        if not self.temperature >= 0:
            raise ValueError(f"--temperature must not be negative, not {self.temperature}")
        import torch

        from memlm.text.checkpoint_folder import config_class, locate
        from memlm.text.memory_model import TextMemoryModel
        from memlm.text.memory_reader import TextMemoryReader

        drawn = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        options: dict[str, Any] = drawn if self.temperature else {"do_sample": False}
        options |= {"max_new_tokens": self.max_new_tokens}
        torch.manual_seed(self.seed)
        if config_class(locate(self.model)) is MemoryReaderConfig:
            if self.pointed_memories is not None:
                raise ValueError(f"--pointed-memories is of memory models, and {self.model} is a reader")
            reader = TextMemoryReader.from_pretrained(self.model, device=self.device)
            past, told = self._past(sys.maxsize)
            memory = past if not isinstance(past, str) else reader.encoder.encode([past]) if past else None
            pasts = None if memory is None else reader.pasts(memory)
            ratio = reader.fitting_ratio(pasts) if self.ratio is None else self.ratio
            with counts_tokens("Writing", self.max_new_tokens) as watched:
                options |= watched
                text = reader.generate(pasts, self.prompt, ratio=ratio, expand=self.expand, by=self.by, **options)
            told = {**told, "ratio": ratio}
        else:
            if self.ratio is not None or self.expand:
                raise ValueError(
                    f"--ratio and --expand are of readers (memlm adapt), and {self.model} is a memory model"
                )
            model = TextMemoryModel.from_pretrained(self.model, device=self.device)
            past, told = self._past(self.pointed_memories or model.config.max_memories)
            options |= {"pointed_memories": self.pointed_memories}
            with counts_tokens("Writing", self.max_new_tokens) as watched:
                text = model.generate(self.prompt, past=past, **options, **watched)
        self.say(self.prompt + text)
        return {"prompt": self.prompt, "text": text, **told}

    def _past(self, most: int) -> "tuple[str | Memory, Answer]":
        """What stands before the prompt, `most` memories of it, and what there is to say of it."""
        from memlm.store.store import file_version

        files = [path for path in map(Path, self.memory) if path.is_file() and file_version(path)]
        if not files:
            if self.chunks != ":":
                raise ValueError("--chunks is of a file of memories, and --memory names none")
            past = "".join(self.documents(self.memory)) if self.memory else ""
            return past, {"past_bytes": len(past.encode())}
        if len(self.memory) > 1:
            raise ValueError(f"{files[0]} is a file of memories: give it alone")
        return memories_of(self, files[0], self.chunks, most)


def show_results(command: Command, results: list[Any]) -> None:
    """An autoencoder's measures as a table; of a model that predicts, what next tokens cost."""
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
