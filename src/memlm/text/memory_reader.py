"""A pretrained language model that reads an encoder's memories, with both tokenizers: memories and a prompt → text."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from memlm.config import AS_TOKENS, MemoryReaderConfig
from memlm.data.token_store import TokenSplit
from memlm.data.tokenizer import Tokenizer
from memlm.models.decoded import token_mask
from memlm.models.load_pretrained import load_causal, tokenizer_of, transformers_tokenizer
from memlm.models.memory_reader import Groups, MemoryReader
from memlm.nn.insertion import Context
from memlm.nn.mixers import Hidden
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance, Result
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.expansion import Chooser, choose
from memlm.text.memory import Memory
from memlm.text.model import TextModel
from memlm.text.past import Past, groups_of, past_of
from memlm.text.reader_losses import reader_losses, whole_windows
from memlm.text.readings import Readings

_EVALUATED_WINDOWS = 64
_HERE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Marks the place of the memories in a chat."""

Message = Mapping[str, str]


class Prompt(NamedTuple):
    """What a language model goes on from: tokens, memories, tokens."""

    before: list[int]
    past: Past | None
    after: list[int]
    expanded: Sequence[int] = ()
    """Chunks of the past that are read as tokens."""


class TextMemoryReader(TextModel[MemoryReader, MemoryReaderConfig]):
    """Lets a language model read memories.

    ```python
    reader = memlm.load_reader("runs/smollm2/model")
    memory = reader.encoder.encode([address])
    reader.generate(memory, "In short, the president said that", max_new_tokens=40)
    ```

    Everywhere, `ratio` is how many tokens of the past share a position on average (0: one position for each memory, 1:
    the text as tokens), and `expand` is how many tokens of the past may be read as tokens besides: those of the chunks
    that matter most to the prompt (`text.expansion`).
    """

    config_class = MemoryReaderConfig

    def __init__(self, model: MemoryReader, tokenizer: Tokenizer, provenance: dict[str, Any]) -> None:
        """`tokenizer` is the encoder's.

        Raises:
            ValueError: model and tokenizer do not belong together, or the language model is another than it was.
        """
        super().__init__(model, tokenizer, provenance)
        named, found, name = self.config.decoder_fingerprint, model.decoder.base_fingerprint(), self.config.decoder.name
        if named not in ("", found):
            raise ValueError(
                f"this reader was trained for a language model {named}, and {name!r} is {found}: give back the one "
                "that it was trained with, or adapt a new reader"
            )

    @cached_property
    def encoder(self) -> TextAutoencoder:
        """The autoencoder whose memories are read.

        Raises:
            ValueError: it is not there, or is another than the one that this reader was trained with.
        """
        return encoder_of(self.config).to(self.device)

    @cached_property
    def model_tokenizer(self) -> Tokenizer:
        """The language model's."""
        return tokenizer_of(self.config.decoder.name, self.config.decoder.revision)

    @cached_property
    def surprisal(self) -> NDArray[np.float64]:
        """Nats of each of the language model's tokens, by its frequency."""
        return self.model.surprisal.cpu().double().numpy()

    @cached_property
    def readings(self) -> Readings:
        """Makes what this reader is measured on."""
        return Readings(
            config=self.config, encoder=self.encoder, model_tokenizer=self.model_tokenizer, surprisal=self.surprisal
        )

    # --- what a language model does -----------------------------------------------------------------------------------

    def generate(
        self,
        memory: Memory | None,
        prompt: str | Sequence[str],
        *,
        ratio: int = 4,
        expand: int = 0,
        by: Chooser = "likelihood",
        max_new_tokens: int = 100,
        **options: Any,
    ) -> Any:
        """Go on from a prompt after the past that a memory holds; or from several prompts, each with its own text.

        Args:
            memory: of the past, by this reader's encoder; None for a prompt without a past.
            prompt: one, or one for each of the memory's texts, however many chunks each has.
            ratio: see the class.
            expand: see the class.
            by: how the chunks that matter are chosen.
            max_new_tokens: at most so many.
            options: of transformers' `generate` (do_sample, temperature, streamer, ...).

        Raises:
            ValueError: another encoder made the memory, or it holds NaN; there is nothing to go on from; or it all is
                longer than the model's context.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        ids = [self.model_tokenizer.encode(text).tolist() for text in prompts]
        texts = self._generate(self._prompts(memory, ids, ratio, expand, by), ratio, max_new_tokens, options)
        return texts[0] if isinstance(prompt, str) else texts

    def stream(self, memory: Memory | None, prompt: str, **options: Any) -> Iterator[str]:
        """Pieces of what `generate` gives, as they come."""
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self._hf_tokenizer)
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.generate(memory, prompt, streamer=streamer, **options)
            except BaseException as error:
                failed.append(error)
            finally:
                streamer.end()

        thread = Thread(target=work, daemon=True)
        thread.start()
        yield from (piece for piece in streamer if piece)
        thread.join()
        if failed:
            raise failed[0]

    def chat(
        self,
        memory: Memory | None,
        messages: str | Sequence[Message],
        *,
        ratio: int = 4,
        expand: int = 0,
        by: Chooser = "likelihood",
        max_new_tokens: int = 100,
        **options: Any,
    ) -> str:
        """Answer a question, or the last of several messages ({role, content}), about what the memory holds.

        The memories stand at the beginning of the user's first message. Arguments and errors are those of `generate`.

        Raises:
            ValueError: the model's tokenizer has no chat template.
        """
        turns = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(turn) for turn in messages]
        )
        asked = next((turn for turn in turns if turn["role"] == "user"), None)
        if asked is None or not asked["content"].strip():
            raise ValueError("there is no message of a user to answer")
        question = asked["content"]
        asked["content"] = f"{_HERE}\n\n{question}" if memory else question
        if not getattr(self._hf_tokenizer, "chat_template", None):
            raise ValueError(
                f"{self.config.decoder.name} has no chat template: use generate, with a prompt of your own"
            )
        text = self._hf_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        before, here, after = text.partition(_HERE)
        pieces = (before, after) if here else ("", before)
        first, last = (
            self._hf_tokenizer(piece, add_special_tokens=False).input_ids if piece else [] for piece in pieces
        )
        past = None if memory is None else self._past(memory)
        expanded = self._expanded(past, self.model_tokenizer.encode(question).tolist(), ratio, expand, by)
        prompt = Prompt(first, past, last, expanded)
        options = {"eos_token_id": self._hf_tokenizer.eos_token_id, "do_sample": False, **options}
        return str(self._generate([prompt], ratio, max_new_tokens, options)[0]).strip()

    def score(
        self, memory: Memory | None, text: str, *, ratio: int = 4, expand: int = 0, by: Chooser = "likelihood"
    ) -> Float[np.ndarray, " token"]:
        """The cross-entropy, in nats, of each of the language model's tokens of a text after the past.

        Without a past, nothing predicts the first token: it is left out. Arguments and errors are those of `generate`.
        """
        ids = self.model_tokenizer.encode(text).tolist()
        (prompt,) = self._prompts(memory, [ids], ratio, expand, by)
        inputs, context = self._inputs([prompt], ratio, whole=True)
        with torch.no_grad():
            # What stands right before the text predicts its first token.
            states = self.model.decoder.states(inputs, context)
            logits = self.model.decoder.logits(states[:, -len(ids) - 1 : -1])[0].float()
            if len(logits) < len(ids):
                ids = ids[1:]
            return (
                torch.nn.functional.cross_entropy(logits, torch.tensor(ids, device=self.device), reduction="none")
                .cpu()
                .numpy()
            )

    @torch.no_grad()
    def regenerate(self, memory: Memory, *, ratio: int = 4) -> list[str]:
        """Each chunk's text, as the language model gives it back, greedily, from the chunk's positions alone.

        For exact text ask the encoder's own decoder (`reader.encoder.regenerate`).

        Raises:
            ValueError: another encoder made the memory, or it holds NaN; the ratio is negative.
        """
        texts = []
        for past in self.pasts(memory):
            for number in range(len(past.vectors)):
                chunk = past.only(number)
                groups = groups_of([chunk], self.config, self.surprisal, ratio).to(self.device)
                asked = self.model.inputs(groups, torch.zeros(1, 0, dtype=torch.long, device=self.device), True)
                length = max(len(chunk.tokens), 1)
                options: dict[str, Any] = {
                    "min_new_tokens": length,
                    "max_new_tokens": length,
                    "do_sample": False,
                    "pad_token_id": 0,
                }
                written = self.model.decoder.generate(*asked, **options)[0, : len(chunk.tokens)]
                texts.append(self.model_tokenizer.decode(written.tolist()))
        return texts

    def evaluate_split(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """Measure, on documents tokenized by the encoder's tokenizer, next-token and regeneration loss at each ratio.

        Raises:
            ValueError: no document is long enough.
        """
        windows = whole_windows(split, self.config, _EVALUATED_WINDOWS)
        with track(f"Reading {name}", total=int(windows.mask[:, -1].sum()), unit="tokens", quiet=quiet) as advance:
            terms = ["causal", "retention"] if set(self.config.ratios) - {AS_TOKENS} else ["causal"]
            measures = reader_losses(self.model, self.readings, windows, terms)
            advance(int(windows.mask[:, -1].sum()))
        return Result(name=name, measures=measures, intervals={}, provenance=Provenance.here(model=self.provenance))

    @contextmanager
    def without_memory(self) -> Iterator[Any]:
        """The language model as it was, bit for bit: transformers' own model, with the adapters off."""
        hf = self.model.decoder.hf
        adapted = self.config.decoder.lora is not None
        if adapted:
            hf.disable_adapters()
        try:
            yield hf
        finally:
            if adapted:
                hf.enable_adapters()

    # --- into other engines -------------------------------------------------------------------------------------------

    def prompt_embeds(
        self, memory: Memory | None, prompt: str, *, ratio: int = 4, expand: int = 0, by: Chooser = "likelihood"
    ) -> Float[Tensor, "position dim"]:
        """Memories and a prompt as input embeddings, for `generate(inputs_embeds=...)` and vLLM's `prompt_embeds`.

        The model that reads them is the one that `export_model` writes. Arguments and errors are those of `generate`.
        """
        ids = self.model_tokenizer.encode(prompt).tolist()
        inputs, _ = self._inputs(self._prompts(memory, [ids], ratio, expand, by), ratio, whole=True)
        return inputs[0].detach().float().cpu()

    def export_model(self, folder: str | Path) -> None:
        """Write the language model with its adapters merged into its weights, as any Hugging Face model's folder."""
        cfg, place = self.config.decoder, Path(folder)
        merged = load_causal(cfg.name, cfg.revision)
        with torch.no_grad():
            for name, module in self.model.decoder.hf.named_modules():
                if hasattr(module, "get_delta_weight"):
                    merged.get_submodule(name).weight += module.get_delta_weight("default").cpu()
        merged.save_pretrained(place)
        self._hf_tokenizer.save_pretrained(place)

    # --- prompts ------------------------------------------------------------------------------------------------------

    @cached_property
    def _hf_tokenizer(self) -> Any:
        return transformers_tokenizer(self.config.decoder.name, self.config.decoder.revision)

    def pasts(self, memory: Memory) -> list[Past]:
        """Each text's past, as its memories give it back.

        Raises:
            ValueError: another encoder made the memory, or it holds NaN.
        """
        rows = iter([row.tokens for row in self.encoder.rows(memory)])
        vectors = torch.split(memory.vectors.float().cpu(), list(memory.num_chunks))
        return [
            past_of([next(rows) for _ in some], some, self.encoder.tokenizer, self.model_tokenizer) for some in vectors
        ]

    def _past(self, memory: Memory) -> Past | None:
        """The past of a memory of one text; None of no chunks."""
        if len(memory) != 1:
            raise ValueError(f"this is a memory of {len(memory)} texts: give one, memory[0], or a prompt for each")
        (past,) = self.pasts(memory)
        return past if len(past.vectors) else None

    def _prompts(
        self, memory: Memory | None, ids: list[list[int]], ratio: int, expand: int, by: Chooser
    ) -> list[Prompt]:
        """A prompt for each list of tokens, with the past of its text."""
        if memory is not None and len(memory) != len(ids):
            raise ValueError(f"{len(ids)} prompts and memories of {len(memory)} texts: give one prompt for each text")
        pasts = (
            [None] * len(ids)
            if memory is None
            else [past if len(past.vectors) else None for past in self.pasts(memory)]
        )
        prompts = [
            Prompt(list(self.config.begin), past, after, self._expanded(past, after, ratio, expand, by))
            for past, after in zip(pasts, ids, strict=True)
        ]
        if any(prompt.past is None and not prompt.after for prompt in prompts):
            raise ValueError("there is nothing to go on from: neither a memory nor a prompt")
        return prompts

    def _expanded(self, past: Past | None, prompt: list[int], ratio: int, budget: int, by: Chooser) -> Sequence[int]:
        """The chunks to read as tokens."""
        if past is None or not budget:
            return ()
        return choose(self.model, past, prompt, self.surprisal, ratio=ratio, budget=budget, by=by)

    def _inputs(self, prompts: Sequence[Prompt], ratio: int, *, whole: bool = False) -> tuple[Hidden, Context]:
        """Prompts as a context, and the last input of each; `whole` prompts as inputs, without a context.

        Raises:
            ValueError: they are longer than the model's context.
        """
        model, device = self.model, self.device
        rows = []
        for prompt in prompts:
            before, after = (
                model.decoder.embed(torch.tensor([ids], dtype=torch.long, device=device))[0]
                for ids in (prompt.before, prompt.after)
            )
            pieces = [before, after]
            if prompt.past is not None:
                groups = groups_of([prompt.past], self.config, self.surprisal, ratio, expanded=[prompt.expanded])
                pieces.insert(1, model.soft_prompt(groups.to(device)).prefix[0].to(before.dtype))
            rows.append(torch.cat(pieces))
        longest, most = max(map(len, rows)), model.decoder.max_positions
        if longest > most:
            raise ValueError(
                f"memories and prompt take {longest} positions, and {self.config.decoder.name} has {most}: "
                "give a larger ratio, fewer memories or expand less"
            )
        if whole:
            return pad_sequence(rows, batch_first=True), model.soft_prompt(Groups.none(len(rows)))
        prefix = pad_sequence([row[:-1] for row in rows], batch_first=True)
        there = token_mask(torch.tensor([len(row) - 1 for row in rows], device=device), prefix.shape[1])
        return torch.stack([row[-1:] for row in rows]), Context(prefix, there)

    @torch.no_grad()
    def _generate(
        self, prompts: Sequence[Prompt], ratio: int, max_new_tokens: int, options: dict[str, Any]
    ) -> list[str]:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be positive, not {max_new_tokens}")
        inputs, context = self._inputs(prompts, ratio)
        ends = options.get("eos_token_id", self.model.decoder.hf.generation_config.eos_token_id)
        options = {"pad_token_id": ends[0] if isinstance(ends, list) else ends, **options}
        written = self.model.decoder.generate(inputs, context, max_new_tokens=max_new_tokens, **options)
        finished = {ends} if isinstance(ends, int) else set(ends or ())
        return [self.model_tokenizer.decode(_until(row, finished)) for row in written.tolist()]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Tokens before the first that ends a text."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)


def encoder_of(cfg: MemoryReaderConfig) -> TextAutoencoder:
    """The autoencoder whose memories a reader reads.

    Raises:
        ValueError: it is not there, or is another one now.
    """
    encoder = TextAutoencoder.from_pretrained(cfg.encoder)
    if cfg.encoder_fingerprint not in ("", encoder.encoder_fingerprint):
        raise ValueError(
            f"this reader reads memories of encoder {cfg.encoder_fingerprint}, and {cfg.encoder!r} is "
            f"{encoder.encoder_fingerprint} now: give back the one that it was trained with, or adapt a new reader"
        )
    return encoder
