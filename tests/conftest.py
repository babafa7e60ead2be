import os
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the models here are tiny
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from command_line import Memlm, called
from memlm.cli import parser
from memlm.config import AutoencoderRecipe
from memlm.data.corpus import Document
from memlm.data.texts import evaluation_documents
from memlm.models.autoencoder import Autoencoder
from memlm.text.autoencoder import TextAutoencoder
from tiny import tiny_recipe, write_corpus, write_language_model


@pytest.fixture(scope="session", autouse=True)
def memlm_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared data goes to a folder of this session's, which all its processes share."""
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "memlm_home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMLM_HOME", str(home))
        yield home


@pytest.fixture(scope="session", autouse=True)
def own_commands() -> Iterator[None]:
    """The commands that other packages add are those that this checkout declares, whatever was installed last."""
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    added = declared["project"]["entry-points"][parser.PLUGINS]
    with pytest.MonkeyPatch.context() as patch:
        points = [EntryPoint(name, value, parser.PLUGINS) for name, value in added.items()]
        patch.setattr(parser, "entry_points", lambda group: points)
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pattern of the tiny corpus's files."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def recipe(corpus: str) -> AutoencoderRecipe:
    return tiny_recipe(corpus)


@pytest.fixture(scope="session")
def finished_run(recipe: AutoencoderRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of the tiny recipe, from beginning to end in one go; not to be changed."""
    from memlm.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(recipe, folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def trained(finished_run: Path) -> TextAutoencoder:
    """The tiny trained model."""
    import memlm

    return memlm.load(finished_run / "model")


@pytest.fixture(scope="session")
def untrained(trained: TextAutoencoder) -> TextAutoencoder:
    """One whose memories give back next to nothing."""
    return TextAutoencoder(Autoencoder(trained.config), trained.tokenizer, trained.unconditional, {})


@pytest.fixture(scope="session")
def english() -> TextAutoencoder:
    """One whose memories give back nearly everything."""
    import memlm

    return memlm.load("english")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained language model; not to be changed."""
    return write_language_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts of other kinds that models are evaluated on are the beginnings of those there are."""
    from memlm.text import evaluation_sets

    def beginning(name: str) -> list[Document]:
        return [document._replace(text=document.text[:3000]) for document in evaluation_documents(name)[:1]]

    monkeypatch.setattr(evaluation_sets, "evaluation_documents", beginning)


@pytest.fixture
def memlm(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Memlm:
    """The command line, called in this process."""
    return called(monkeypatch, capfdbinary)
