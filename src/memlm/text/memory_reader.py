"""A pretrained language model that reads an encoder's memories, with both tokenizers: memories and a prompt → text."""

from functools import cached_property

import numpy as np

from memlm.config import MemoryReaderConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.load_pretrained import tokenizer_of
from memlm.models.memory_reader import MemoryReader
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Memory
from memlm.text.model import TextModel
from memlm.text.past import Past, past_of


class TextMemoryReader(TextModel[MemoryReader, MemoryReaderConfig]):
    """Lets a language model read memories.

    ```python
    reader = memlm.load_reader("runs/smollm2/model")
    memory = reader.encoder.encode([address])
    reader.generate(memory, "In short, the president said that", max_new_tokens=40)
    ```
    """

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

    def pasts(self, memory: Memory) -> list[Past]:
        """Each text's past, as its memories give it back.

        Raises:
            ValueError: another encoder made the memory, or it holds NaN.
        """
        rows = iter([row.tokens for row in self.encoder.rows(memory)])
        ends = np.cumsum(memory.num_chunks)
        return [
            past_of(
                [next(rows) for _ in range(number)],
                memory.vectors[end - number : end],
                self.encoder.tokenizer,
                self.model_tokenizer,
            )
            for number, end in zip(memory.num_chunks, ends, strict=True)
        ]


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
