import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import memlm
from memlm import Memory, TextAutoencoder
from memlm.data.texts import evaluation_documents

TEXTS = ["the memory", "", "vector " * 30, "two words"]


@pytest.fixture(scope="module")
def memory(trained: TextAutoencoder) -> Memory:
    return trained.encode(TEXTS, verify=True)


def same(one: Memory, other: Memory) -> bool:
    assert one.exact is not None
    assert one.confidence is not None
    return (
        torch.equal(one.vectors, other.vectors)
        and torch.equal(one.num_tokens, other.num_tokens)
        and one.num_chunks == other.num_chunks
        and one.encoder == other.encoder
        and torch.equal(one.exact, other.exact)
        and torch.equal(one.confidence, other.confidence)
    )


def test_a_memory_is_a_sequence_of_texts(trained: TextAutoencoder, memory: Memory) -> None:
    assert len(memory) == 4
    assert [trained.regenerate(one)[0] for one in memory] == trained.regenerate(memory)
    assert same(memory[-1], memory[3])
    assert same(memory[1:3], Memory.concat([memory[1], memory[2]]))
    assert same(memory[[3, 0]], Memory.concat([memory[3], memory[0]]))
    assert same(memory[np.array([True, False, False, True])], memory[[0, 3]])
    assert len(memory[2:2]) == len(memory[[]]) == 0
    assert memory[1].vectors.shape == (0, 1, 32)
    assert same(memory[np.int64(2)], memory[2])
    assert same(memory[torch.tensor(2)], memory[np.array(2)])
    with pytest.raises(IndexError, match="no text 4: these are memories of 4"):
        memory[4]
    for index in ("a", None, 1.0, [[0, 1]]):
        with pytest.raises(TypeError, match=r"texts go by number|expected a list of texts"):
            memory[index]


def test_parts_put_together_are_the_whole(memory: Memory) -> None:
    assert same(Memory.concat(memory), memory)
    with pytest.raises(ValueError, match="no memories"):
        Memory.concat([])
    with pytest.raises(TypeError, match="memory 1 is None, not a Memory"):
        Memory.concat([memory, None])
    other = Memory(vectors=memory.vectors, num_tokens=memory.num_tokens, num_chunks=memory.num_chunks, encoder="other")
    with pytest.raises(ValueError, match="different encoders"):
        Memory.concat([memory, other])
    assert Memory.concat([other, other]).exact is None


def test_a_memory_is_saved_copied_and_pickled_whole(memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path / "a.safetensors")
    assert same(memory, Memory.load(tmp_path / "a.safetensors"))
    assert same(memory, pickle.loads(pickle.dumps(memory)))
    assert same(memory, copy.deepcopy(memory))
    assert same(memory, memory.to("cpu"))
    assert np.array_equal(memory.numpy(), memory.vectors.numpy())


def test_what_is_no_file_of_memories_is_refused(memory: Memory, tmp_path: Path, finished_run: Path) -> None:
    with pytest.raises(ValueError, match="cannot read memories from"):
        Memory.load(tmp_path / "none.safetensors")
    memory.save(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(data[:-5])
    with pytest.raises(ValueError, match="cannot read memories from"):
        Memory.load(tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match="not memlm memories 1"):
        Memory.load(finished_run / "model" / "model.safetensors")


@pytest.mark.parametrize("place", [-1, -500])
def test_a_damaged_file_is_refused_by_its_name(memory: Memory, place: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    memory.save(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged: its content does not match its checksum"):
        Memory.load(path)


def test_a_file_of_before_there_were_checksums_is_read(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    memory.save(path)
    with safe_open(path, framework="pt") as file:
        about = {name: value for name, value in file.metadata().items() if name != "checksum"}
    save_file(load_file(path), path, metadata=about)
    assert same(memory, Memory.load(path))


def test_a_memory_prints_in_one_short_line(memory: Memory) -> None:
    assert len(repr(memory)) < 120
    assert repr(memory).startswith(f"Memory(4 texts, {len(memory.vectors)} chunks of 32, ")
    assert memory.encoder in repr(memory)


def test_parts_that_do_not_fit_together_are_refused(memory: Memory) -> None:
    parts = {"num_tokens": memory.num_tokens, "num_chunks": memory.num_chunks, "encoder": "x"}
    with pytest.raises(ValueError, match=r"vectors must be \[chunk slot memory_dim\], not"):
        Memory(vectors=memory.vectors[:, 0], **parts)
    with pytest.raises(ValueError, match="num_tokens has 1 rows for"):
        Memory(vectors=memory.vectors, **{**parts, "num_tokens": torch.tensor([1])})
    with pytest.raises(ValueError, match=r"num_chunks \[1\] sum to 1"):
        Memory(vectors=memory.vectors, **{**parts, "num_chunks": (1,)})


def test_verified_memories_know_what_comes_back_right(trained: TextAutoencoder, memory: Memory) -> None:
    for text, again, one in zip(TEXTS, trained.regenerate(memory), memory, strict=True):
        assert bool(one.exact.all()) == (text == again) == again.proven
    assert memory.confidence.shape == (len(memory.vectors), 16)
    assert trained.encode(TEXTS).exact is None


def test_texts_come_in_whatever_holds_them(trained: TextAutoencoder, memory: Memory) -> None:
    class Series:  # as pandas' is: iterable, and no list
        def __iter__(self):
            return iter(TEXTS)

    for texts in (tuple(TEXTS), (text for text in TEXTS), np.array(TEXTS), Series()):
        assert torch.equal(trained.encode(texts).vectors, memory.vectors)
    assert len(trained.encode([])) == 0
    assert trained.regenerate(trained.encode([])) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (b"bytes", "not bytes; decode it"),
        ({"a": "text"}, "not dict; give its values"),
        ({"text"}, "not set"),
        (None, "not NoneType"),
        (5, "not int"),
        ([5], r"text 0 is 5 \(int\), not a string"),
        (["a", None], r"text 1 is None \(NoneType\), not a string"),
        (["a", b"b"], r"text 1 is b'b' \(bytes\), not a string; decode it"),
        (["a", "b", float("nan")], r"text 2 is nan \(float\), not a string"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(trained: TextAutoencoder, texts: object, message: str) -> None:
    for method in (trained.encode, trained.evaluate):
        with pytest.raises(TypeError, match=message):
            method(texts)


def test_encoding_takes_the_usual_options(trained: TextAutoencoder, capfd: pytest.CaptureFixture[str]) -> None:
    plain = trained.encode(TEXTS)
    assert torch.allclose(trained.encode(TEXTS, batch_size=1, device="cpu").vectors, plain.vectors, atol=1e-6)
    assert capfd.readouterr().err == ""
    array = trained.encode(TEXTS, convert_to_numpy=True, normalize=True, show_progress_bar=True)
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(np.linalg.norm(array, axis=-1), 1, rtol=1e-5)
    assert "Encoding" in capfd.readouterr().err
    count = int(plain[0].num_tokens.sum())
    trained.regenerate(plain[0], show_progress_bar=True)
    assert f"{count} tokens of {count} tokens" in capfd.readouterr().err
    assert trained.regenerate(trained.encode(TEXTS, normalize=True)) == trained.regenerate(plain)
    with pytest.raises(ValueError, match="batch_size must be a positive whole number, not 0"):
        trained.encode(TEXTS, batch_size=0)
    with pytest.raises(ValueError, match="cannot use device 'meta': it holds no numbers"):
        TextAutoencoder.from_pretrained("english", device="meta")
    with pytest.raises(ValueError, match="cannot use device 'nowhere'"):
        trained.encode(TEXTS, device="nowhere")


def test_vectors_alone_are_texts_of_one_chunk(trained: TextAutoencoder) -> None:
    texts = ["the memory", "two words"]
    vectors = trained.encode(texts, convert_to_numpy=True)
    expected = trained.regenerate(trained.encode(texts))
    assert trained.regenerate(vectors) == expected
    assert trained.regenerate(torch.from_numpy(vectors)[:, 0]) == expected
    assert trained.regenerate(vectors[0, 0]) == expected[:1]


def test_what_is_no_memory_of_this_model_is_refused(trained: TextAutoencoder, memory: Memory) -> None:
    parts = {"num_tokens": memory.num_tokens, "num_chunks": memory.num_chunks, "encoder": memory.encoder}
    with pytest.raises(TypeError, match="expected a Memory, as encode makes it, or an array of vectors, not list"):
        trained.regenerate(TEXTS)
    spoilt = memory.vectors.clone()
    spoilt[1, 0, 3] = torch.nan
    with pytest.raises(ValueError, match="chunk 1 holds NaN or infinity"):
        trained.regenerate(Memory(vectors=spoilt, **parts))
    with pytest.raises(ValueError, match="num_tokens must lie from 0 to 16"):
        trained.regenerate(Memory(vectors=memory.vectors, **{**parts, "num_tokens": memory.num_tokens + 16}))
    with pytest.raises(ValueError, match=r"these vectors are \[1, 31\] a chunk; this model makes 1 × 32"):
        trained.regenerate(Memory(vectors=memory.vectors[..., 1:], **parts))
    with pytest.raises(ValueError, match=r"expected vectors \[text 32\], not \[31\]"):
        trained.regenerate(memory.vectors[0, 0, 1:])


def test_load_puts_a_model_on_a_device(finished_run: Path) -> None:
    assert memlm.load(finished_run / "model", device="cpu").device.type == "cpu"
    with pytest.raises(ValueError, match="cannot use device 'cuda:99'"):
        memlm.load(finished_run / "model", device="cuda:99")


def test_the_number_of_threads_changes_no_text(english: TextAutoencoder) -> None:
    """Of texts that are searched for, too, and side by side in threads of one's own."""
    novel = evaluation_documents("novel")[0].text
    threads, device = torch.get_num_threads(), english.device
    english.to("cpu")
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            memory = english.encode([novel[:20_000], "short"])
            noise = torch.randn(memory.vectors.shape, generator=torch.Generator().manual_seed(0))
            found.append((memory.vectors, english.regenerate(memory.vectors + 0.25 * noise)))
        with ThreadPoolExecutor(3) as pool:
            again = [*pool.map(lambda _: english.regenerate(found[0][0] + 0.25 * noise), range(3))]
    finally:
        torch.set_num_threads(threads)
        english.to(device)
    vectors, texts = zip(*found, strict=True)
    assert all(torch.allclose(each, vectors[0], atol=1e-5) for each in vectors)
    assert all(each == texts[0] for each in (*texts, *again))
    assert not all(text.proven for text in texts[0])
