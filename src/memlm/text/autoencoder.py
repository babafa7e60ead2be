"""A tokenizer and an autoencoder as one: text → memory → text. What users load, call and share."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from memlm.config import AutoencoderConfig, SearchConfig
from memlm.data.chunks import Chunks, LazyChunks, split_into_chunks
from memlm.data.token_store import TokenSplit, split_of_tokens
from memlm.evaluation import checked
from memlm.evaluation.checked import Checked
from memlm.models.autoencoder import Autoencoder, SearchEncoder
from memlm.models.batch import Batch, batch_chunks, encoded, of_each_thread
from memlm.models.decoded import Decoded, Row, decode
from memlm.models.exact_fused import guesser
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.cpu import Precision, precision_on
from memlm.runtime.progress import Advance, track
from memlm.runtime.results import Result
from memlm.runtime.threads import side_by_side
from memlm.text.memory import SEARCHED, Memory, Regenerated, memory_of_vectors, not_searchable
from memlm.text.model import MemoryTextModel, as_texts

_SEARCHED_AT_ONCE = 4
"""Chunks, in a thorough search: so that progress is seen."""


class EncodeOptions(TypedDict, total=False):
    """The other options of `TextAutoencoder.encode`."""

    batch_size: int | None
    device: torch.device | str | None
    show_progress_bar: bool
    normalize: bool
    verify: bool
    precision: Precision


class TextAutoencoder(MemoryTextModel[Autoencoder, AutoencoderConfig]):
    """Text → memory → text, with one memory vector per chunk and slot.

    ```python
    import memlm

    model = memlm.load("english")
    memory = model.encode(["It is a truth universally acknowledged, ..."])
    model.regenerate(memory)
    ```
    """

    config_class = AutoencoderConfig

    @overload
    def encode(
        self, texts: Iterable[str], *, convert_to_numpy: Literal[False] = False, **options: Unpack[EncodeOptions]
    ) -> Memory: ...

    @overload
    def encode(
        self, texts: Iterable[str], *, convert_to_numpy: Literal[True], **options: Unpack[EncodeOptions]
    ) -> Float[np.ndarray, "chunk slot memory_dim"]: ...

    def encode(
        self,
        texts: Iterable[str],
        *,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        show_progress_bar: bool = False,
        normalize: bool = False,
        convert_to_numpy: bool = False,
        verify: bool = False,
        precision: Precision = "fp32",
    ) -> Memory | Float[np.ndarray, "chunk slot memory_dim"]:
        """One memory for each chunk of each text; an empty text has none.

        Args:
            texts: a list, a generator, a pandas Series, ...
            batch_size: chunks encoded at once; by default as many as are decoded at once.
            device: move the model there first.
            show_progress_bar: on standard error.
            normalize: scale each vector to length 1; by default its root mean square is 1.
            convert_to_numpy: return the vectors alone.
            verify: regenerate and compare each chunk, and set the memory's `exact` and `confidence`.
            precision: of matrix products. In bf16 encoding takes half the time, where the processor multiplies it
                (`auto` finds out), and memories differ by 0.003 of root mean square, less than by a wrong token, but
                too much to be proven when they are regenerated.

        Raises:
            ValueError: one string, or a text that is not valid Unicode (a lone surrogate).
            TypeError: not strings; names the first other value.
        """
        if device is not None:
            self.to(device)
        memories = self._memories(
            self._tokenize(as_texts(texts)),
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            normalize=normalize,
            verify=verify,
            precision=precision,
        )
        return memories.numpy() if convert_to_numpy else memories

    def with_search(self, cfg: SearchConfig, search: SearchEncoder, provenance: dict[str, Any]) -> "TextAutoencoder":
        """This model, with what its memories are to be searched by."""
        model = Autoencoder(replace(self.config, search=cfg))
        parts = {**self.model.state_dict(), **{f"search.{name}": part for name, part in search.state_dict().items()}}
        model.load_state_dict(parts)
        return TextAutoencoder(model, self.tokenizer, self.unconditional, provenance)

    def encode_tokens(
        self,
        texts: Iterable[Sequence[int]],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        verify: bool = False,
        precision: Precision = "fp32",
    ) -> Memory:
        """`encode`, for texts that are already token ids of this model's tokenizer.

        Raises:
            ValueError: there is no such token; names it and its text.
        """
        split = split_of_tokens(self.tokenizer, texts)
        return self._memories(
            split,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            verify=verify,
            precision=precision,
        )

    def _memories(
        self,
        split: TokenSplit,
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        normalize: bool = False,
        verify: bool = False,
        precision: Precision = "fp32",
    ) -> Memory:
        """`encode`, for documents already tokenized."""
        shape, chunks = self.config.shape, split_into_chunks(split, self.config.shape.chunk_len)
        vectors = [torch.zeros(0, shape.num_slots, self.config.vector_dim)]
        exact, confidence = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0, shape.chunk_len)]
        batch_size, half = self._batch_size(batch_size), precision_on(self.device, precision) == "bf16"
        with track("Encoding", total=int(chunks.mask.sum()), unit="tokens", quiet=not show_progress_bar) as advance:
            for batch, memory in self.encoded(chunks, batch_size=batch_size, advance=advance, half=half):
                vectors.append((F.normalize(memory, dim=-1) if normalize else memory).cpu())
                if verify:
                    decoded = self._decoded((memory, batch.mask.sum(1)))
                    same_length = decoded.num_tokens == batch.mask.sum(1)
                    exact.append((same_length & (decoded.tokens == batch.tokens).all(1)).cpu())
                    confidence.append(decoded.margin.cpu())
        return Memory(
            vectors=torch.cat(vectors),
            num_tokens=torch.from_numpy(chunks.mask.sum(axis=1)),
            num_chunks=tuple(np.bincount(chunks.document, minlength=len(split.document_names)).tolist()),
            encoder=self.encoder_fingerprint,
            search_dim=self.config.search_dim,
            exact=torch.cat(exact) if verify else None,
            confidence=torch.cat(confidence) if verify else None,
        )

    @torch.no_grad()
    def encoded(self, chunks: Chunks | LazyChunks, **options: Any) -> Iterator[tuple[Batch, MemoryVectors]]:
        """Chunks with their whole memories, batch by batch; options as of `models.batch.encoded`."""
        search = self.model.search
        for batch, memory in encoded(self.model.encoder, chunks, **options):
            parts = [memory] if search is None else [memory, search(batch.tokens, batch.mask)]
            yield batch, torch.cat(parts, dim=-1)

    @torch.no_grad()
    def search_vectors(self, texts: Iterable[str]) -> Float[Tensor, "text search_dim"]:
        """By which texts of at most a chunk are found, and find others: `Memory.search_vectors`, without the rest.

        Raises:
            ValueError: this model's memories cannot be searched; a text is empty, or longer than a chunk; as `encode`.
        """
        search, longest = self.model.search, self.config.shape.chunk_len
        if search is None:
            raise not_searchable(self.source or self.encoder_fingerprint)
        listed = as_texts(texts)
        split = self._tokenize(listed)
        for place, length in enumerate(np.diff(split.document_starts).tolist()):
            if not 0 < length <= longest:
                has = f"text {place}, {listed[place]!r:.40}, has {length}"
                raise ValueError(f"search reads texts of 1 to {longest} tokens, and {has}")
        found = [vectors for _, vectors in encoded(search, split_into_chunks(split, longest))]
        return F.normalize(
            torch.cat([torch.zeros(0, 1, self.config.search_dim), *(v.cpu() for v in found)])[:, 0], dim=-1
        )

    @cached_property
    def encoder_fingerprint(self) -> str:
        """A short hash of the encoder's weights and configuration, and one of what memories are searched by."""
        parts = (self.model.encoder, self.model.search)
        return SEARCHED.join(part.fingerprint(self.tokenizer.fingerprint) for part in parts if part is not None)

    def regenerate(
        self,
        memory: Memory | Float[np.ndarray, "text memory_dim"] | Float[Tensor, "text memory_dim"],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        thorough: bool = False,
    ) -> list[Regenerated]:
        """Decode memories to texts, which say what may be wrong in them (`Regenerated.unsure`).

        The most likely tokens are encoded again; where the memory differs, a better text is searched for
        (`models.correction`).

        Args:
            memory: from `encode`; or vectors alone, each a text of one chunk, where memories hold their length.
            batch_size: chunks decoded at once; by default as many as fit in memory.
            show_progress_bar: on standard error.
            thorough: search long, and also where much is wrong: seconds to a minute for each chunk that is not proven.
                Worth it where a memory has two dimensions a token, or fewer; of a model with `num_bits`, whose memories
                several texts share, it finds nothing.

        Raises:
            ValueError: the memory was made by another encoder, does not fit this one, or holds NaN.
            TypeError: neither a memory nor vectors.
        """
        memory = (
            memory if isinstance(memory, Memory) else memory_of_vectors(memory, self.config, self.encoder_fingerprint)
        )
        total = int(memory.num_tokens.sum())
        with track("Regenerating", total=total, unit="tokens", quiet=not show_progress_bar) as advance:
            rows = self.rows(memory, batch_size=batch_size, advance=advance, thorough=thorough)
            return [self._text([*itertools.islice(rows, count)]) for count in memory.num_chunks]

    def rows(
        self, memory: Memory, *, batch_size: int | None = None, advance: Advance | None = None, thorough: bool = False
    ) -> Iterator[Row]:
        """The tokens of each chunk, with the errors of `regenerate`; `advance` is called with numbers of tokens."""
        vectors, batch_size = self.readable(memory), self._batch_size(batch_size, thorough=thorough)
        guess, each = guesser(self.model, len(vectors)), of_each_thread(batch_size, self.device)
        split = [torch.split(part, each) for part in (vectors, memory.num_tokens)]
        decoded = partial(self._decoded, guess=guess, thorough=thorough)
        for found, some in zip(side_by_side(decoded, zip(*split, strict=True), self.device), split[1], strict=True):
            if advance:  # before the rows: a caller may stop at the last one
                advance(int(some.sum()))
            yield from found.rows()

    @torch.no_grad()
    def states(self, vectors: MemoryVectors) -> Float[Tensor, "chunk token dim"]:
        """What the decoder makes of memories, as `readable` gives them: its last states, before they become logits."""
        shape, dim = self.config.shape, self.config.decoder.dim
        found = [torch.zeros(0, shape.chunk_len, dim)]
        for some in torch.split(vectors, self._batch_size(None)):
            found.append(self.model.decoder.states(some.to(self.device)).float().cpu())
        return torch.cat(found)

    @torch.no_grad()
    def token_logits(self, vectors: MemoryVectors) -> Float[Tensor, "chunk token vocab"]:
        """The decoder's logits of vectors, as they are, for chunks whose length is known: without the end token."""
        return self.model.decoder(vectors.to(self.device))[..., : self.config.vocab_size]

    @property
    def holds_length(self) -> bool:
        """Whether memories hold their own length; older models need `Memory.num_tokens`."""
        return self.config.shape.end_token

    def evaluate(self, texts: Iterable[str], *, name: str = "texts", quiet: bool = True) -> Result:
        """Measure how much of these texts is regenerated from their memories; each text is a unit of the bootstrap.

        The measures are those of the decoder's most likely tokens (`evaluation.metrics.regeneration_measures`), except
        `exact_by_fill` (the share of exact texts by length in tokens) and `calibration` (errors by confidence), which
        are those of `regenerate`.

        Raises:
            ValueError: there is no text, or only white space.
        """
        listed = as_texts(texts)
        if not any(text.strip() for text in listed):
            raise ValueError("nothing to evaluate: the text is empty or all white space")
        return self.evaluate_split(self._tokenize([text for text in listed if text]), name=name, quiet=quiet)

    def evaluate_split(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """`evaluate`, for documents already tokenized by this model's tokenizer."""
        values, intervals = self._regeneration(self.model, split, name=name, quiet=quiet)
        pieces = checked.fill_pieces(split, self.config.shape.chunk_len)
        by_fill: dict[int, Checked] = {}
        total = sum(int(some.mask.sum()) for some in pieces.values())
        with track(f"Regenerating {name} by length", total=total, unit="tokens", quiet=quiet) as advance:
            for fill, some in pieces.items():
                by_fill[fill] = self.check(some)
                advance(int(some.mask.sum()))
        return self._result(name, values | checked.measures_by_length(by_fill), intervals)

    def check(self, chunks: Chunks, **options: Any) -> Checked:
        """`send` chunks through their memories, with its options, and compare."""
        return Checked.of(chunks, self.send(chunks, **options))

    def send(
        self, chunks: Chunks, *, noise: float = 0.0, thorough: bool = False, advance: Advance | None = None
    ) -> Decoded:
        """Encode and decode chunks, with Gaussian noise of this standard deviation on the memories (of RMS 1)."""
        at_once = self._batch_size(None, thorough=thorough)
        sent = encoded(self.model.encoder, chunks, batch_size=at_once, advance=advance)
        noisy = ((memory + noise * torch.randn_like(memory), batch.mask.sum(1)) for batch, memory in sent)
        return Decoded.concat([*side_by_side(partial(self._decoded, thorough=thorough), noisy, self.device)])

    # --- batches, and memories in and out --------------------------------------------------------------------------

    def _batch_size(self, asked: Any, *, thorough: bool = False) -> int:
        if asked is not None and (not isinstance(asked, int) or asked < 1):
            raise ValueError(f"batch_size must be a positive whole number, not {asked!r}")
        shape = self.config.shape
        return asked or (_SEARCHED_AT_ONCE if thorough else batch_chunks(shape.chunk_len, shape.vocab_size))

    def _decoded(self, sent: tuple[MemoryVectors, Int[Tensor, " chunk"]], **options: Any) -> Decoded:
        """What memories and the number of their tokens are decoded to."""
        memory, num_tokens = (part.to(self.device) for part in sent)
        return decode(self.model, memory, None if self.holds_length else num_tokens, **options)

    def _text(self, chunks: list[Row]) -> Regenerated:
        """The text of consecutive chunks."""
        tokens = [token for chunk in chunks for token in chunk.tokens]
        unsure = [flag for chunk in chunks for flag in chunk.unsure]
        proven = all(chunk.proven for chunk in chunks)
        return Regenerated(*self.tokenizer.decode_marked(tokens, unsure), proven=proven)

    def readable(self, memory: Memory) -> Tensor:
        """A memory's vectors as the decoder reads them: its text's alone, of root mean square 1; raises the errors of
        `regenerate`."""
        memory, shape = self.own(memory), self.config.shape
        vectors, lengths = memory.vectors.float(), memory.num_tokens
        if list(vectors.shape[1:]) != [shape.num_slots, shape.memory_dim]:
            made = f"{shape.num_slots} × {shape.memory_dim}"
            raise ValueError(f"these vectors are {list(vectors.shape[1:])} a chunk; this model makes {made}")
        broken = (~vectors.isfinite()).flatten(1).any(1)
        if broken.any():
            raise ValueError(f"the vector of chunk {int(broken.nonzero()[0])} holds NaN or infinity: it is no memory")
        if ((lengths < 0) | (lengths > shape.chunk_len)).any():
            raise ValueError(f"num_tokens must lie from 0 to {shape.chunk_len}, not {lengths.tolist()[:8]}")
        # Vectors may have been normalized to length 1, but not quantized ones.
        return vectors if shape.num_bits else F.rms_norm(vectors, vectors.shape[-1:], eps=1e-12)
