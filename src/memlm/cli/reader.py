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

    If the command is interrupted, run it again: it resumes from its last checkpoint. On several GPUs: torchrun
    --nproc_per_node 8 -m memlm adapt ...
    """

    model: tyro.conf.Positional[str]
    """A causal language model: a Hugging Face folder or hub name, a .gguf file, or smollm2."""
    out: Path
    """Folder for checkpoints and metrics; the reader is written to its subfolder model."""
    encoder: str = "english"
    """The autoencoder whose memories the language model learns to read: one that ships with memlm, or a checkpoint
    folder."""
    text: tuple[str, ...] = ()
    """Learn from these files (globs, or - for standard input) instead of the presidential addresses."""
    source: Literal["text", "states", "vector"] = "text"
    """What the language model reads of a memory: the text that the decoder regenerates from it, the decoder's states,
    or the bare vector."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, 0)
    """Ratios to learn, all in one reader: tokens of the past per position; 0 gives each memory one position."""
    num_tokens: int = 256_000
    """Tokens to learn from; more make a better reader. On one core SmolLM2 learns from 60 to 80 tokens a second."""
    batch_rows: int = 4
    """Texts per step."""
    lora_rank: int = 16
    """Rank of the LoRA adapters inside the language model. With 0 there are none: only the network that turns memories
    into inputs is trained."""
    begin_with: str | None = None
    """Start from this reader (the folder OUT/model of an earlier run), to train it on other text or more tokens."""
    teacher: str | None = None
    """Also learn to predict what this model predicts: the same language model, adapted to read the whole past as tokens
    (the folder OUT/model of a run with --arm full)."""
    arm: Literal["reader", "last", "full", "paper"] = "reader"
    """What to train. reader reads memories. The others are for comparison: last sees only recent tokens, full sees the
    whole past as tokens, and paper reads memories as the paper does, by one linear map to one position each."""
    seed: int = 0
    """Random seed."""
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
        line = f"ratio {ratio}: next-token loss {value:.3f} nats/token"
        if (shuffled := measures.get(f"shuffled_nats_per_token_ratio_{ratio}")) is not None:
            line += f" (with another text's memories {shuffled:.3f}: higher if memories help)"
        if (given_back := measures.get(f"retention_nats_per_token_ratio_{ratio}")) is not None:
            line += f", regenerating the memories' text {given_back:.3f}"
        yield line.replace("ratio None", "without memories")


@dataclass(frozen=True, kw_only=True)
class ReadsMemories(UsesModel, ReadsText):
    """What every command has that lets a language model read memories."""

    reader: str = BOXED_READER
    """The reader to use: the one that ships with memlm, the folder OUT/model of memlm adapt, or a hub name."""
    chunks: str = ":"
    """Which chunks of the memory file to read, as 10:20, 10: or :20; by default all."""
    ratio: int | None = None
    """Tokens of the past per position of the language model; 0 gives each memory one position, 1 reads the text as
    tokens. By default 4, or a larger ratio if the past does not fit into the context otherwise."""
    expand: int = 400
    """Also read the chunks that matter to the question or prompt as text, up to this many tokens; 0 for none."""
    by: Literal["similarity", "likelihood", "attention"] = "similarity"
    """How --expand chooses the chunks that matter. similarity: by the rare words that they share with the question or
    prompt. likelihood: by how likely they make it. attention: by how much it attends to them."""

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
    """What to ask about: a memory file, or text (a file, a glob, or - for standard input), which is encoded first."""
    question: tyro.conf.Positional[str]
    """The question."""
    max_new_tokens: int = 100
    """The answer has at most this many tokens."""

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
    """A memory file, or text (a file, a glob, or - for standard input), which is encoded first."""
    out: Path
    """The safetensors file to write."""
    prompt: str = ""
    """The text after the memories."""
    model_out: Path | None = None
    """Also write the language model, with its adapters merged in, to this folder as an ordinary Hugging Face model."""

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
        self.say(f"{len(embeds)} positions of {embeds.shape[1]} dimensions, in {self.out}")
        return {"positions": len(embeds), "dim": embeds.shape[1], "out": str(self.out), **told}
