"""What the page on security promises: nothing is unpickled or run, keys tell nothing by time, names are no paths."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from command_line import Memlm
from memlm import MemoryFile, TextAutoencoder, load
from memlm.probing.inversion.vectors import read_vectors
from memlm.runtime.cache import Arrays, Cache
from memlm.text.memory import Memory

SRC = Path(__file__).parents[1] / "src"

FORBIDDEN_MODULES = {
    *("pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pandas", "ray.cloudpickle"),
    *("yaml", "tarfile", "zipfile", "shutil.unpack_archive", "xml", "ctypes", "subprocess", "code", "pty", "telnetlib"),
}
"""What unpickles, runs or unpacks; or reads a format that can name what is to be run or where it is to be written."""
FORBIDDEN_CALLS = {
    *("os.system", "os.popen", "torch.load", "torch.hub.load", "jit.load", "tempfile.mktemp", "numpy.load"),
    *("load_state_dict_from_url", "read_pickle", "unpack_archive", "load_module", "exec_module"),
}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}
"""Called as they are: `model.eval()` is something else."""
REASONS = {
    ("memlm/runtime/executor.py", "joblib"): "carries jobs to worker processes that this process starts itself",
    ("memlm/runtime/cluster.py", "ray.cloudpickle"): "carries jobs to Ray's workers, which run them: they are trusted",
    ("memlm/runtime/cpu.py", "ctypes"): "sets two options of the C library's allocator",
    ("memlm/runtime/files.py", "ctypes"): "renames by renameat2, which Python does not have",
    ("memlm_evidence/campaign/disk.py", "subprocess"): "mounts a small disk, in a list of fixed arguments",
    ("memlm/runtime/results.py", "subprocess"): "asks git for the commit, in a list of fixed arguments",
    ("memlm_evidence/benchmarks/serving_server.py", "subprocess"): "starts memlm serve, to measure it",
}
"""Where one of these is used all the same, and why it may be."""
SAFE_OPTIONS = {
    "allow_pickle": False,
    "trust_remote_code": False,
    "use_safetensors": True,
    "weights_only": True,
    "autoescape": True,
    "shell": False,
}
"""Options that must have this value wherever they are given."""


def modules() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(SRC.rglob("*.py")):
        yield path.relative_to(SRC).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute of an attribute of a name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [each.name for each in node.names]
        case ast.ImportFrom() if node.module and not node.level:
            return [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        case ast.Attribute():
            return [name for name in FORBIDDEN_MODULES if "." in name and name == dotted(node)]
    return []


def uses() -> set[tuple[str, str]]:
    """Each forbidden module or call, and where it is."""
    found = set[tuple[str, str]]()
    for path, tree in modules():
        for node in ast.walk(tree):
            for name in imported(node):
                parts = [".".join(name.split(".")[: end + 1]) for end in range(name.count(".") + 1)]
                found |= {(path, part) for part in parts if part in FORBIDDEN_MODULES}
            if isinstance(node, ast.Call) and (called := dotted(node.func)):
                found |= {(path, bad) for bad in FORBIDDEN_CALLS if called == bad or called.endswith(f".{bad}")}
                found |= {(path, called)} & {(path, name) for name in FORBIDDEN_NAMES}
    return found


def test_nothing_unpickles_runs_or_unpacks_but_for_a_reason() -> None:
    assert uses() == set(REASONS)


def test_options_that_would_let_it_in_have_their_safe_value() -> None:
    seen = set[str]()
    for path, tree in modules():
        for node in ast.walk(tree):
            given: list[tuple[str | None, ast.AST]] = []
            if isinstance(node, ast.Call):
                given = [(each.arg, each.value) for each in node.keywords]
                if dotted(node.func) in ("np.load", "Environment", "jinja2.Environment"):
                    assert {"allow_pickle", "autoescape"} & {name for name, _ in given}, f"{path}:{node.lineno}"
                if dotted(node.func).startswith("Auto") and dotted(node.func).endswith(".from_pretrained"):
                    assert {"trust_remote_code", None} & {name for name, _ in given}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Dict):
                keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
                given = [(key, value) for key, value in zip(keys, node.values, strict=True) if isinstance(key, str)]
            for name, value in given:
                if name in SAFE_OPTIONS:
                    seen.add(str(name))
                    assert isinstance(value, ast.Constant), f"{path}: {name}"
                    assert value.value is SAFE_OPTIONS[name], f"{path}: {name}"
    assert seen >= {"allow_pickle", "trust_remote_code", "use_safetensors", "autoescape"}


def test_keys_are_compared_in_constant_time() -> None:
    (gate,) = [tree for path, tree in modules() if path == "memlm/serve/gate.py"]
    compared = [node for node in ast.walk(gate) if isinstance(node, ast.Compare | ast.Call)]
    assert any(isinstance(node, ast.Call) and dotted(node.func) == "hmac.compare_digest" for node in compared)
    for node in compared:
        if isinstance(node, ast.Compare):
            sides = [dotted(each) for each in (node.left, *node.comparators)]
            assert not {"given", "key", "self._keys"} & set(sides), ast.unparse(node)


_UNPICKLED: list[Any] = []
_WATCHED = [False]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHED[0] and event == "pickle.find_class":
        _UNPICKLED.append(arguments)


@pytest.fixture(scope="module", autouse=True)
def audit() -> None:
    """An audit hook cannot be taken away again."""
    sys.addaudithook(_note)


@contextmanager
def nothing_unpickled() -> Iterator[None]:
    _UNPICKLED.clear()
    _WATCHED[0] = True
    try:
        yield
    finally:
        _WATCHED[0] = False
    assert not _UNPICKLED


def test_the_audit_sees_what_is_unpickled(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Path("a")]), allow_pickle=True)
    with pytest.raises(AssertionError), nothing_unpickled():
        np.load(tmp_path / "a.npy", allow_pickle=True)


def test_nothing_is_unpickled_while_files_are_read(
    finished_run: Path, trained: TextAutoencoder, tmp_path: Path
) -> None:
    memory = trained.encode(["the memory of a text"])
    memory.save(tmp_path / "a.safetensors")
    MemoryFile.create(tmp_path / "a.memory", trained, {"a": "the memory of a text"}).close()
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    cache, made = Cache(tmp_path), Arrays({"a": np.zeros(2, np.float32)}, {"b": 1})
    cache.arrays({"key": 1}, lambda: made)
    with nothing_unpickled():
        model = load(finished_run / "model")
        assert torch.equal(Memory.load(tmp_path / "a.safetensors").vectors, memory.vectors)
        with MemoryFile.open(tmp_path / "a.memory", model) as notes:
            assert notes["a"] == "the memory of a text"
        assert read_vectors(tmp_path / "a.npy").shape == (2, 3)
        assert cache.arrays({"key": 1}, lambda: pytest.fail("it is there")).about == {"b": 1}


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_place_of_any_file_is_refused_and_not_run(finished_run: Path, tmp_path: Path) -> None:
    import pickle
    import shutil

    ran, model = tmp_path / "ran", tmp_path / "model"
    pickled = pickle.dumps(Touch(ran))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "provenance.json"):
        shutil.copytree(finished_run / "model", model, dirs_exist_ok=True)
        (model / name).write_bytes(pickled)
        with pytest.raises(ValueError, match="model"):
            load(model)
    for path in (tmp_path / "a.npy", tmp_path / "a.safetensors", tmp_path / "a.memory"):
        path.write_bytes(pickled)
        read = {".npy": read_vectors, ".safetensors": Memory.load, ".memory": MemoryFile.open}[path.suffix]
        with pytest.raises(ValueError, match=path.name):
            read(path)
    np.save(tmp_path / "objects.npy", np.array([Touch(ran)]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy"):
        read_vectors(tmp_path / "objects.npy")
    save_file({"a": torch.zeros(2)}, tmp_path / "b.safetensors")
    assert not ran.exists()


NAMES = (
    "../escaped",
    "/tmp/escaped",
    "a\0b",
    "CON",
    "NUL",
    "..\\escaped",
    "~/escaped",
    "",
    ".",
    "a/../../b",
    "\x1b[2J",
)


def test_names_of_documents_are_no_paths(trained: TextAutoencoder, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    MemoryFile.create(folder / "a.memory", trained, [(name, f"the memory {name!r}") for name in NAMES]).close()
    with MemoryFile.open(folder / "a.memory", trained) as notes:
        assert [*notes] == list(NAMES)
        assert all(notes[name] == f"the memory {name!r}" for name in NAMES)
        notes.forget(0, 1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.memory"]


def test_what_a_file_says_does_not_steer_the_terminal(
    memlm: Memlm, trained: TextAutoencoder, finished_run: Path, tmp_path: Path
) -> None:
    hostile = "\x1b]0;title\x07\x1b[2J"
    path = tmp_path / "a.memory"
    MemoryFile.create(path, trained, {hostile: "the memory"}, name=hostile).close()
    for command in (
        ["inspect", path, "--model", finished_run / "model"],
        ["recall", tmp_path / hostile],
        ["recall", path],
    ):
        answer = memlm(*command)
        assert "\x1b" not in answer.out + answer.err
        assert "title" in answer.out + answer.err
