"""Readers of the encoders that an experiment compares: the same text and budget for all of them."""

from dataclasses import replace

from memlm.config import DataConfig, HubCorpus, ProbeConfig, ReadingConfig
from memlm.config.probe import StatePooling
from memlm.data.cache import default_cache
from memlm.data.tokenizer import Tokenizer
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.probe import EncoderProbe
from memlm.probing.results import ProbeRow
from memlm.probing.texts import ProbeTexts

_MOST_BYTES = 1_000_000_000
"""Of a streamed corpus: its beginning is enough for readers."""


class Readers:
    """What trains a reader for each encoder, on the text that encoders were trained on, split as it was for them."""

    def __init__(
        self,
        data: DataConfig,
        tokenizer: Tokenizer,
        chunk_len: int,
        reading: ReadingConfig,
        seed: int,
    ) -> None:
        if isinstance(data.corpus, HubCorpus):
            most = min(data.corpus.max_bytes, _MOST_BYTES)
            data = replace(data, corpus=replace(data.corpus, max_bytes=most))
        self.texts = ProbeTexts.of_splits(data, tokenizer, reading.test_fraction)
        self.chunk_len, self.reading, self.seed = chunk_len, reading, seed

    def probe(self, encoder: FrozenEncoder, *poolings: StatePooling) -> EncoderProbe:
        """Of an encoder's default view, or of these poolings."""
        cfg = ProbeConfig(chunk_lens=(self.chunk_len,), poolings=poolings, seeds=(self.seed,), reading=self.reading)
        return EncoderProbe(encoder, self.texts, cfg, self.chunk_len, cache=default_cache(), quiet=False)

    def row(self, encoder: FrozenEncoder, *poolings: StatePooling) -> ProbeRow:
        """What a reader finds."""
        (row,) = self.probe(encoder, *poolings).rows()
        return row
