"""Train an autoencoder on your own text files, measure it on pieces that were held out, and look at one of them.

Takes under a minute on one core with the default budget, which is enough to see it learn and no more. With
`--tokens 2000000`, under two minutes, nearly all tokens come back:

    python examples/train_on_your_text.py 'notes/*.txt' --tokens 2000000 --out runs/notes
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from memlm.config import DataConfig, FileCorpus
from memlm.data.corpus import FileReader
from memlm.data.documents import split_bytes
from memlm.data.token_store import prepare
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import Scale
from memlm.training.train import train

NOVEL = Path(__file__).parents[1] / "src/memlm/data/texts/novel.txt"
PIECE_BYTES = 2048
"""Files are cut into pieces, so that a single file can be split into training and held-out text."""


def main() -> None:
    """Cut the files, train, evaluate, and regenerate one held-out passage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=[str(NOVEL)], help="text files in UTF-8, or globs")
    parser.add_argument("--tokens", type=int, default=200_000, help="training tokens")
    parser.add_argument("--chunk-len", type=int, default=16, help="tokens per vector")
    parser.add_argument("--memory-dim", type=int, default=64, help="numbers per vector")
    parser.add_argument("--out", type=Path, help="folder for the run; without it nothing is kept")
    args = parser.parse_args()
    torch.set_num_threads(1)  # models this small gain nothing from more, and lose much where other work runs

    with tempfile.TemporaryDirectory() as scratch:
        pieces, out = Path(scratch, "pieces"), args.out or Path(scratch, "run")
        write_pieces(args.files, pieces)
        scale = Scale(chunk_len=args.chunk_len, memory_dim=args.memory_dim, dim=64, num_tokens=args.tokens)
        recipe = autoencoder(scale, grown_from=0)
        corpus = FileCorpus(paths=(str(pieces / "*.txt"),))
        recipe = replace(recipe, data=DataConfig(corpus=corpus, tokenizer=recipe.data.tokenizer, test_fraction=0.1))
        data = prepare(recipe.data, cache=Path(scratch, "cache"), quiet=True)
        model = train(recipe, out, prepared=data)

        result = model.evaluate_split(data.splits["test"], name="held out")
        low, high = result.intervals["token_accuracy"]
        print(f"{args.chunk_len} tokens in {args.memory_dim} numbers, after {args.tokens:,} tokens of training")
        print(f"held-out token accuracy: {result.token_accuracy:.3f} [{low:.3f}, {high:.3f}]")
        passage = model.tokenizer.decode(data.splits["test"].tokens[: 2 * args.chunk_len].tolist())
        print(f"held-out passage: {passage!r}")
        print(f"regenerated:      {model.regenerate(model.encode([passage]))[0]!r}")
    if args.out:
        print(f"load it with memlm.load({str(args.out / 'model')!r})")


def write_pieces(patterns: list[str], folder: Path) -> None:
    """Write the files' text into a folder, as pieces."""
    folder.mkdir()
    for number, name in enumerate(FileReader(FileCorpus(paths=tuple(patterns))).files):
        with Path(name).open("rb") as file:
            for place, piece in enumerate(split_bytes(file, PIECE_BYTES)):
                (folder / f"{number:04}-{place:06}.txt").write_bytes(piece)


if __name__ == "__main__":
    main()
