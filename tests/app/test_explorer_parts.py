"""What the explorer computes, without a browser."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import memlm
from command_line import Memlm, assert_refused
from memlm import TextAutoencoder
from memlm.cli import app
from memlm.runtime.progress import track
from memlm.training.train import train
from tiny import tiny_reader_recipe, write_language_model

pytest.importorskip("gradio", reason="the extra app is not installed")

from memlm.app import shown
from memlm.app.answers import Answer, Answers, ask
from memlm.app.book import opened, remember
from memlm.app.change import Change, first_chunk, mixed, rounded, see
from memlm.app.curve import curves, measured, svg
from memlm.app.explorer import Explorer
from memlm.app.files import text_of
from memlm.app.given_back import LENGTHS, read_back, recorded
from memlm.app.jobs import Done, Jobs, Progress, StoppedError, followed

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I went to sea. "


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(model=memlm.load("english", device="cpu"))


@pytest.fixture(scope="module")
def model(explorer: Explorer) -> TextAutoencoder:
    return explorer.model


# --- changes ---


@given(bits=st.integers(1, 31), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_fewer_bits_are_fewer_levels_and_lose_more(bits: int, seed: int) -> None:
    vectors = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(seed))
    made = rounded(vectors, bits)
    for row in made.flatten(1):
        assert len(row.unique()) <= 2**bits
    lost, lost_with_more = ((rounded(vectors, each) - vectors).square().sum() for each in (bits, bits + 1))
    assert lost >= lost_with_more - 1e-12  # float32 has no more bits to lose
    assert (made - vectors).abs().max() <= vectors.abs().max()
    assert torch.equal(rounded(vectors, 32), vectors)


def test_what_comes_back_degrades_as_it_should(model: TextAutoencoder) -> None:
    whole = see(model, TEXT, Change())
    assert whole.back.text == TEXT
    assert whole.back.proven
    assert not whole.back.wrong
    assert (whole.num_bits, whole.num_bytes, whole.text_bytes) == (512 * 32, 2048, len(TEXT))
    assert see(model, TEXT, Change(bits=8)).back.text == TEXT
    one_bit = see(model, TEXT, Change(bits=1))
    assert (one_bit.num_bits, one_bit.num_bytes) == (512 + 32, 68)
    assert one_bit.back.num_right < whole.back.num_right / 2
    assert one_bit.back.unsure
    rights = [see(model, TEXT, Change(noise=noise)).back.num_right for noise in (0, 0.2, 1)]
    assert rights[0] > rights[1] > rights[2]
    again = see(model, TEXT, Change(noise=0.2))
    assert again.back == see(model, TEXT, Change(noise=0.2)).back


def test_edits_are_of_the_chunk_that_is_shown(model: TextAutoencoder) -> None:
    long = TEXT * 10
    before = see(model, long, Change()).memory.vectors
    after = see(model, long, Change(edits={3: 2.5, 9999: 1.0}, chunk=1)).memory.vectors
    changed = (before != after).nonzero().tolist()
    assert changed == [[1, 0, 3]]
    assert after[1, 0, 3] == 2.5


def test_a_long_text_is_cut_and_an_empty_one_has_no_memory(model: TextAutoencoder) -> None:
    assert see(model, TEXT * 10_000, Change()).cut
    nothing = see(model, "", Change(bits=3, noise=0.5, edits={0: 1.0}))
    assert (len(nothing.memory.vectors), nothing.back.text, nothing.num_bytes) == (0, "", 0)


def test_memories_are_mixed(model: TextAutoencoder) -> None:
    one, two = first_chunk(model, TEXT), first_chunk(model, "It was a bright cold day in April.")
    for how, share, expected in (("interpolate", 0.0, one), ("interpolate", 1.0, two)):
        assert torch.equal(mixed(one, two, how, share).vectors, expected.vectors)  # type: ignore[arg-type]
    first, second = mixed(one, two, "swap halves", 0.5).vectors.flatten(1)
    assert torch.equal(first, torch.cat([one.vectors.flatten()[:256], two.vectors.flatten()[256:]]))
    assert torch.equal(second, torch.cat([two.vectors.flatten()[:256], one.vectors.flatten()[256:]]))
    with pytest.raises(ValueError, match="empty"):
        mixed(one, first_chunk(model, ""), "interpolate", 0.5)


# --- files and books ---


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"abc\xff\xfedef", r"byte 3 \(0xff\)"),
        (b"ab\0c", "byte 2 is NUL"),
        ("ä".encode("latin-1"), "iconv"),
    ],
)
def test_bad_files_are_refused(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=says) as refused:
        text_of(path)
    assert "bad.txt" in str(refused.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "marked.txt").write_bytes("\ufeffGrüße".encode())
    assert text_of(tmp_path / "marked.txt") == "Grüße"


def test_a_book_is_remembered_searched_and_opened(explorer: Explorer) -> None:
    text = "".join(f"Paragraph {number}. {TEXT}" for number in range(30)) + "The heron stood in the reeds."
    book = remember(explorer, "notes", text)
    assert "".join(book.texts) == text
    (best, *_) = book.search("Heron")
    assert best.chunk == len(book.texts) - 1 or "heron" in book.texts[best.chunk]
    assert [best.excerpt[start:stop] for start, stop in best.spans] == ["heron"]
    assert book.search("zebra") == []
    assert book.search("  ,") == []
    found = book.open(best.chunk)
    assert found.back == found.exact == book.texts[best.chunk]
    again = opened(explorer, book.notes.path)
    assert list(again.texts) == list(book.texts)


def test_a_word_that_is_cut_between_chunks_is_found(explorer: Explorer) -> None:
    book = remember(explorer, "notes", TEXT * 20)
    cut = [
        number
        for number, (one, two) in enumerate(zip(book.texts, book.texts[1:], strict=False))
        if one[-1:].isalpha() and two[:1].isalpha()
    ]
    for number in cut:
        word = book.texts[number].split()[-1] + book.texts[number + 1].split()[0].strip(".,")
        assert number in book.best(word)


# --- long work ---


def test_work_is_watched_and_gives_its_result() -> None:
    def work(stop: Event) -> str:
        with track("Counting", total=4, unit="tokens", quiet=True) as advance:
            for _ in range(4):
                time.sleep(0.1)
                advance(1)
        return "done"

    told = list(followed(work, Event(), "Beginning"))
    assert told[-1] == Done("done")
    seen = [each for each in told if isinstance(each, Progress)]
    assert any(each.title == "Counting" and each.share for each in seen)
    assert [each.done for each in seen] == sorted(each.done for each in seen)


def test_work_ends_where_it_is_stopped_or_left() -> None:
    advanced: list[int] = []

    def work(stop: Event) -> None:
        with track("Counting", total=None, unit="tokens", quiet=True) as advance:
            for number in range(1000):
                time.sleep(0.01)
                advanced.append(number)
                advance(1)

    jobs = Jobs()
    steps = followed(work, jobs.begin("page", "counting"), "Beginning")
    next(steps)
    jobs.stop("page", "counting")
    with pytest.raises(StoppedError):
        list(steps)
    left = followed(work, jobs.begin("page", "counting"), "Beginning")
    next(left)
    left.close()
    another = jobs.begin("page", "counting")
    jobs.leave("page")
    assert another.is_set()
    time.sleep(0.1)
    reached = len(advanced)
    time.sleep(0.1)
    assert len(advanced) == reached < 200


@pytest.mark.parametrize(
    ("error", "says"), [(ValueError("no such thing"), "^no such thing"), (KeyError("x"), "went wrong: KeyError: 'x'")]
)
def test_an_error_in_work_is_raised_where_it_is_followed(error: Exception, says: str) -> None:
    def work(stop: Event) -> None:
        raise error

    with pytest.raises(ValueError, match=says):
        list(followed(work, Event(), "Beginning"))


# --- what is shown ---


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=3))
def test_texts_are_escaped_and_whole(content: str, ends: list[tuple[int, int]]) -> None:
    spans = tuple((min(pair), min(max(pair), len(content))) for pair in ends if min(pair) < len(content))
    html = shown.text(content, {"unsure": spans, "wrong": spans[:1]})
    inner = html.removesuffix("</div>").split(">", 1)[1]
    for tag in ('<mark class="unsure">', '<mark class="unsure wrong">', '<mark class="wrong">', "</mark>"):
        inner = inner.replace(tag, "")
    assert inner == shown.escape(content)
    assert "<script" not in shown.error("<script>alert(1)</script>")


def test_what_was_measured_is_there() -> None:
    assert "english" in curves()[0].label
    assert min(curves()[0].y) > 0.98
    assert svg(curves()).count("<circle") == sum(len(curve.x) for curve in curves())
    for length in LENGTHS:
        text, cards = recorded(length)
        assert [card.model for card in cards] == ["english", "minilm", "minilm", "smollm2"]
        assert cards[0].right == 1
        assert cards[0].f1 == 1
        assert text.startswith(cards[0].original)
    # As in the results from which the documents are made.
    results = json.loads((Path(__file__).parents[2] / "docs" / "results" / "invert.json").read_text("utf-8"))
    exact = {each["chunk_len"]: round(each["exact"], 3) for each in results}
    assert {each["tokens"]: each["exact"] for each in measured()["searched"]} == exact


def test_a_text_is_read_back(explorer: Explorer) -> None:
    card = read_back(explorer, "english", TEXT, 8, "a small reader")
    assert (card.right, card.f1) == (1.0, 1.0)
    with pytest.raises(ValueError, match="give a longer one"):
        read_back(explorer, "english", "short", 8, "a small reader")
    with pytest.raises(ValueError, match="no-such-model"):
        read_back(explorer, "no-such-model", TEXT, 8, "a small reader")


# --- answers ---


@pytest.fixture(scope="module")
def reader(finished_run: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny reader of the tiny model."""
    base = write_language_model(tmp_path_factory.mktemp("language-model"), "qwen3")
    folder = tmp_path_factory.mktemp("reader") / "run"
    train(tiny_reader_recipe(base, finished_run / "model", corpus), folder, quiet=True)
    return folder / "model"


def test_a_question_is_answered_from_memories_and_from_the_text(trained: TextAutoencoder, reader: Path) -> None:
    explorer = Explorer(model=trained, name=str(trained.source), reader_name=str(reader))
    book = remember(explorer, "notes", "the memory of a vector holds one long chunk of text\n" * 2)
    told = Answers(Answer(), Answer())
    ask(explorer, book, "what?", 2, 4, told, Event())
    assert (told.chunks, told.ratio) == (2, 4)
    for answer in (told.memory, told.text):
        assert answer.done
        assert not answer.failed
        assert answer.first_seconds is not None
        assert 0 < answer.first_seconds <= answer.seconds
    layers = 2 * explorer.reader().model.decoder.hf.config.num_hidden_layers
    assert told.text.positions > told.memory.positions
    assert told.memory.cache_bytes % (layers * told.memory.positions) == 0
    assert told.text.cache_bytes * told.memory.positions == told.memory.cache_bytes * told.text.positions
    with pytest.raises(ValueError, match="no question"):
        ask(explorer, book, "  ", 2, None, told, Event())
    stopped = Event()
    stopped.set()
    with pytest.raises(StoppedError):
        ask(explorer, book, "what?", 2, None, told, stopped)


def test_what_does_not_fit_is_told_and_another_encoder_refused(
    trained: TextAutoencoder, reader: Path, explorer: Explorer
) -> None:
    own = Explorer(model=trained, name=str(trained.source), reader_name=str(reader))
    book = remember(own, "notes", "the memory of a vector holds one long chunk of text\n" * 30)
    told = Answers(Answer(), Answer())
    ask(own, book, "what?", 256, 16, told, Event())
    assert "positions" in told.text.failed
    other = Explorer(model=explorer.model, reader_name=str(reader))
    with pytest.raises(ValueError, match="--reader"):
        ask(other, remember(other, "notes", TEXT), "what?", 8, None, told, Event())


# --- as a command ---


def test_what_cannot_be_explored_is_refused(memlm: Memlm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(memlm("app", "--port", 99999), "99999")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert_refused(memlm("app", "--port", taken.getsockname()[1]), "--port", "in use")
    outcome = memlm("app", "--port", 0, "--reader", "no-such-reader", "--model", "no-such-model")
    assert outcome.code == 2
    assert re.fullmatch("starting.*\nno language model.*no-such-reader.*\nmemlm: .*no-such-model.*\n", outcome.err)
    monkeypatch.setattr(app, "find_spec", lambda _: None)
    assert_refused(memlm("app"), "memlm app needs gradio: pip install 'memlm[app]'")


def test_ctrl_c_is_told_and_ends_what_runs(memlm: Memlm, explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    @contextmanager
    def served(*_: object, opens: bool) -> Iterator[str]:
        try:
            yield "http://here"
        finally:
            ended.append("page")

    monkeypatch.setattr("memlm.app.page.served", served)
    monkeypatch.setattr("memlm.app.page.create_page", lambda explorer: None)
    monkeypatch.setattr("memlm.app.explorer.Explorer", lambda **_: explorer)
    monkeypatch.setattr("memlm.load", lambda *_, **__: None)
    monkeypatch.setattr(explorer.jobs, "end", lambda: ended.append("jobs"))
    monkeypatch.setattr(app.Event, "wait", lambda _: signal.raise_signal(signal.SIGINT))
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        done = memlm("app", "--port", 0)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (done.code, done.out, ended) == (130, "", ["jobs", "page"])
    assert done.err.endswith("(Ctrl-C stops it)\nmemlm: interrupted\n")
