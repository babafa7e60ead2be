"""A tokenizer and an autoencoder as one: text → memory → text. What users load, call and share."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from memlm.config import AutoencoderConfig
from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.corpus import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation import checked
from memlm.evaluation.checked import Checked
from memlm.evaluation.metrics import Scores, measures, score
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch, batch_chunks, encoded
from memlm.models.decoded import Decoded, Row, decode
from memlm.runtime.progress import Advance, track
from memlm.runtime.results import Provenance, Result
from memlm.text.memory import Memory
from memlm.text.model import TextModel, as_texts, check_table, require_own
from memlm.text.regenerated import Regenerated


class TextAutoencoder(TextModel[Autoencoder, AutoencoderConfig]):
    """Text → memory → text, with one memory vector per chunk and slot.

    ```python
    import memlm

    model = memlm.load("english")
    memory = model.encode(["It is a truth universally acknowledged, ..."])
    model.regenerate(memory)
    ```
    """

    kind = "autoencoder"
    model_class = Autoencoder
    tables = ("unconditional",)

    def __init__(
        self,
        model: Autoencoder,
        tokenizer: Tokenizer,
        unconditional: Float[Tensor, " vocab"],
        provenance: dict[str, Any],
    ) -> None:
        """`unconditional` are a reader's log-probabilities, in nats, without a memory (`unconditional_log_probs`)."""
        super().__init__(model, tokenizer, provenance)
        self.unconditional = check_table(unconditional, self.config.vocab_size)
        self.encoder_fingerprint = model.encoder.fingerprint(tokenizer.fingerprint)

    @overload
    def encode(
        self,
        texts: Iterable[str],
        *,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        show_progress_bar: bool = False,
        normalize: bool = False,
        convert_to_numpy: Literal[False] = False,
        verify: bool = False,
    ) -> Memory: ...

    @overload
    def encode(
        self,
        texts: Iterable[str],
        *,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        show_progress_bar: bool = False,
        normalize: bool = False,
        convert_to_numpy: Literal[True],
        verify: bool = False,
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
    ) -> Memory | Float[np.ndarray, "chunk slot memory_dim"]:
        """One memory for each chunk of each text; an empty text has none.

        Args:
            texts: a list, a generator, a pandas Series, ...
            batch_size: chunks encoded at once; by default as many as are decoded at once.
            device: move the model there first.
            show_progress_bar: on standard error.
            normalize: scale each vector to length 1; by default its root mean square is 1.
            convert_to_numpy: return the vectors alone.
            verify: regenerate each chunk and compare; the memory then says which are exact, and how sure each token is.

        Raises:
            ValueError: one string, or a text that is not valid Unicode (a lone surrogate).
            TypeError: something else than strings, with its place.
        """
        if device is not None:
            self.to(device)
        listed = as_texts(texts)
        chunks = split_into_chunks(self._tokenize(listed), self.config.shape.chunk_len)
        vectors, exact, confidence = [self._no_memory], [], []
        with track("Encoding", total=int(chunks.mask.sum()), unit="tokens", quiet=not show_progress_bar) as advance:
            batch_size = self._batch_size(batch_size)
            for batch, memory in encoded(self.model.encoder, chunks, batch_size=batch_size, advance=advance):
                vectors.append(memory.cpu())
                if verify:
                    decoded = self._regenerated(batch, memory)
                    same_length = decoded.num_tokens == batch.mask.sum(1)
                    exact.append((same_length & (decoded.tokens == batch.tokens).all(1)).cpu())
                    confidence.append(decoded.margin.cpu())
        memories = Memory(
            vectors=torch.cat(vectors),
            num_tokens=torch.from_numpy(chunks.mask.sum(axis=1)),
            num_chunks=tuple(np.bincount(chunks.document, minlength=len(listed)).tolist()),
            encoder=self.encoder_fingerprint,
            exact=torch.cat([torch.zeros(0, dtype=torch.bool), *exact]) if verify else None,
            confidence=torch.cat([torch.zeros(0, chunks.mask.shape[1]), *confidence]) if verify else None,
        )
        if normalize:
            memories = replace(memories, vectors=F.normalize(memories.vectors, dim=-1))
        return memories.numpy() if convert_to_numpy else memories

    def regenerate(
        self,
        memory: Memory | Float[np.ndarray, "text memory_dim"] | Float[Tensor, "text memory_dim"],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
    ) -> list[Regenerated]:
        """The texts that memories give back, each with what is unsure of it (`Regenerated.unsure`).

        The decoder's likeliest tokens are encoded again; where that gives another memory, a text that gives the same is
        looked for (`models.decoded`).

        Args:
            memory: from `encode`; or vectors alone, each a text of one chunk, from a model whose memories hold their
                length.
            batch_size: chunks decoded at once; by default as many as fit into memory well.
            show_progress_bar: on standard error.

        Raises:
            ValueError: the memory was made by another encoder, does not fit this one, or holds NaN.
            TypeError: no memory.
        """
        memory = memory if isinstance(memory, Memory) else self._of_vectors(memory)
        total = int(memory.num_tokens.sum())
        with track("Regenerating", total=total, unit="tokens", quiet=not show_progress_bar) as advance:
            rows = self.rows(memory, batch_size=batch_size, advance=advance)
            return [self._text([*itertools.islice(rows, count)]) for count in memory.num_chunks]

    def rows(self, memory: Memory, *, batch_size: int | None = None, advance: Advance | None = None) -> Iterator[Row]:
        """The tokens of each chunk, as `regenerate` spells them; `advance` hears of tokens. Same errors."""
        vectors = self._readable(memory)
        for some in torch.split(torch.arange(len(vectors)), self._batch_size(batch_size)):
            lengths = None if self.holds_length else memory.num_tokens[some].to(self.device)
            rows = decode(self.model, vectors[some].to(self.device), lengths).rows()
            if advance:  # first: who takes the last row does not come back
                advance(int(memory.num_tokens[some].sum()))
            yield from rows

    @property
    def holds_length(self) -> bool:
        """Whether memories hold their own length; older models' are told it (`Memory.num_tokens`)."""
        return self.config.shape.end_token

    def evaluate(self, texts: Iterable[str], *, name: str = "texts", quiet: bool = True) -> Result:
        """Measure how much of these texts their memories give back (`evaluation.metrics.measures`).

        Each text is a document: a unit of the bootstrap. Beside what the decoder gives back at once, all measures of
        which are of that, `exact_by_fill` and `calibration` say what `regenerate` makes of it: exact texts by their
        length in tokens, and how often it is wrong by how sure it is.

        Raises:
            ValueError: no text, or none with anything but white space in it.
        """
        listed = as_texts(texts)
        if not any(text.strip() for text in listed):
            raise ValueError("nothing to evaluate: the text is empty or all white space")
        return self.evaluate_split(self._tokenize([text for text in listed if text]), name=name, quiet=quiet)

    def evaluate_split(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """`evaluate`, for documents already tokenized by this model's tokenizer."""
        shape = self.config.shape
        chunks = split_into_chunks(split, shape.chunk_len)
        scores = self.score(chunks, name=name, quiet=quiet)
        values, intervals = measures(
            scores,
            self.unconditional_nats(scores.chunks),
            np.asarray(split.document_bytes),
            vocab_size=shape.vocab_size,
            memory_dims=shape.num_slots * shape.memory_dim,
        )
        values |= {"chunk_len": shape.chunk_len, "memory_dim": shape.memory_dim, "num_slots": shape.num_slots}
        pieces = checked.fill_pieces(split, shape.chunk_len)
        by_fill: dict[int, Checked] = {}
        total = sum(int(some.mask.sum()) for some in pieces.values())
        with track(f"Regenerating {name} by length", total=total, unit="tokens", quiet=quiet) as advance:
            for fill, some in pieces.items():
                by_fill[fill] = self.check(some)
                advance(int(some.mask.sum()))
        values |= checked.measures(by_fill)
        made_by = Provenance.here(model=self.provenance, encoder=self.encoder_fingerprint)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)

    def score(self, chunks: Chunks, *, name: str = "", quiet: bool = True) -> Scores:
        """Score every token of what the decoder gives back at once."""
        with track(f"Regenerating {name}", total=int(chunks.mask.sum()), unit="tokens", quiet=quiet) as advance:
            return score(self.model, chunks, self.config.shape.vocab_size, device=self.device, advance=advance)

    def check(self, chunks: Chunks, *, noise: float = 0.0) -> Checked:
        """Send chunks through their memories, and compare; `noise` as in `send`."""
        return Checked.of(chunks, self.send(chunks, noise=noise))

    def send(self, chunks: Chunks, *, noise: float = 0.0) -> Decoded:
        """Send chunks through their memories, as `encode` and `regenerate` do.

        `noise` is the standard deviation of Gaussian noise on the memories, whose root mean square is 1.
        """
        decoded = []
        for batch, memory in encoded(self.model.encoder, chunks, batch_size=self._batch_chunks):
            decoded.append(self._regenerated(batch, memory + noise * torch.randn_like(memory)))
        return Decoded.concat(decoded)

    def unconditional_nats(self, chunks: Chunks) -> Float[np.ndarray, "chunk token"]:
        """What each token costs the reader that has no memory, in nats."""
        return -self.unconditional.numpy()[chunks.tokens]

    # --- batches ---------------------------------------------------------------------------------------------------

    @property
    def _batch_chunks(self) -> int:
        return batch_chunks(self.config.shape.chunk_len, self.config.shape.vocab_size)

    def _batch_size(self, asked: Any) -> int:
        if asked is not None and (not isinstance(asked, int) or asked < 1):
            raise ValueError(f"batch_size must be a positive whole number, not {asked!r}")
        return asked or self._batch_chunks

    def _regenerated(self, batch: Batch, memory: Tensor) -> Decoded:
        return decode(self.model, memory, None if self.holds_length else batch.mask.sum(1))

    # --- text and memories in and out ------------------------------------------------------------------------------

    def _tokenize(self, texts: list[str]) -> TokenSplit:
        documents = (Document(f"text {i}", text, None) for i, text in enumerate(texts))
        return tokenize_documents(self.tokenizer, documents)

    def _text(self, chunks: list[Row]) -> Regenerated:
        """One text of its chunks."""
        tokens = [token for chunk in chunks for token in chunk.tokens]
        unsure = [flag for chunk in chunks for flag in chunk.unsure]
        proven = all(chunk.proven for chunk in chunks)
        return Regenerated(*self.tokenizer.decode_marked(tokens, unsure), proven=proven)

    @property
    def _no_memory(self) -> Tensor:
        return torch.zeros(0, self.config.shape.num_slots, self.config.shape.memory_dim)

    def _readable(self, memory: Memory) -> Tensor:
        """A memory's vectors as the decoder reads them; same errors as `regenerate`."""
        shape, vectors, lengths = self.config.shape, memory.vectors.float(), memory.num_tokens
        require_own(memory, self.encoder_fingerprint)
        if list(vectors.shape[1:]) != [shape.num_slots, shape.memory_dim]:
            made = f"{shape.num_slots} × {shape.memory_dim}"
            raise ValueError(f"these vectors are {list(vectors.shape[1:])} a chunk; this model makes {made}")
        broken = (~vectors.isfinite()).flatten(1).any(1)
        if broken.any():
            raise ValueError(f"the vector of chunk {int(broken.nonzero()[0])} holds NaN or infinity: it is no memory")
        if ((lengths < 0) | (lengths > shape.chunk_len)).any():
            raise ValueError(f"num_tokens must lie from 0 to {shape.chunk_len}, not {lengths.tolist()[:8]}")
        # They may be kept at length 1; what is rounded to levels is never.
        return vectors if shape.num_bits else F.rms_norm(vectors, vectors.shape[-1:], eps=1e-12)

    def _of_vectors(self, vectors: Any) -> Memory:
        """Vectors from anywhere, each a text of one chunk."""
        if not isinstance(vectors, (np.ndarray, Tensor)):
            found = type(vectors).__name__
            raise TypeError(
                f"expected a Memory, as encode makes it, or an array of vectors, not {found} (numpy.stack makes one)"
            )
        if not self.holds_length:
            raise ValueError("this model's vectors do not hold their length: give a Memory, which has num_tokens")
        shape, given = self.config.shape, torch.as_tensor(vectors)
        width = shape.num_slots * shape.memory_dim
        if given.ndim == 0 or given.shape[-1] not in (shape.memory_dim, width) or given.numel() % width:
            raise ValueError(f"expected vectors [text {width}], not {list(given.shape)}")
        rows = given.reshape(-1, shape.num_slots, shape.memory_dim)
        return Memory(
            vectors=rows,
            num_tokens=torch.full((len(rows),), shape.chunk_len),
            num_chunks=(1,) * len(rows),
            encoder=self.encoder_fingerprint,
        )
