"""What compresses text beside memory files: gzip, raw deflate, brotli and zstd, each at its best level."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import zstandard

from memlm.store.chunk import deflated

Compress = Callable[[bytes], bytes]

ZSTD_LEVEL = 19
"""At 22 a novel's chunks differ by less than 0.1%."""
_DICTIONARY_BYTES = tuple(1024 * size for size in (32, 110, 256, 512, 1024))
"""Sizes to choose from; 110 KB is what zstd's own command makes."""
_HELD_OUT = 5
"""Every such sample is kept to choose the size with."""


def whole_compressors() -> Mapping[str, Compress]:
    """Those that need no dictionary, by name.

    Raises:
        ValueError: brotli is not installed.
    """
    try:
        import brotli
    except ImportError:
        raise ValueError("memory files are compared with brotli: pip install 'memlm[bench]'") from None
    return {
        "gzip": partial(gzip.compress, compresslevel=9, mtime=0),
        "deflate": deflated,
        "brotli": partial(brotli.compress, quality=11, mode=brotli.MODE_TEXT),
        "zstd": zstd(None),
    }


def zstd(dictionary: zstandard.ZstdCompressionDict | None) -> Compress:
    """zstd -19, without what a chunk does not need: no magic number, size, checksum or number of the dictionary."""
    params = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=params).compress


def trained_dictionary(samples: Sequence[bytes]) -> zstandard.ZstdCompressionDict | None:
    """The dictionary, of the size that is best for every fifth sample when trained on the others.

    None, where none helps or there are too few samples to train one.
    """
    held_out = samples[::_HELD_OUT]
    others = [sample for number, sample in enumerate(samples) if number % _HELD_OUT]
    sizes = {0: total_bytes(zstd(None), held_out)}
    for size in _DICTIONARY_BYTES:
        if (dictionary := _trained(size, others)) is not None:
            sizes[size] = total_bytes(zstd(dictionary), held_out)
    best = min(sizes, key=lambda size: sizes[size])
    return _trained(best, samples) if best else None


def total_bytes(compress: Compress, chunks: Sequence[bytes]) -> int:
    """Of all chunks, each compressed alone."""
    return sum(len(compress(chunk)) for chunk in chunks)


def _trained(size: int, samples: Sequence[bytes]) -> zstandard.ZstdCompressionDict | None:
    try:
        return zstandard.train_dictionary(size, list(samples), level=ZSTD_LEVEL)
    except zstandard.ZstdError:  # too few samples
        return None
