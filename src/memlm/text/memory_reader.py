"""A pretrained language model that reads an encoder's memories, with both tokenizers: memories and a prompt → text."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memlm.config import AS_TOKENS
from memlm.data.token_store import TokenSplit
from memlm.models.load_pretrained import load_causal
from memlm.runtime.files import atomic_folder, place_for
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance, Result
from memlm.text.chats import Message, chat_about, ends_of, has_chats
from memlm.text.expansion import Chooser
from memlm.text.model import as_texts
from memlm.text.past import groups_of
from memlm.text.reader_losses import reader_losses, whole_windows
from memlm.text.reader_prompts import Prompt, Read, ReadsMemories

_EVALUATED_WINDOWS = 64
_CHUNKS_AT_ONCE = 16


class TextMemoryReader(ReadsMemories):
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

    # --- what a language model does -----------------------------------------------------------------------------------

    def generate(
        self,
        memory: Read | None,
        prompt: str | Sequence[str],
        *,
        ratio: int = 4,
        expand: int = 0,
        by: Chooser = "similarity",
        max_new_tokens: int = 100,
        **options: Any,
    ) -> Any:
        """Go on from a prompt after the past that a memory holds; or from several prompts, each with its own text.

        Args:
            memory: of the past, by this reader's encoder; None for a prompt without a past. To read it more than once,
                decode it once: give `reader.pasts(memory)`, here and in the other methods.
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
        prompts = [prompt] if isinstance(prompt, str) else as_texts(prompt)
        ids = [self.model_tokenizer.encode(text).tolist() for text in prompts]
        texts = self._generate(self.prompts(memory, ids, ratio, expand, by), ratio, max_new_tokens, options)
        return texts[0] if isinstance(prompt, str) else texts

    def stream(self, memory: Read | None, prompt: str, **options: Any) -> Generator[str]:
        """Pieces of what `generate` gives, as they come; it stops where nobody takes them any more."""
        return self._streamed(partial(self.generate, memory, prompt), options)

    def stream_chat(self, memory: Read | None, messages: str | Sequence[Message], **options: Any) -> Generator[str]:
        """Pieces of what `chat` answers, as they come; as `stream`."""
        return self._streamed(partial(self.chat, memory, messages), options)

    def chat(
        self,
        memory: Read | None,
        messages: str | Sequence[Message],
        *,
        ratio: int = 4,
        expand: int = 0,
        by: Chooser = "similarity",
        max_new_tokens: int = 100,
        **options: Any,
    ) -> str:
        """Answer a question, or the last of several messages ({role, content}), about what the memory holds.

        The memories stand at the beginning of the user's first message. Arguments and errors are those of `generate`.

        Raises:
            ValueError: the model's tokenizer has no chat template, or a message is none.
        """
        past = None if memory is None else self.past(memory)
        if not has_chats(self.hf_tokenizer):
            raise ValueError(
                f"{self.config.decoder.name} has no chat template: use generate, with a prompt of your own"
            )
        chat = chat_about(self.hf_tokenizer, messages, past=past is not None)
        question = self.model_tokenizer.encode(chat.question).tolist()
        prompt = Prompt(chat.before, past, chat.after, self.expanded(past, question, ratio, expand, by))
        # Some models end a turn with another token than a text; either ends an answer, and so does the next turn.
        ends = {*self._ends(options), *chat.end[:1]} | chat.marks
        options = {"do_sample": False, **({"eos_token_id": sorted(ends)} if ends else {}), **options}
        return str(self._generate([prompt], ratio, max_new_tokens, options)[0]).strip()

    def score(
        self, memory: Read | None, text: str, *, ratio: int = 4, expand: int = 0, by: Chooser = "similarity"
    ) -> Float[np.ndarray, " token"]:
        """The cross-entropy, in nats, of each of the language model's tokens of a text after the past.

        Where nothing stands before it, the first token is left out. Arguments and errors are those of `generate`.
        """
        return self.scored(memory, text, ratio=ratio, expand=expand, by=by)[0]

    @torch.no_grad()
    def scored(
        self, memory: Read | None, text: str, *, ratio: int = 4, expand: int = 0, by: Chooser = "similarity"
    ) -> tuple[Float[np.ndarray, " token"], Bool[np.ndarray, " token"]]:
        """`score`, and whether each token is the likeliest one."""
        ids = self.model_tokenizer.encode(*as_texts([text])).tolist()
        (prompt,) = self.prompts(memory, [ids], ratio, expand, by)
        # What stands right before the text predicts its first token.
        stands_before = prompt.past is not None or prompt.before
        inputs, context = self.inputs_of([prompt], ratio, len(ids) + bool(stands_before))
        logits = self.model.decoder.head(self.model.decoder.states(inputs, context)[:, :-1])[0].float()
        tokens = torch.tensor(ids[-len(logits) :] if len(logits) else [], dtype=torch.long, device=self.device)
        nats = torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
        return nats.cpu().numpy(), (logits.argmax(-1) == tokens).cpu().numpy()

    @torch.no_grad()
    def regenerate(self, memory: Read, *, ratio: int = 4) -> list[str]:
        """Each chunk's text, as the language model gives it back, greedily, from the chunk's positions alone.

        For exact text ask the encoder's own decoder (`reader.encoder.regenerate`).

        Raises:
            ValueError: another encoder made the memory, or it holds NaN; the ratio is negative.
        """
        chunks = [past.only(number) for past in self.pasts(memory) for number in range(len(past.vectors))]
        texts: list[str] = []
        for start in range(0, len(chunks), _CHUNKS_AT_ONCE):
            some = chunks[start : start + _CHUNKS_AT_ONCE]
            groups = groups_of(some, self.config, self.surprisal, ratio, evenly=True).rows(slice(None), self.device)
            nothing = torch.zeros(len(some), 0, dtype=torch.long, device=self.device)
            # A chunk's length is known; what is written beyond it is cut off.
            length = max(len(chunk.tokens) for chunk in some) or 1
            options: dict[str, Any] = {"min_new_tokens": length, "max_new_tokens": length, "do_sample": False}
            asked = self.model.inputs(groups, nothing, regenerates=True)
            written = self.model.decoder.generate(*asked, pad_token_id=0, **options).tolist()
            decode = self.model_tokenizer.decode
            texts += [decode(row[: len(chunk.tokens)]) for row, chunk in zip(written, some, strict=True)]
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
        self, memory: Read | None, prompt: str, *, ratio: int = 4, expand: int = 0, by: Chooser = "similarity"
    ) -> Float[Tensor, "position dim"]:
        """Memories and a prompt as input embeddings, for `generate(inputs_embeds=...)` and vLLM's `prompt_embeds`.

        The model that reads them is the one that `export_model` writes. Arguments and errors are those of `generate`.

        Raises:
            ValueError: this reader's positions are not consecutive.
        """
        if self.config.positions != "consecutive":
            raise ValueError(
                "other engines count positions one after another: adapt a reader with positions=consecutive"
            )
        ids = self.model_tokenizer.encode(prompt).tolist()
        (whole,) = self.prompts(memory, [ids], ratio, expand, by)
        return self.row_of(whole, ratio)[0].detach().float().cpu()

    def export_model(self, folder: str | Path) -> None:
        """Write the language model with its adapters merged into its weights, as any Hugging Face model's folder.

        Raises:
            ValueError: the folder is not empty, or is a file.
        """
        cfg, place = self.config.decoder, Path(folder)
        place_for("folder", place)
        if place.is_dir() and any(place.iterdir()):
            raise ValueError(f"{place} is not empty, and would be written over: give a new folder")
        merged = load_causal(cfg.name, cfg.revision)
        with torch.no_grad():
            for name, module in self.model.decoder.hf.named_modules():
                if hasattr(module, "get_delta_weight"):
                    merged.get_submodule(name).weight += module.get_delta_weight("default").cpu()
        with atomic_folder(place) as temporary:
            merged.save_pretrained(temporary)
            self.hf_tokenizer.save_pretrained(temporary)

    def _streamed(self, write: Callable[..., Any], options: dict[str, Any]) -> Generator[str]:
        """What `write` writes with these options, in another thread."""
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.hf_tokenizer, skip_special_tokens=True)
        failed: list[BaseException] = []
        left = Event()

        def stops(tokens: Tensor, _: Any, **__: Any) -> Tensor:
            return torch.full((len(tokens),), left.is_set(), device=tokens.device)

        def work() -> None:
            criteria = [*options.get("stopping_criteria", ()), stops]
            try:
                write(**{**options, "streamer": streamer, "stopping_criteria": criteria})
            except BaseException as error:
                failed.append(error)
            finally:
                streamer.end()

        thread = Thread(target=work, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            left.set()
            thread.join()  # so that two answers are never written at once
        if failed:
            raise failed[0]

    @torch.no_grad()
    def _generate(
        self, prompts: Sequence[Prompt], ratio: int, max_new_tokens: int, options: dict[str, Any]
    ) -> list[str]:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be positive, not {max_new_tokens}")
        if not prompts:
            return []
        inputs, context = self.inputs_of(prompts, ratio, room=max_new_tokens)
        ends = self._ends(options)
        options = {"pad_token_id": ends[0] if ends else None, **options}
        written = self.model.decoder.generate(inputs, context, max_new_tokens=max_new_tokens, **options)
        decode = self.model_tokenizer.decode
        # Some tokenizers spell a token by what stands before it.
        return [
            decode([*prompt.after, *_until(row, {*ends})])[len(decode(prompt.after)) :]
            for prompt, row in zip(prompts, written.tolist(), strict=True)
        ]

    def _ends(self, options: Mapping[str, Any]) -> list[int]:
        """The tokens that end a text."""
        return ends_of(options.get("eos_token_id", self.model.decoder.hf.generation_config.eos_token_id))


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Tokens before the first that ends a text."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)
