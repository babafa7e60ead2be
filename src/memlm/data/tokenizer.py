"""Text to tokens and back: a byte-level BPE of our own, or any fast Hugging Face tokenizer."""

import codecs
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import tokenizers
from numpy.typing import NDArray

from memlm.data.documents import utf8
from memlm.runtime.files import boxed_folder
from memlm.runtime.hub import hub

_FILE_NAME = "tokenizer.json"
# A pair of tokens seen only once is not worth a type of its own.
_MIN_PAIR_COUNT = 2
# Learning takes time quadratic in the length of a word, and text without spaces (DNA, base64) is one word.
_LONG_RUN = re.compile(r"(\S{256})")
# Byte-level vocabularies spell each byte as one printable character: itself, or one from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(0x100)) - set(_PRINTABLE)))
}


class Tokenizer:
    """Text ↔ token ids. Never adds special tokens, and reads their strings in a text as ordinary text."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # A tokenizer's file may ask for these, and a text would silently lose its end or gain padding.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn a byte-level BPE without special tokens; text → tokens → text is the identity for any text.

        Raises:
            ValueError: the texts are too small for `vocab_size` token types, with the number they give.
        """
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=_MIN_PAIR_COUNT,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator((piece for text in texts for piece in _LONG_RUN.split(text)), trainer)
        tokenizer = cls(backend)
        if tokenizer.vocab_size != vocab_size:
            raise ValueError(
                f"the training text gives only {tokenizer.vocab_size} token types, not vocab_size {vocab_size}: "
                "add text or lower vocab_size"
            )
        return tokenizer

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """Load a fast Hugging Face tokenizer from a hub name or a folder, or that of a memlm checkpoint.

        Raises:
            ValueError: there is no such tokenizer, or it has no fast implementation.
        """
        from transformers import AutoTokenizer

        ours = boxed_folder(name) or Path(name)
        if (ours / "provenance.json").is_file():
            return cls.load(ours)
        with hub("tokenizer", name, instead="give a folder that holds a tokenizer"):
            try:
                pretrained = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise ValueError(f"cannot load the tokenizer {name!r}: {error}") from error
        backend = getattr(pretrained, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            raise ValueError(f"the tokenizer {name!r} has no fast implementation; choose one with a {_FILE_NAME}")
        return cls(backend)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load what `save` wrote.

        Raises:
            ValueError: the folder has no readable tokenizer file.
        """
        path = folder / _FILE_NAME
        try:
            return cls(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except Exception as error:  # the tokenizers library raises plain Exception for a malformed file
            raise ValueError(f"cannot load the tokenizer {path}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into an existing folder."""
        (folder / _FILE_NAME).write_text(self._backend.to_str(), encoding="utf-8")

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id (some pretrained vocabularies have gaps)."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever the tokenizer does."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16]

    @property
    def special_tokens(self) -> tuple[list[int], list[int]]:
        """Ids of what the tokenizer's own model expects before and after a text; `encode` never adds them."""
        encoding = self._backend.encode("a", add_special_tokens=True)
        text = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        return encoding.ids[: text[0]], encoding.ids[text[-1] + 1 :]

    def encode(self, text: str) -> NDArray[np.int32]:
        """Token ids [token] of a text.

        Raises:
            ValueError: the text holds a lone surrogate, which no UTF-8 text can; with its index.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, on all processor cores; same errors as `encode`."""
        try:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except (TypeError, UnicodeError):
            for text in texts:
                utf8(text)
            raise
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def require_tokens(self, texts: Iterable[Sequence[int]]) -> None:
        """Raise ValueError where texts, as token ids, hold one that is none; names it and its text."""
        for place, ids in enumerate(texts):
            row = np.asarray(ids)  # of any numbers, as a client may send them
            if len(wrong := row[(row < 0) | (row >= self.vocab_size)]):
                raise ValueError(f"text {place} has token {wrong[0]}; there are tokens 0 to {self.vocab_size - 1}")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are not UTF-8, which a model may well predict, become U+FFFD."""
        return str(self._backend.decode([int(i) for i in ids], skip_special_tokens=False))

    def encode_placed(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids [token] of a text, and the character in it that each begins at."""
        return self.encode_placed_batch([text])[0]

    def encode_placed_batch(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The same of each text, on all processor cores; same errors as `encode`."""
        for text in texts:
            utf8(text)
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        offsets = (np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings)
        return [
            (np.array(encoding.ids, dtype=np.int64), placed[:, 0])
            for encoding, placed in zip(encodings, offsets, strict=True)
        ]

    def decode_pieces(self, pieces: Sequence[Sequence[int]]) -> list[str]:
        """The texts of consecutive pieces of one text, which joined are the whole; a character is where it ends."""
        if isinstance(self._backend.decoder, tokenizers.decoders.ByteLevel):
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            texts = [decoder.decode(b"".join(self.token_bytes[token] for token in piece)) for piece in pieces]
            return [*texts[:-1], texts[-1] + decoder.decode(b"", final=True)] if texts else []
        # Other tokens are spelt by what stands around them.
        ends = [len(self.decode(itertools.chain(*pieces[: number + 1]))) for number in range(len(pieces))]
        whole = self.decode(itertools.chain(*pieces))
        return [whole[begin:end] for begin, end in itertools.pairwise([0, *ends])]

    def decode_marked(self, ids: Sequence[int], marks: Sequence[bool]) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The text of token ids, and the spans of characters that marked tokens are part of.

        Where tokens do not spell bytes, that is the whole text, if any is marked.
        """
        if not any(marks) or not isinstance(self._backend.decoder, tokenizers.decoders.ByteLevel):
            text = self.decode(ids)
            return text, ((0, len(text)),) if any(marks) and text else ()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces: list[str] = []
        spans: list[tuple[int, int]] = []
        length = 0
        for marked, run in itertools.groupby(zip(ids, marks, strict=True), key=lambda pair: bool(pair[1])):
            pieces.append(decoder.decode(b"".join(self.token_bytes[token] for token, _ in run)))
            # A character that goes on in the next run counts as marked here too.
            end = length + len(pieces[-1]) + bool(decoder.getstate()[0])
            if marked and end > length:
                start = spans.pop()[0] if spans and spans[-1][1] > length else length
                spans.append((start, end))
            length += len(pieces[-1])
        text = "".join([*pieces, decoder.decode(b"", final=True)])
        return text, tuple(spans)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """What each id of a byte-level vocabulary stands for; joined, a text's are its UTF-8.

        Other vocabularies' tokens are spelled out as they are, and do not join to the text.
        """
        table = [b""] * self.vocab_size
        for token, number in self._backend.get_vocab(with_added_tokens=True).items():
            known = all(character in _BYTE_OF for character in token)
            table[number] = bytes(_BYTE_OF[character] for character in token) if known else token.encode()
        return table

    def is_lossless(self, text: str) -> bool:
        """Whether this text survives text → tokens → text."""
        return self.decode(self.encode(text)) == text
