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
from memlm.text.expansion import Chooser, choose
from memlm.text.memory import Memory
from memlm.text.model import TextModel
from memlm.text.past import Past, groups_of, past_of
from memlm.text.readings import Readings


class Prompt(NamedTuple):
    """What a language model goes on from: tokens, memories, tokens."""

    before: list[int]
    past: Past | None
    after: list[int]
    expanded: Sequence[int] = ()
    """Chunks of the past that are read as tokens."""


class ReadsMemories(TextModel[MemoryReader, MemoryReaderConfig]):
    """A language model that reads memories, with its encoder and both tokenizers: how prompts become its inputs."""

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

    @cached_property
    def hf_tokenizer(self) -> Any:
        """The language model's tokenizer as transformers has it, for chats and streams."""
        return transformers_tokenizer(self.config.decoder.name, self.config.decoder.revision)

    def pasts(self, memory: Memory) -> list[Past]:
        """Each text's past, as its memories give it back.

        Raises:
            ValueError: another encoder made the memory, or it holds NaN.
        """
        vectors = torch.split(self.encoder.readable(memory).cpu(), list(memory.num_chunks))
        if self.config.source == "vector":
            none = np.zeros(0, np.int64)
            return [Past(none, none, some) for some in vectors]
        rows = iter([row.tokens for row in self.encoder.rows(memory)])
        return [
            past_of([next(rows) for _ in some], some, self.encoder.tokenizer, self.model_tokenizer) for some in vectors
        ]

    def past(self, memory: Memory) -> Past | None:
        """The past of a memory of one text; None of no chunks."""
        if len(memory) != 1:
            raise ValueError(f"this is a memory of {len(memory)} texts: give one, memory[0], or a prompt for each")
        (past,) = self.pasts(memory)
        return past if len(past.vectors) else None

    def prompts(
        self, memory: Memory | None, ids: list[list[int]], ratio: int, expand: int, by: Chooser
    ) -> list[Prompt]:
        """A prompt for each list of tokens, with the past of its text."""
        if memory is not None and len(memory) != len(ids):
            given = f"{counted(len(ids), 'prompt')} for memories of {counted(len(memory), 'text')}"
            raise ValueError(f"{given}: give one prompt for each text")
        pasts = (
            [None] * len(ids)
            if memory is None
            else [past if len(past.vectors) else None for past in self.pasts(memory)]
        )
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
        if past is None or not budget or ratio == AS_TOKENS:
            return ()
        if self.config.source == "vector":
            raise ValueError("a reader of bare vectors does not expand them: it has not their text")
        self.inputs_of([Prompt(list(self.config.begin), past, prompt)], ratio)  # refused before anything is judged
        return choose(self.model, past, prompt, self.surprisal, ratio=ratio, budget=budget, by=by)

    def fitting_ratio(self, memory: Memory | None, room: int = 1024) -> int:
        """The smallest ratio, from 4 on, that lets these memories and so many other tokens fit into the context."""
        tokens = 0 if memory is None else max((len(past.tokens) for past in self.pasts(memory)), default=0)
        most = self.model.decoder.max_positions - room
        return next(
            (ratio for ratio in (4, 8, 16) if ratio in self.config.ratios and tokens <= most * ratio), PER_MEMORY
        )

    def inputs_of(
        self, prompts: Sequence[Prompt], ratio: int, num_inputs: int = 1, *, room: int = 0
    ) -> tuple[Hidden, Context]:
        """Prompts as so many last inputs of each, and a context of what stands before them; with room for new tokens.

        Raises:
            ValueError: they are longer than the model's context.
        """
        rows = [self.row_of(prompt, ratio) for prompt in prompts]
        longest, most = (
            max(max(len(vectors), int(ids.max()) + 1) for vectors, ids in rows),
            self.model.decoder.max_positions,
        )
        if longest + room > most:
            new = f" with {room} new tokens" if room else ""
            raise ValueError(
                f"memories and prompt take {longest} positions{new}, and {self.config.decoder.name} has {most}: "
                "give a larger ratio, fewer memories or expand less"
            )
        prefix = pad_sequence([vectors[:-num_inputs] for vectors, _ in rows], batch_first=True)
        lengths = torch.tensor([len(vectors) - num_inputs for vectors, _ in rows], device=self.device)
        context = Context(prefix, token_mask(lengths, prefix.shape[1]))
        if self.config.positions == "text":
            ids = pad_sequence([ids[:-num_inputs] for _, ids in rows], batch_first=True)
            context = context._replace(ids=ids, next_id=torch.stack([ids[-num_inputs] for _, ids in rows]))
        return torch.stack([vectors[-num_inputs:] for vectors, _ in rows]), context

    def row_of(self, prompt: Prompt, ratio: int) -> tuple[Float[Tensor, "position dim"], Int[Tensor, " position"]]:
        """A prompt as input embeddings, with their position ids."""
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
        return torch.cat([context.prefix[0], after[0]]), ids


def encoder_of(cfg: MemoryReaderConfig, device: str | None = None) -> TextAutoencoder:
    """The autoencoder whose memories a reader reads.

    Raises:
        ValueError: it is not there, or is another one now.
    """
    encoder = TextAutoencoder.from_pretrained(cfg.encoder, device=device)
    if cfg.encoder_fingerprint not in ("", encoder.encoder_fingerprint):
        raise ValueError(
            f"this reader reads memories of encoder {cfg.encoder_fingerprint}, and {cfg.encoder!r} is "
            f"{encoder.encoder_fingerprint} now: give back the one that it was trained with, or adapt a new reader"
        )
    return encoder
