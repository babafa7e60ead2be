"""`memlm.invert`: from embeddings back to texts, and how like they are to the originals."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import AutoencoderConfig
from memlm.models.load_pretrained import tokenizer_of
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, load_encoder
from memlm.probing.inversion.beams import Beam
from memlm.probing.inversion.embedder import Embedder, LocalEmbedder
from memlm.probing.inversion.endpoint import EndpointEmbedder
from memlm.probing.inversion.language import Language
from memlm.probing.inversion.missing import MissingWords
from memlm.probing.inversion.reading import ReadingLanguage
from memlm.probing.inversion.readout import Readout
from memlm.probing.inversion.results import InvertedText
from memlm.probing.inversion.search import SAME, Search
from memlm.runtime.progress import console, track
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import config_class
from memlm.text.memory import Memory
from memlm.text.model import default_device

Vectors = Float[np.ndarray, "text dim"] | Float[Tensor, "text dim"] | Memory
_UNLIKE = 0.6
"""Of so low a cosine no text is, whose embedding is the encoder's."""


def invert(
    vectors: Vectors,
    encoder: str | Path | TextAutoencoder | FrozenEncoder | Embedder,
    *,
    chunk_len: int | None = None,
    encodings: int = 20_000,
    language_model: str = "smollm2",
    endpoint_model: str = "",
    black_box: bool = False,
    reader_steps: int = 0,
    seed: int = 0,
    cache: Path | None = None,
    quiet: bool = True,
) -> list[InvertedText]:
    """Find texts that an encoder embeds as these vectors.

    A memlm autoencoder's own decoder gives its texts back. For any other encoder texts are searched for: all that is
    asked of it is embeddings. Words are read off a vector by a linear map and a network, learned once for each encoder
    (some ten minutes, kept in the cache); beams of a language model make texts of them, which are then changed, encoded
    again, and kept where they come closer and are good English.

    Args:
        vectors: embeddings [text dim], of any length; or a `Memory`, each of whose chunks is a text.
        encoder: any that `memlm.probe` reads, a loaded autoencoder, or the address of an endpoint in OpenAI's form
            (http://..., key in OPENAI_API_KEY).
        chunk_len: how many tokens each text has, if that is known; then only such texts are tried.
        encodings: texts that may be embedded for each vector.
        language_model: a causal language model of the texts' language.
        endpoint_model: the name of the endpoint's model.
        black_box: search, even for a memlm autoencoder's memories.
        reader_steps: first let the language model learn, in so many steps, to read the encoder's embeddings of texts of
            `chunk_len` tokens (minutes, kept in the cache); then it proposes texts and changes that go with a vector.
        seed: of the search.
        cache: folder for what is fitted once, and for an endpoint's answers.
        quiet: no progress on standard error.

    Raises:
        ValueError: no vectors, or of another dimension, NaN or zero; no such encoder; texts that are too long for it;
            an endpoint that does not answer.
    """
    if encodings <= 0:
        raise ValueError(f"encodings must be positive, not {encodings}")
    inverter = Inverter.of(
        encoder,
        language_model,
        endpoint_model=endpoint_model,
        black_box=black_box,
        reader_steps=reader_steps,
        cache=cache,
        quiet=quiet,
    )
    return inverter.invert(vectors, chunk_len=chunk_len, encodings=encodings, seed=seed, quiet=quiet)


@dataclass(kw_only=True)
class Inverter:
    """An encoder with all that inverting it takes, loaded once for any number of vectors."""

    embedder: Embedder
    autoencoder: TextAutoencoder | None
    """Whose memories these are: then nothing is searched for."""
    language_model: str
    reader_steps: int = 0
    """Steps in which the language model learns to read embeddings; 0 if it is to know nothing of them."""
    cache: Path | None = None
    quiet: bool = True
    """No progress where something is prepared."""
    prepared_encodings: int = 0
    _readers: dict[int, ReadingLanguage] = field(default_factory=dict, init=False)

    @classmethod
    def of(
        cls,
        encoder: str | Path | TextAutoencoder | FrozenEncoder | Embedder,
        language_model: str = "smollm2",
        *,
        endpoint_model: str = "",
        black_box: bool = False,
        reader_steps: int = 0,
        cache: Path | None = None,
        quiet: bool = True,
    ) -> Self:
        """Of an encoder, as `invert` takes it; with its errors."""
        own, is_endpoint = None, str(encoder).startswith(("http://", "https://"))
        if is_endpoint and not endpoint_model:
            raise ValueError(f"which model of {encoder}? give its name as endpoint_model")
        if endpoint_model and not is_endpoint:
            raise ValueError(f"endpoint_model is of an endpoint (https://...), and the encoder is {encoder}")
        if isinstance(encoder, Embedder):
            embedder = encoder
        elif isinstance(encoder, FrozenEncoder):
            embedder = LocalEmbedder(encoder)
        elif is_endpoint:
            tokenizer = tokenizer_of(language_model)
            embedder = EndpointEmbedder(str(encoder), endpoint_model, tokenizer, cache=cache, quiet=quiet)
        elif isinstance(encoder, TextAutoencoder):
            own = None if black_box else encoder.to(default_device())
            embedder = LocalEmbedder(MemoryEncoder.of(encoder, name="this autoencoder"))
        elif isinstance(encoder, str | Path):
            if config_class(encoder) is AutoencoderConfig and not black_box:
                own = TextAutoencoder.from_pretrained(encoder)
            embedder = LocalEmbedder(load_encoder(encoder))
        else:
            raise ValueError(
                f"an encoder is a name, a folder, an address, a loaded autoencoder, or what memlm.probe reads, not "
                f"a {type(encoder).__name__}"
            )
        if reader_steps < 0:
            raise ValueError(f"reader_steps must not be negative, or 0 for none, not {reader_steps}")
        if reader_steps and own:
            raise ValueError(
                "these memories are simply decoded, and no reader takes part: search with black_box (--black-box), or "
                "leave reader_steps out"
            )
        if reader_steps and not isinstance(embedder, LocalEmbedder):
            raise ValueError(
                "a reader learns from an encoder that runs here; search an endpoint's without reader_steps"
            )
        return cls(
            embedder=embedder,
            autoencoder=own,
            language_model=language_model,
            reader_steps=reader_steps,
            cache=cache,
            quiet=quiet,
        )

    @cached_property
    def language(self) -> Language:
        """What says what is English."""
        return Language.load(self.language_model, self.embedder.tokenizer, device=default_device())

    def reader(self, chunk_len: int | None) -> ReadingLanguage:
        """The language model after it has learned to read embeddings of texts of so many tokens."""
        if chunk_len is None:
            raise ValueError("a reader reads texts of one length: give chunk_len, or search without reader_steps")
        if chunk_len not in self._readers:
            assert isinstance(self.embedder, LocalEmbedder)
            encoder, name, steps = self.embedder.encoder, self.language_model, self.reader_steps
            reader = ReadingLanguage.trained(encoder, chunk_len, name, steps, cache=self.cache, quiet=self.quiet)
            self._readers[chunk_len] = reader
            self.prepared_encodings += reader.num_pairs
        return self._readers[chunk_len]

    @cached_property
    def readout(self) -> Readout:
        """What reads words off a vector; fitted, if it is not in the cache."""
        before = self.embedder.num_encodings
        readout = Readout.of(self.embedder, self.language.pieces, cache=self.cache, quiet=self.quiet)
        self.prepared_encodings += self.embedder.num_encodings - before
        return readout

    @cached_property
    def missing(self) -> MissingWords:
        """What reads off two vectors which words one text lacks; trained, if it is not in the cache."""
        readout, before = self.readout, self.embedder.num_encodings
        missing = MissingWords.of(self.embedder, readout, cache=self.cache, quiet=self.quiet)
        self.prepared_encodings += self.embedder.num_encodings - before
        return missing

    def invert(
        self, vectors: Vectors, *, chunk_len: int | None, encodings: int, seed: int, quiet: bool
    ) -> list[InvertedText]:
        """One text for each vector."""
        if chunk_len is not None and not 0 < chunk_len <= self.embedder.max_len:
            raise ValueError(
                f"{self.embedder.name} reads texts of 1 to {self.embedder.max_len} tokens, not {chunk_len}"
            )
        targets = self._checked(vectors, quiet=quiet)
        find = self._decode if self.autoencoder else self._search(chunk_len, encodings, seed)
        found: list[InvertedText] = []
        with track("Inverting", total=len(targets) * (chunk_len or 1), unit="tokens", quiet=quiet) as advance:
            for target in targets:
                begin, spent = time.monotonic(), self.embedder.num_encodings
                text = find(target)
                (vector,) = self.embedder.embed([self.embedder.tokens(text)])
                cosine = float(vector @ target)
                found.append(
                    InvertedText(
                        text=text,
                        cosine=cosine,
                        found=cosine >= SAME,
                        encodings=self.embedder.num_encodings - spent,
                        seconds=time.monotonic() - begin,
                    )
                )
                advance(chunk_len or 1, note=f"cosine {np.mean([each.cosine for each in found]):.3f}")
        if all(each.cosine < _UNLIKE for each in found):
            _note(f"no text comes near any of these vectors: are they of {self.embedder.name}?", quiet=quiet)
        return found

    def _checked(self, vectors: Any, *, quiet: bool) -> Float[Tensor, "text dim"]:
        """The vectors as rows of length 1."""
        if isinstance(vectors, Memory):
            vectors = (self.autoencoder.own(vectors) if self.autoencoder else vectors).vectors
        given = _numbers(vectors)
        if not given.numel():
            raise ValueError(f"there are no vectors to invert: these are {list(given.shape)}")
        rows = given.flatten(1) if given.ndim > 1 else given.reshape(1, -1)
        (own,) = self.embedder.embed([self.embedder.tokens("a")])
        if rows.shape[1] != len(own):
            raise ValueError(
                f"{self.embedder.name} makes vectors of {len(own)} dimensions, and these have {rows.shape[1]}: give "
                f"[text {len(own)}], made by this encoder"
            )
        if (broken := ~rows.isfinite().all(1)).any():
            raise ValueError(f"vector {int(broken.nonzero()[0])} holds NaN or infinity; leave it out")
        largest = rows.abs().amax(dim=1, keepdim=True)
        if (largest == 0).any():
            raise ValueError(f"vector {int((largest == 0).nonzero()[0, 0])} is zero: no text has it; leave it out")
        rows = rows / largest  # whose squares are neither infinite nor all 0
        lengths = rows.norm(dim=1, keepdim=True)
        if not self.autoencoder and ((lengths * largest - 1).abs() > 0.01).any():
            _note("the vectors are not of length 1; what is compared is their direction", quiet=quiet)
        return (rows / lengths).float()

    def _decode(self, target: Float[Tensor, " dim"]) -> str:
        assert self.autoencoder is not None
        return str(self.autoencoder.regenerate(target[None])[0])

    def _search(self, chunk_len: int | None, encodings: int, seed: int) -> Callable[[Float[Tensor, " dim"]], str]:
        """How a text is searched for."""
        embedder, readout = self.embedder, self.missing
        language = self.reader(chunk_len) if self.reader_steps else self.language

        def find(target: Float[Tensor, " dim"]) -> str:
            spent = embedder.num_encodings
            words = readout.words(target)
            beam = Beam(embedder=embedder, language=language, words=words, budget=encodings // 4)
            starts = beam.texts(target, chunk_len) or [tuple(words.topk(chunk_len or 8).indices.tolist())]
            left = encodings - (embedder.num_encodings - spent) - 1  # what is found is encoded once more
            search = Search(
                embedder=embedder,
                language=language,
                readout=readout,
                target=target,
                length=chunk_len,
                budget=left,
                seed=seed,
            )
            return embedder.text(search.run(starts).text)

        return find


def _numbers(vectors: Any) -> Tensor:
    """What was given as vectors, on the CPU."""
    wanted = "give a matrix [text dim] of real numbers, as encode(..., convert_to_numpy=True) makes one"
    try:
        given = torch.as_tensor(vectors).detach().cpu()
    except (TypeError, ValueError, RuntimeError):  # torch's way to say that it is none
        raise ValueError(f"a {type(vectors).__name__} like this is no matrix of vectors; {wanted}") from None
    if given.is_complex():
        raise ValueError(f"these vectors are complex; {wanted}")
    return given.double()


def pieces_of(embedder: Embedder, texts: Sequence[str], chunk_len: int, number: int, seed: int = 0) -> list[str]:
    """Pieces of so many tokens that begin with a word, from all over some texts, and come back from their tokens.

    Raises:
        ValueError: there is none in the texts.
    """
    rng, made = np.random.default_rng(seed), list[str]()
    written = [" ".join(text.split()) for text in texts]
    starts = [(row, at) for row, text in enumerate(written) for at in _beginnings(text)]
    for place in rng.permutation(len(starts)).tolist():
        row, at = starts[place]
        text = written[row][at : at + 20 * chunk_len + 20]
        ids, begins = embedder.tokenizer.encode_placed(text)
        if len(ids) <= chunk_len:
            continue
        piece = text[: begins[chunk_len]].strip()
        if len(embedder.tokenizer.encode(piece)) == chunk_len:
            made.append(piece)
        if len(made) == number:
            break
    if not made:
        raise ValueError(f"the text has no piece of {chunk_len} tokens; give more text, or a smaller chunk_len")
    return made


def _beginnings(text: str) -> Iterator[int]:
    return (at for at in range(len(text)) if text[at] != " " and (at == 0 or text[at - 1] == " "))


def _note(text: str, *, quiet: bool) -> None:
    console(stderr=True, quiet=quiet).print(text, markup=False, highlight=False, soft_wrap=True)
