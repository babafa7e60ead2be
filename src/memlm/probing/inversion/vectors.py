"""Files of embeddings. Of what cannot be read, nothing is loaded to say so."""

from pathlib import Path

import numpy as np


def read_vectors(path: Path) -> np.ndarray:
    """The vectors [text dim] of a .npy file, which may be one, or of a .safetensors file with one matrix (or one named
    `vectors`).

    Raises:
        ValueError: there is no such file, it is of another kind, or holds something else.
    """
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give a file of vectors, .npy or .safetensors")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; give one of vectors, .npy or .safetensors")
    if path.suffix == ".npy":
        return _read_npy(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{str(path)!r} is neither .npy nor .safetensors; write the vectors as .npy with numpy.save")
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except Exception as error:  # whatever its parser raises
        raise ValueError(f"{str(path)!r} is no .safetensors file ({error})") from None
    named = {"vectors": tensors["vectors"]} if "vectors" in tensors else tensors
    matrices = [tensor for tensor in named.values() if tensor.ndim > 1 and tensor.is_floating_point()]
    if len(matrices) != 1:
        shapes = [f"{name} {list(each.shape)} ({str(each.dtype).partition('.')[2]})" for name, each in tensors.items()]
        raise ValueError(
            f"{str(path)!r} holds {', '.join(shapes) or 'nothing'}; give one matrix of vectors, or call it vectors"
        )
    return np.asarray(matrices[0].float().numpy())


def _read_npy(path: Path) -> np.ndarray:
    try:
        matrix = np.load(path, allow_pickle=False)
        is_real = np.can_cast(matrix.dtype, np.float64, "same_kind")
    except Exception:  # of what is text, objects or cut short; numpy would advise to unpickle it
        is_real = False
    if not is_real:
        raise ValueError(
            f"{str(path)!r} is no whole .npy file of real numbers; write a matrix [text dim] with numpy.save"
        )
    return np.atleast_2d(matrix.astype(np.float32))
