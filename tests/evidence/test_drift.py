"""`memlm bench drift`: text that is remembered and recalled again and again."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from command_line import Memlm, assert_refused
from memlm import TextAutoencoder
from memlm.data.texts import evaluation_documents, everyday_lines
from memlm.data.tokenizer import Tokenizer
from memlm.store.codec import Codec
from memlm.store.tokenized import Tokenized
from memlm_evidence.benchmarks.drift import Drift
from memlm_evidence.benchmarks.drift_rounds import Editor, Round, Texts, Words, rounds_of, sender
from memlm_evidence.benchmarks.drift_rows import History, worst_rows
from tiny import write_language_model

SENTENCE = "It was the best of times, it wasn't the worst: Anne's sister had 12 children, and a café in Bath; "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pretrained("english")


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> Words:
    return Words(tokenizer, everyday_lines("words"))


def some_texts(tokenizer: Tokenizer, number: int = 8, length: int = 24) -> Texts:
    tokens = tokenizer.encode(SENTENCE * 8)
    return np.stack([tokens[start : start + length] for start in range(number)]).astype(np.int64)


def states(send, texts: Texts, rounds: int, editor: Editor | None = None) -> Iterator[Round]:
    return itertools.islice(rounds_of(send, texts, editor), rounds + 1)


# --- rounds ---


def test_round_0_is_the_text(tokenizer: Tokenizer, words: Words) -> None:
    texts = some_texts(tokenizer)
    for editor in (None, Editor(words, texts, [0])):
        first = next(rounds_of(lambda _: pytest.fail("nothing is sent before round 1"), texts, editor))
        assert np.array_equal(first.texts, texts)
        assert np.array_equal(first.expected, texts)
        assert not first.replaced.any()


def test_a_text_that_came_back_exactly_never_changes_and_is_not_sent_again(tokenizer: Tokenizer) -> None:
    texts, sent = some_texts(tokenizer, 3), []

    def send(some: Texts) -> Texts:
        """The last of three texts loses a token in each of its first rounds."""
        sent.append(len(some))
        back = some.copy()
        back[-1, len(sent)] = 0 if len(sent) < 4 else back[-1, len(sent)]
        return back

    found = [now.texts for now in states(send, texts, 8)]
    assert sent == [3, 1, 1, 1]
    assert all(np.array_equal(now[:2], texts[:2]) for now in found)
    assert [int((now != texts).sum()) for now in found] == [0, 1, 2, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("bits", [32, 4])
def test_waiting_at_a_fixed_point_is_the_same_as_going_on(trained: TextAutoencoder, bits: int) -> None:
    send = sender(Codec(trained, bits))
    tokens = trained.tokenizer.encode("the memory holds one long text and the vector reads short chunk whole " * 20)
    texts = np.stack([tokens[start : start + 12] for start in range(60)]).astype(np.int64)
    now = texts
    for round_ in itertools.islice(rounds_of(send, texts), 1, 13):
        now = send(now)
        assert np.array_equal(round_.texts, now)
    assert np.array_equal(send(now), now) or bits == 4
    assert (now != texts).any() or bits == 32


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_sent_is_what_memory_files_hold(bits: int, english: TextAutoencoder) -> None:
    text = " ".join(document.text for document in evaluation_documents("verse")[:1])[:1800]
    codec = Codec(english, bits, target=0)  # whole chunks, whatever they give back
    tokens, start = Tokenized.of(english.tokenizer, text.encode()).tokens, 0
    for chunk in codec.write(text):
        some = tokens[None, start : start + chunk.num_tokens]
        # A file counts by the exact decoder, whose numbers are rounded.
        assert abs(int((sender(codec)(some) != some).sum()) - chunk.num_wrong) <= 0.02 * chunk.num_tokens
        start += chunk.num_tokens
    assert start == len(tokens) > 4 * codec.chunk_len


# --- words ---


def test_words_are_whole_ones_of_plain_letters(tokenizer: Tokenizer, words: Words) -> None:
    tokens = tokenizer.encode(SENTENCE)
    found = [tokenizer.decode(tokens[start:stop]) for start, stop in words.of(tokens)]
    pieces = ["It", " was", " the", " best", " of", " times", " it", " the", " worst", " Anne", " sister", " had"]
    assert [word for word in found if word in pieces] == pieces
    assert not {" café", " caf", "s", "t", " 12", "12"} & set(found)


def test_an_edit_changes_exactly_its_word(tokenizer: Tokenizer, words: Words) -> None:
    texts = some_texts(tokenizer)
    editor = Editor(words, texts, [1])
    now = Round(texts, texts, np.zeros(texts.shape, bool))
    for _ in range(30):
        after = editor.edit(now)
        for text, spans in enumerate(editor.words):
            changed = np.flatnonzero(after.texts[text] != now.texts[text])
            (span,) = [(start, stop) for start, stop in spans if start <= changed[0] < stop]
            assert set(changed) <= set(range(*span))
            assert after.replaced[text, slice(*span)].all()
            new_words = now.replaced[text] != after.replaced[text]
            assert set(np.flatnonzero(new_words)) <= set(range(*span))
            # Its tokens are still those of its own text, and its words are where they were.
            whole = tokenizer.decode(after.texts[text, : spans[-1][1]])
            assert tokenizer.encode(whole).tolist() == after.texts[text, : spans[-1][1]].tolist()
            assert words.of(after.texts[text]) == spans
        assert np.array_equal(after.texts, after.expected)
        now = after
    assert np.array_equal(texts, some_texts(tokenizer))


def test_edits_are_of_their_seed(tokenizer: Tokenizer, words: Words) -> None:
    texts = some_texts(tokenizer)

    def last(seed: int) -> Texts:
        return [*states(lambda some: some, texts, 5, Editor(words, texts, [seed]))][-1].texts

    assert np.array_equal(last(0), last(0))
    assert not np.array_equal(last(0), last(1))


def test_a_text_without_words_stays_as_it_is(tokenizer: Tokenizer, words: Words) -> None:
    texts = np.array([tokenizer.encode("1234567890 1234567890")[:6]], dtype=np.int64)
    editor = Editor(words, texts, [0])
    assert editor.words == [[]]
    assert all(np.array_equal(now.texts, texts) for now in states(lambda some: some, texts, 3, editor))


# --- rows ---


def test_shares_are_counted_over_all_tokens_of_a_slice() -> None:
    texts = np.arange(8).reshape(2, 4)
    history = History(texts, None)
    nothing = np.zeros(texts.shape, bool)
    lost = texts.copy()
    lost[1, 2:] = 0
    for number, now in enumerate((texts, texts, lost, lost)):
        history.add(number, Round(now, texts, nothing), keep=number in (1, 3))
    found = history.measures(slice(None))
    assert found["changed"] == {"1": 0.0, "3": 0.25}
    assert found["exact"] == {"1": 1.0, "3": 0.5}
    assert (found["last_change"], found["num_texts"]) == (2, 2)
    assert found["intervals"]["changed"] == [0.0, 0.5]
    assert found["intervals"]["exact"] == pytest.approx([0.0945, 0.9055], abs=1e-4)  # Wilson, 1 of 2
    alone = history.measures(slice(1))
    assert (alone["last_change"], "changed" in alone["intervals"]) == (0, False)  # one text has no spread


def test_untouched_and_replaced_words_are_told_apart(tokenizer: Tokenizer, words: Words) -> None:
    text = tokenizer.encode(" the best of times")[None].astype(np.int64)
    editor = Editor(words, text, [0])
    history = History(text, editor)
    assert len(editor.words[0]) == 4

    def forget_the_new(some: Texts) -> Texts:
        return text

    for number, now in enumerate(states(forget_the_new, text, 1, editor)):
        history.add(number, now, keep=True)
    found = history.measures(slice(None))
    assert (found["untouched"], found["replaced"]) == ({"1": 1.0}, {"1": 0.0})
    assert "last_change" not in found


def test_the_worst_is_the_most_changed_of_a_kind() -> None:
    rows = [
        {"kind": kind, "tokens": tokens, "bits": bits, "edits": False, "num_texts": 2}
        | {"changed": {"1": 0.9, "2": changed}, "exact": {"2": 0.5}, "intervals": {}}
        for kind, tokens, bits, changed in (("a", 1, 32, 0.1), ("b", 2, 32, 0.3), ("all", 2, 32, 0.9), ("a", 1, 4, 0.2))
    ]
    worst = worst_rows(rows)
    found = [(row["kind"], row["bits"], row["changed"]) for row in worst]
    assert found == [("b", 32, 0.3), ("all", 32, 0.9), ("a", 4, 0.2)]


# --- the command ---


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the memory holds one long text and the vector reads short chunk whole text. " * 10)
    return path


def test_the_benchmark_is_the_same_again(finished_run: Path, text: Path) -> None:
    command = Drift(
        model=str(finished_run / "model"), text=(str(text),), bits=(32, 4), rounds=12, num_texts=20, num_edited=2
    )
    answer, again = command.run(), command.run()
    assert answer["rows"] == again["rows"]
    assert {row["tokens"] for row in answer["rows"]} == {1, 2, 4, 8, 16}
    for row in answer["rows"]:
        assert [*row["changed"]] == ["1", "2", "5", "10", "12"]
        assert all(0 <= share <= 1 for share in row["changed"].values())
        assert row["kind"] == "text"
        assert ("untouched" in row) is row["edits"] is ("last_change" not in row)
    full, rounded = (
        [row["changed"]["12"] for row in answer["rows"] if row["bits"] == bits and not row["edits"]] for bits in (32, 4)
    )
    assert sum(full) < sum(rounded)
    assert len(answer["worst"]) == 4


def test_the_command_prints_json_or_tables(memlm: Memlm, finished_run: Path, text: Path) -> None:
    few = ["bench", "drift", finished_run / "model", "--rounds", 2, "--num-texts", 2, "--bits", 8]
    answer = memlm(*few, "--json").json()
    assert {row["kind"] for row in answer["rows"]} >= {"all", "prose", "emoji", "verse"}
    assert any("no word to replace in digits" in line for line in answer["left_out"])
    shown = memlm(*few, "--text", text)
    assert shown.code == 0
    assert "changed after 2" in " ".join(shown.out.split())


def test_texts_that_are_too_short_are_left_out_and_said(
    memlm: Memlm, finished_run: Path, trained: TextAutoencoder, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("the memory")
    outcome = memlm("bench", "drift", finished_run / "model", "--text", short, "--rounds", 1, "--json")
    answer = outcome.json()
    tokens = len(trained.tokenizer.encode("the memory"))
    assert {row["tokens"] for row in answer["rows"]} == {fill for fill in (1, 2, 4, 8, 16) if fill <= tokens}
    assert "no text of 16 tokens in text" in outcome.err


def test_what_cannot_be_measured_is_refused(memlm: Memlm, finished_run: Path, tmp_path: Path) -> None:
    model, empty = finished_run / "model", tmp_path / "empty.txt"
    empty.write_text("")
    other = write_language_model(tmp_path / "other", "llama")
    for arguments, words in (
        ([model, "--rounds", 0], ["--rounds must be positive, not 0"]),
        ([model, "--num-texts", 0], ["--num-texts must be positive, not 0"]),
        ([model, "--num-edited", -1], ["--num-edited must be 0 or more, not -1"]),
        ([model, "--bits", 8, 8], ["--bits", "[8, 8]"]),
        ([model, "--text", empty], ["no text", "empty.txt"]),
        ([other], [str(other), "is not a memlm checkpoint", "llama model of transformers"]),
    ):
        assert_refused(memlm("bench", "drift", *arguments, "--json"), *words)
