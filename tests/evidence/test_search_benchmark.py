"""memlm bench search: what is counted, on a tiny model."""

import sysconfig
from pathlib import Path

import pytest
import torch

from command_line import Memlm
from memlm import TextAutoencoder
from memlm.config import Attention, SearchConfig, StackConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.autoencoder import SearchEncoder
from memlm.training.search import Teacher
from memlm_evidence.benchmarks import search, search_pairs
from memlm_evidence.benchmarks.search import _hits
from memlm_evidence.benchmarks.search_pairs import Pairs
from tiny import write_sentence_encoder

SUMMARY = '''def one():
    """Return one.

    {body}
    """


def two():
    """Two lines, and therefore
    no summary.

    {body}
    """


def three():
    """Too little.

    No body.
    """
'''


@pytest.fixture(scope="module")
def model(trained: TextAutoencoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    teacher = write_sentence_encoder(folder / "teacher")
    stack = StackConfig(dim=16, num_layers=1, mixer=Attention(num_heads=2))
    sizes = {"dim": 8, "teacher_dim": 32, "num_words": 64, "word_dim": 8}
    made_by = {"teacher": str(teacher), "teacher_fingerprint": Teacher(str(teacher)).fingerprint}
    cfg = SearchConfig(**sizes, **made_by, stack=stack)  # type: ignore[arg-type]
    network = SearchEncoder(cfg, trained.config.shape)
    torch.nn.init.orthogonal_(network.reduction)
    network.spell(trained.tokenizer.token_bytes)
    trained.with_search(cfg, network, {}).save_pretrained(folder / "model")
    return folder / "model"


def test_the_command(memlm: Memlm, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAIRS", (search_pairs.novel,))
    monkeypatch.setattr(search, "BITS", (32, 4))
    monkeypatch.setattr(search, "NEAREST", 30)  # of some forty: this teacher has learned nothing
    answer = memlm("bench", "search", model, "--num-passages", 30, "--json").json()
    (row,) = answer["rows"]
    assert (row["text"], row["num_queries"]) == ("novel", 30)
    assert row["recall"].keys() == {"teacher", "reduced", "memory", "at_8_bits", "at_6_bits", "at_4_bits"}
    assert all(0 <= share <= 1 for share in row["recall"].values())
    assert row["recall_ratio"] == pytest.approx(row["recall"]["memory"] / row["recall"]["teacher"])
    assert -1 <= row["cosine"] <= 1
    assert row["intervals"]["recall_ratio"][0] <= row["recall_ratio"] <= row["intervals"]["recall_ratio"][1]
    exact, few = answer["regeneration"]
    assert exact["token_accuracy"] == exact["token_accuracy_without"]  # the decoder never sees the rest
    assert (few["search_bits"], few["vector_bytes"], few["vector_bytes_without"]) == (32, 20, 16)
    assert answer["seconds_per_chunk"].keys() == {"text", "search", "teacher"}


def test_what_cannot_be_measured_is_refused(memlm: Memlm, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAIRS", (search_pairs.novel,))
    assert "--num-passages" in memlm("bench", "search", model, "--num-passages", 2).err
    outcome = memlm("bench", "search", "english")
    assert outcome.code == 2
    assert "english-search" in outcome.err


def test_hits_leave_out_the_query_itself_and_count_ties_against() -> None:
    unit = torch.eye(12)
    queries = unit[:2]
    own = Pairs("a", ["", ""], [""] * 12, own=[0, 1])
    assert _hits([queries, unit], own).tolist() == [True, True]
    same = Pairs("a", ["", ""], [""] * 12, own=[1, 0], same=[0, 1])
    assert _hits([queries, unit], same).tolist() == [False, False]  # eleven are equally far
    assert _hits([queries, unit[:10]], same).tolist() == [True, True]


def test_neighbours_are_consecutive_chunks() -> None:
    tokenizer = Tokenizer.train([], 256)
    pairs = search_pairs.novel(tokenizer, 50, 7)
    text = "".join(one.text for one in search_pairs.evaluation_documents("novel"))
    assert len(pairs.queries) == len(pairs.own) == 7
    assert pairs.same is not None
    for query, same, own in zip(pairs.queries, pairs.same, pairs.own, strict=True):
        assert pairs.passages[same] == query
        assert query + pairs.passages[own] in text


def test_docstrings_are_told_from_their_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "What it does, at length. " * 20
    (tmp_path / "module.py").write_text(SUMMARY.replace("{body}", body))
    (tmp_path / "broken.py").write_text("def")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    pairs = search_pairs.docstrings(Tokenizer.train([], 256), 100, 10)
    assert [*pairs.queries] == ["Return one."]
    assert pairs.passages[0] == body[:100]
