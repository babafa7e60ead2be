import copy
import itertools
import pickle

from hypothesis import given
from hypothesis import strategies as st

from memlm.data.tokenizer import Tokenizer
from memlm.text.memory import Regenerated

TOKENIZER = Tokenizer.train(["the memory of ünd 漢字 the memory of ünd"] * 3, 270)


def test_a_regenerated_text_is_a_string_with_marks() -> None:
    text = Regenerated("It is a truth", ((3, 5), (8, 13)))
    assert not text.proven
    assert text == "It is a truth"
    assert text.marked() == "It ⟦is⟧ a ⟦truth⟧"
    assert text.marked("*", "*") == "It *is* a *truth*"
    for other in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (other, other.unsure, other.proven) == (text, text.unsure, False)
    assert Regenerated("sure").unsure == ()
    assert Regenerated("sure").marked() == "sure"


@given(st.lists(st.tuples(st.integers(0, 269), st.booleans()), max_size=30))
def test_spans_are_those_characters_that_marked_tokens_are_part_of(rows: list[tuple[int, bool]]) -> None:
    ids, marks = [token for token, _ in rows], [mark for _, mark in rows]
    text, spans = TOKENIZER.decode_marked(ids, marks)
    assert text == TOKENIZER.decode(ids)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert bool(spans) == (any(marks) and bool(text))
    if all(marks) and text:
        assert spans == ((0, len(text)),)


def test_a_character_that_two_tokens_share_is_marked_if_one_of_them_is() -> None:
    ids = [*"a漢b".encode()]
    alphabet = {bytes_: place for place, bytes_ in enumerate(TOKENIZER.token_bytes)}
    tokens = [alphabet[bytes([byte])] for byte in ids]
    for place in (1, 2, 3):
        marks = [position == place for position in range(5)]
        assert TOKENIZER.decode_marked(tokens, marks) == ("a漢b", ((1, 2),))
