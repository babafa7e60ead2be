"""What a language model is given to read: memories and prompts, as input embeddings."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from memlm.config import AS_TOKENS, PER_MEMORY, MemoryReaderConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.decoded import token_mask
from memlm.models.load_pretrained import tokenizer_of, transformers_tokenizer
from memlm.models.memory_reader import Groups, MemoryReader
from memlm.nn.insertion import Context
from memlm.nn.mixers import Hidden
from memlm.runtime.wording import counted
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.expansion import Chooser, choose, require_chooser
from memlm.text.memory import Memory
from memlm.text.model import TextModel
from memlm.text.past import Past, groups_of, past_of, vectors_of
from memlm.text.readings import Readings

_DEFAULT_RATIO = 4


class Prompt(NamedTuple):
    """What a language model goes on from: tokens, memories, tokens."""

    before: list[int]
    past: Past | None
    after: list[int]
    expanded: Sequence[int] = ()
    """Chunks of the past that are read as tokens."""


Read = Memory | Sequence[Past]
"""Memories of texts; or their pasts (`ReadsMemories.pasts`), to read them more than once and decode them once."""


class ReadsMemories(TextModel[MemoryReader, MemoryReaderConfig]):
    """A language model that reads memories, with its encoder and both tokenizers: how prompts become its inputs."""

    config_class = MemoryReaderConfig

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

    @cached_property
    def hf_tokenizer(self) -> Any:
        """The language model's tokenizer as transformers has it, for chats and streams."""
        return transformers_tokenizer(self.config.decoder.name, self.config.decoder.revision)

    def pasts(self, memory: Read) -> list[Past]:
        """Each text's past, as its memories give it back; every method takes this in the place of the memories.

        Raises:
            ValueError: another encoder made the memory, or it holds NaN.
            TypeError: it is no memory.
        """
        if not isinstance(memory, Memory):
            given: Any = memory
            pasts = list(given) if isinstance(given, Sequence) else [given]
            if not all(isinstance(past, Past) for past in pasts):
                raise TypeError(f"expected memories, as reader.encoder.encode makes them, not {type(memory).__name__}")
            return pasts
        vectors = torch.split(
            vectors_of(self.encoder.readable(memory), self.encoder, self.config), list(memory.num_chunks)
        )
        rows = iter([row.tokens for row in self.encoder.rows(memory)])
        return [
            past_of([next(rows) for _ in some], some, self.encoder.tokenizer, self.model_tokenizer) for some in vectors
        ]

    def past(self, memory: Read) -> Past | None:
        """The past of a memory of one text; None of no chunks."""
        pasts = self.pasts(memory)
        if len(pasts) != 1:
            raise ValueError(f"this is a memory of {len(pasts)} texts: give one, memory[0], or a prompt for each")
        return pasts[0] if len(pasts[0].vectors) else None

    def prompts(self, memory: Read | None, ids: list[list[int]], ratio: int, expand: int, by: Chooser) -> list[Prompt]:
        """A prompt for each list of tokens, with the past of its text."""
        pasts: Sequence[Past | None] = [None] * len(ids)
        if memory is not None:
            pasts = [past if len(past.vectors) else None for past in self.pasts(memory)]
        if len(pasts) != len(ids):
            given = f"{counted(len(ids), 'prompt')} for memories of {counted(len(pasts), 'text')}"
            raise ValueError(f"{given}: give one prompt for each text")
        prompts = [
            Prompt(list(self.config.begin), past, after, self.expanded(past, after, ratio, expand, by))
            for past, after in zip(pasts, ids, strict=True)
        ]
        if any(prompt.past is None and not prompt.after for prompt in prompts):
            raise ValueError("there is nothing to go on from: neither a memory nor a prompt")
        return prompts

    def expanded(self, past: Past | None, prompt: list[int], ratio: int, budget: int, by: Chooser) -> Sequence[int]:
        """The chunks to read as tokens."""
        if budget < 0:
            raise ValueError(f"expand must not be negative, not {budget}")
        require_chooser(by)
        if past is None or not budget or ratio == AS_TOKENS:
            return ()
        self.inputs_of([Prompt(list(self.config.begin), past, prompt)], ratio)  # refused before anything is judged
        return choose(self.model, past, prompt, self.surprisal, ratio=ratio, budget=budget, by=by)

    def fitting_ratio(self, memory: Read | None, room: int = 1024) -> int:
        """The smallest ratio, from 4 on, that lets these memories and so many other tokens fit into the context.

        It is one that this reader was trained on; of those that begin lower, the largest.
        """
        cfg, learned = self.config, sorted({*self.config.ratios} - {PER_MEMORY})
        pasts = [] if memory is None else self.pasts(memory)
        units = max((len(past.units(cfg).tokens) for past in pasts), default=0)
        most = self.model.decoder.max_positions - room
        ratios = [ratio for ratio in learned if ratio >= _DEFAULT_RATIO] or learned[-1:]
        last = PER_MEMORY if PER_MEMORY in cfg.ratios or not ratios else ratios[-1]
        return next((ratio for ratio in ratios if units <= most * ratio), last)

    def inputs_of(
        self, prompts: Sequence[Prompt], ratio: int, num_inputs: int = 1, *, room: int = 0
    ) -> tuple[Hidden, Context]:
        """Prompts as so many last inputs of each, and a context of what stands before them; with room for new tokens.

        Raises:
            ValueError: they are longer than the model's context.
        """
        rows = [self.row_of(prompt, ratio, room=room) for prompt in prompts]
        prefix = pad_sequence([vectors[:-num_inputs] for vectors, _ in rows], batch_first=True)
        lengths = torch.tensor([len(vectors) - num_inputs for vectors, _ in rows], device=self.device)
        context = Context(prefix, token_mask(lengths, prefix.shape[1]))
        if self.config.positions == "text":
            ids = pad_sequence([ids[:-num_inputs] for _, ids in rows], batch_first=True)
            context = context._replace(ids=ids, next_id=torch.stack([ids[-num_inputs] for _, ids in rows]))
        return torch.stack([vectors[-num_inputs:] for vectors, _ in rows]), context

    def row_of(
        self, prompt: Prompt, ratio: int, *, room: int = 0
    ) -> tuple[Float[Tensor, "position dim"], Int[Tensor, " position"]]:
        """A prompt as input embeddings, with their position ids.

        Raises:
            ValueError: with room for new tokens they are longer than the model's context.
        """
        before, after = (
            self.model.decoder.embed(torch.tensor([ids], dtype=torch.long, device=self.device))
            for ids in (prompt.before, prompt.after)
        )
        groups = Groups.none(1)
        if prompt.past is not None:
            groups = groups_of([prompt.past], self.config, self.surprisal, ratio, expanded=[prompt.expanded])
        context = self.model.soft_prompt(groups.rows(slice(None), self.device)).preceded_by(before)
        first = torch.arange(context.prefix.shape[1], device=self.device) if context.ids is None else context.ids[0]
        following = len(first) if context.next_id is None else int(context.next_id)
        ids = torch.cat([first, following + torch.arange(after.shape[1], device=self.device)])
        vectors = torch.cat([context.prefix[0], after[0]])
        longest, most = max(len(vectors), int(ids.max()) + 1), self.model.decoder.max_positions
        if longest + room > most:
            new = f" with {room} new tokens" if room else ""
            raise ValueError(
                f"memories and prompt take {longest} positions{new}, and {self.config.decoder.name} has {most}: "
                "give a larger ratio, fewer memories, a shorter prompt or fewer new tokens, or expand less"
            )
        return vectors, ids


def encoder_of(cfg: MemoryReaderConfig, device: str | None = None) -> TextAutoencoder:
    """The autoencoder whose memories a reader reads.

    Raises:
        ValueError: it is not there, or is another one now.
    """
    try:
        encoder = TextAutoencoder.from_pretrained(cfg.encoder, device=device)
    except ValueError as error:
        fingerprint = f" ({cfg.encoder_fingerprint})" * bool(cfg.encoder_fingerprint)
        raise ValueError(f"memories are read of encoder {cfg.encoder!r}{fingerprint}: {error}") from None
    if cfg.encoder_fingerprint not in ("", encoder.encoder_fingerprint):
        raise ValueError(
            f"this reader reads memories of encoder {cfg.encoder_fingerprint}, and {cfg.encoder!r} is "
            f"{encoder.encoder_fingerprint} now: give back the one that it was trained with, or adapt a new reader"
        )
    return encoder
