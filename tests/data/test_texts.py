import pytest

from memlm.data.texts import EVALUATION_TEXTS, evaluation_documents


@pytest.mark.parametrize(
    ("name", "num_bytes", "phrase"),
    [
        ("novel", (140_000, 160_000), "Sir Walter Elliot, of Kellynch Hall"),
        ("verse", (90_000, 110_000), "Of Mans First Disobedience"),
        ("code", (150_000, 500_000), "\nimport "),
    ],
)
def test_evaluation_texts_load_in_documents_of_about_8_kb(name: str, num_bytes: tuple[int, int], phrase: str) -> None:
    documents = evaluation_documents(name)
    text = "".join(document.text for document in documents)
    assert num_bytes[0] <= len(text.encode()) <= num_bytes[1]
    assert phrase in text
    assert "gutenberg" not in text.lower()
    assert len({document.name for document in documents}) == len(documents) >= 12
    assert all(0 < len(document.text.encode()) <= 8192 for document in documents)
    assert documents == evaluation_documents(name)


def test_an_unknown_evaluation_text_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'poem'; there are novel, verse, code"):
        evaluation_documents("poem")
    assert EVALUATION_TEXTS == ("novel", "verse", "code")


def test_a_python_without_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="source of bisect"):
        evaluation_documents("code")
