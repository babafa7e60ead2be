"""Where the hub cannot be reached, everything that asks it says so at once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

import memlm
from memlm.config import HubCorpus
from memlm.data.corpus import read_documents
from memlm.data.tokenizer import Tokenizer
from memlm.models.load_pretrained import load_pretrained
from memlm.probing.encoders import load_encoder
from memlm.runtime.hub import hub

ASKED = {
    "dataset": lambda: list(read_documents(HubCorpus(name="some/name"))),
    "model": lambda: memlm.load("some/name"),
    "tokenizer": lambda: Tokenizer.from_pretrained("some/name"),
    "pretrained": lambda: load_pretrained("some/name"),
}
WORKS = {
    "dataset": "a folder that holds the dataset",
    "model": "a model that ships with memlm (english",
    "tokenizer": "a folder that holds a tokenizer",
    "pretrained": "one of smollm2, minilm",
}


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub at a port of this machine where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("kind", ASKED)
def test_a_hub_that_cannot_be_reached_is_told_at_once(kind: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"no \w+ 'some/name' here.*the hub cannot be reached \(.+\); ") as refused:
        ASKED[kind]()
    assert WORKS[kind] in str(refused.value)
    assert time.monotonic() - begun < 20  # unpatched, the libraries try again for half a minute and more
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("kind", ASKED)
def test_that_it_was_told_to_be_offline_is_said(kind: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be reached \(HF_HUB_OFFLINE is set\)"):
        ASKED[kind]()


@pytest.mark.usefixtures("unreachable")
def test_an_encoder_may_be_one_that_ships_with_memlm() -> None:
    with pytest.raises(
        ValueError, match=r"cannot be reached \(Connection refused\); .*one of smollm2, minilm, english"
    ):
        load_encoder("some/name")


@pytest.mark.usefixtures("unreachable")
def test_folders_need_no_hub(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "first"}\n')
    assert [document.text for document in read_documents(HubCorpus(name=str(tmp_path)))] == ["first"]


@pytest.mark.usefixtures("unreachable")
def test_within_the_block_the_libraries_are_offline_and_may_use_their_cache() -> None:
    with hub("model", "some/name", instead=""):
        assert constants.HF_HUB_OFFLINE is True
    assert constants.HF_HUB_OFFLINE is False


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: type("Session", (), {"head": staticmethod(answers)}))
    with hub("model", "some/name", instead=""):
        assert constants.HF_HUB_OFFLINE is False
    with pytest.raises(OSError, match="its own words"), hub("model", "some/name", instead=""):
        raise OSError("its own words")
