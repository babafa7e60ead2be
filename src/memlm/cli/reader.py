"""The commands of readers: `memlm adapt`, `memlm ask` and `memlm export-prompt`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.cli.memory import memories_of
from memlm.cli.show import counts_tokens
from memlm.runtime.files import BOXED_READER

if TYPE_CHECKING:
    from memlm.text.memory_reader import TextMemoryReader
    from memlm.text.past import Past


@dataclass(frozen=True, kw_only=True)
class Adapt(ReadsText):
    """Teach a pretrained language model to read memories, with LoRA and a small network.

    memlm adapt smollm2 --out runs/smollm2

    memlm adapt meta-llama/Llama-3.2-1B --encoder runs/mine/model --text 'docs/**/*.md' --out runs/llama

    If it is interrupted, run the same command again: it resumes from its last checkpoint. On several GPUs: torchrun
    --nproc_per_node 8 -m memlm adapt ...
    """

    model: tyro.conf.Positional[str]
    """A causal language model: a Hugging Face folder or hub name, a .gguf file, or smollm2."""
    out: Path
    """Folder for checkpoints and metrics; the reader will be in its subfolder model."""
    encoder: str = "english"
    """The autoencoder whose memories are read: one that ships with memlm, or a checkpoint folder."""
    text: tuple[str, ...] = ()
    """Learn from these files (globs, or - for standard input) instead of presidential addresses."""
    source: Literal["text", "states", "vector"] = "text"
    """What the language model's input is made of: the text that a memory gives back, the states of the decoder that
    gives it back, or the bare vector."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, 0)
    """Tokens of the past that share a position, which one reader learns all of; 0 is one position for each memory."""
    num_tokens: int = 256_000
    """Tokens to learn from: the more, the better it reads. SmolLM2 learns from 60 to 80 a second on one core."""
    batch_rows: int = 4
    """Texts per step."""
    lora_rank: int = 16
    """Of the adapters inside the language model; 0 for none: then only what it is given to read is learned."""
    begin_with: str | None = None
    """Go on from this reader, the folder model that an earlier run has made, with other text or more tokens."""
    teacher: str | None = None
    """Learn also what this model predicts: the same language model adapted to all of the past as tokens (the folder
    model that --arm full has made)."""
    arm: Literal["reader", "last", "full", "paper"] = "reader"
    """To compare with: the same model, adapted alike to see recent tokens alone (last), or all of the past as tokens
    (full), instead of memories; or to read memories as the paper does, by one linear map to one position each."""
    seed: int = 0
    set: tuple[str, ...] = ()
    """Override fields of the recipe (memlm recipe reader shows them), as path.to.field=value."""

    def run(self) -> Answer:
        """Train, then measure on held-out text."""
        from memlm.data.token_store import prepare
        from memlm.text.evaluation_sets import HELD_OUT
        from memlm.text.model import default_device
        from memlm.training.accelerator import is_main_process
        from memlm.training.adapt import recipe_of
        from memlm.training.train import train

        corpus = self.corpus(self.text) if self.text else None
        names = ("source", "ratios", "lora_rank", "num_tokens", "batch_rows", "begin_with", "teacher", "seed")
        options = {name: getattr(self, name) for name in names}
        recipe = recipe_of(self.model, self.encoder, corpus, arm=self.arm, **options).with_values(self.set)
        prepared = prepare(recipe.data)
        reader = train(recipe, self.out, prepared=prepared)
        if not is_main_process():
            return {}
        result = reader.to(default_device()).evaluate_split(prepared.splits["test"], name=HELD_OUT, quiet=False)
        for line in _told(result.measures):
            self.say(line)
        self.say(f"The reader: {self.out / 'model'}")
        return {"model": str(self.out / "model"), "result": result.to_dict()}


def _told(measures: Mapping[str, Any]) -> Iterator[str]:
    """What a new reader costs on held-out text, in nats a token, a line for each ratio."""
    start = "causal_nats_per_token_ratio_"
    for name, value in measures.items():
        if not name.startswith(start):
            continue
        ratio = name.removeprefix(start)
        line = f"ratio {ratio}: next token {value:.3f}"
        if (shuffled := measures.get(f"shuffled_nats_per_token_ratio_{ratio}")) is not None:
            line += f" (after another text's memories {shuffled:.3f}: more, if memories help)"
        if (given_back := measures.get(f"retention_nats_per_token_ratio_{ratio}")) is not None:
            line += f", giving memories back {given_back:.3f}"
        yield line.replace("ratio None", "without memories")


@dataclass(frozen=True, kw_only=True)
class ReadsMemories(UsesModel, ReadsText):
    """What every command has that lets a language model read memories."""

    reader: str = BOXED_READER
    """A reader: the one that ships with memlm, the folder model of what memlm adapt has made, or a hub name."""
    chunks: str = ":"
    """Which chunks of the file of memories are read, as 10:20, 10: or :20."""
    ratio: int | None = None
    """Tokens of the past that share a position of the language model; 0 is one position for each memory, 1 the text as
    tokens. By default 4, or as few as let everything fit into its context."""
    expand: int = 400
    """Tokens of the past that may be read as text besides: of the chunks that matter to the question; 0 for none."""
    by: Literal["similarity", "likelihood", "attention"] = "similarity"
    """How the chunks that matter are chosen."""

    def read(self, path: str) -> "tuple[TextMemoryReader, list[Past], Answer]":
        """The reader, what memories of a file give back (of memlm remember, or of text, which is encoded now), and how
        many there are."""
        import memlm
        from memlm.store.store import file_version

        reader = memlm.load_reader(self.reader, device=self.device)
        if Path(path).is_file() and file_version(Path(path)):
            memory, told = memories_of(self, Path(path), self.chunks)
            return reader, reader.pasts(memory), told
        text = "".join(self.documents((path,)))
        if self.chunks != ":":
            raise ValueError(f"--chunks is of a file of memories, and {path!r} is text")
        memory = reader.encoder.encode([text])
        return reader, reader.pasts(memory), {"past_chunks": len(memory.vectors), "raw_chunks": 0}

    def reading(self, reader: "TextMemoryReader", pasts: "list[Past]") -> dict[str, Any]:
        """How memories are read, as arguments of a reader's methods."""
        ratio = reader.fitting_ratio(pasts) if self.ratio is None else self.ratio
        if not any(len(past.vectors) for past in pasts):
            self.say("there are no memories to read: the language model goes on without them", aside=True)
        return {"ratio": ratio, "expand": self.expand, "by": self.by}


@dataclass(frozen=True, kw_only=True)
class Ask(ReadsMemories):
    """Ask a language model questions about a memory file.

    memlm remember novel.txt -o novel.memory

    memlm ask novel.memory 'Who is Sir Walter?'
    """

    memory: tyro.conf.Positional[str]
    """A file of memories, or of text (globs, or - for standard input)."""
    question: tyro.conf.Positional[str]
    max_new_tokens: int = 100

    def run(self) -> Answer:
        """Ask and show."""
        reader, pasts, told = self.read(self.memory)
        reading = self.reading(reader, pasts)
        with counts_tokens("Answering", self.max_new_tokens) as watched:
            options = {**reading, **watched}
            answer = reader.chat(pasts, self.question, max_new_tokens=self.max_new_tokens, **options)
        self.say(answer)
        return {"question": self.question, "answer": answer, "ratio": reading["ratio"], **told}


@dataclass(frozen=True, kw_only=True)
class ExportPrompt(ReadsMemories):
    """Write memories and a prompt as input embeddings for engines such as vLLM, with the model that reads them.

    memlm export-prompt novel.memory --prompt 'In short,' --out prompt.safetensors

    The file holds one tensor, prompt_embeds [position, dim]: vllm.LLM(model="smollm2-reader",
    enable_prompt_embeds=True).generate({"prompt_embeds": tensor}).
    """

    memory: tyro.conf.Positional[str]
    """A file of memories, or of text (globs, or - for standard input)."""
    out: Path
    """The safetensors file to write."""
    prompt: str = ""
    """Text after the memories."""
    model_out: Path | None = None
    """Folder for the language model with its adapters merged in, as any Hugging Face model."""

    out_is_folder = False

    def run(self) -> Answer:
        """Write them."""
        from safetensors.torch import save_file

        from memlm.runtime.files import atomic_file, place_for

        place_for("file", self.out)
        reader, pasts, told = self.read(self.memory)
        embeds = reader.prompt_embeds(pasts, self.prompt, **self.reading(reader, pasts))
        with atomic_file(self.out) as temporary:
            save_file({"prompt_embeds": embeds.contiguous()}, temporary)
        if self.model_out:
            reader.export_model(self.model_out)
        self.say(f"{len(embeds)} positions of {embeds.shape[1]} dimensions: {self.out}")
        return {"positions": len(embeds), "dim": embeds.shape[1], "out": str(self.out), **told}
