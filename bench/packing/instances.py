"""Lengths to plan, as lines for the packing benchmarks: name kind model ranks tokens_per_rank count length...

    python -m bench.packing.instances [--lengths NAME=FILE]... [--batches 2] > instances.txt

The web crawl is a stand-in: log-normal, median 1600 tokens, sigma 1.5; draws below 16 tokens or above the context are dropped.
A FILE holds one length per line, in the order of the data set (Wikipedia's are public with FlexSP); each run of 512 becomes a
batch. Lengths are padded to 128 tokens as FlexSP pads them.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Of FlexSP's cost model: MB of activations per token, billions of parameters with positions up to 384 K.
MODELS = {"7b": (4.480441895, 7.8498687744140625), "13b": (4.220439453, 14.0315819), "30b": (3.417381836, 32.7153244)}
CONTEXT = 384_000


def tokens_per_rank(model: str, ranks: int, memory_gb: float = 30.0) -> int:
    """Tokens that a rank has room for beside its share of parameters, gradients and optimizer states."""
    activation_mb, parameters = MODELS[model]
    return math.floor((memory_gb * 1024 - parameters * 16 * 1024 / ranks) / activation_mb)


def padded(lengths: list[int], quantum: int = 128) -> list[int]:
    """Lengths rounded up to a multiple of `quantum` tokens."""
    return [-(-s // quantum) * quantum for s in lengths]


def crawl(count: int, seed: int, median: float = 1600, sigma: float = 1.5) -> list[int]:
    """Log-normal lengths in tokens, padded."""
    draw = np.random.default_rng(seed)
    lengths: list[int] = []
    while len(lengths) < count:
        s = int(np.exp(np.log(median) + sigma * draw.standard_normal()))
        if 16 <= s <= CONTEXT - 256:
            lengths.append(s)
    return padded(lengths)


def sorted_cut(lengths: list[int], parts: int) -> list[list[int]]:
    """The lengths by falling size, cut into consecutive parts whose largest sum of tokens is least."""
    lengths = sorted(lengths, reverse=True)

    def fill(limit: int) -> list[list[int]]:
        made: list[list[int]] = [[]]
        for s in lengths:
            if made[-1] and sum(made[-1]) + s > limit:
                made.append([])
            made[-1].append(s)
        return made

    low, high = max(lengths) - 1, sum(lengths)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if len(fill(middle)) <= parts else (middle, high)
    return fill(high)


def recorded(path: Path, count: int = 512) -> Iterator[list[int]]:
    """Runs of `count` lengths of a file, those above the context dropped."""
    lengths = [s for s in padded([int(line) for line in path.read_text().split()]) if s <= CONTEXT - 128]
    for begin in range(0, len(lengths) - count + 1, count):
        yield lengths[begin : begin + count]


def line(name: str, kind: str, lengths: list[int], ranks: int, model: str = "7b") -> str:
    """One case of the benchmarks."""
    return " ".join(map(str, (name, kind, model, ranks, tokens_per_rank(model, ranks), len(lengths), *lengths)))


def main() -> None:
    """Prints the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", action="append", default=[], metavar="NAME=FILE", help="recorded lengths, one per line")
    parser.add_argument("--batches", type=int, default=2, help="runs of 512 lengths of each file (default: 2)")
    options = parser.parse_args()

    for k, part in enumerate(sorted_cut(crawl(512, 0), 7)):
        if k >= 2:
            print(line(f"crawl_64.{k}of7", "micro_batch", part, 64))
    print(line("crawl_1024_512", "micro_batch", crawl(512, 7), 1024))
    print(line("crawl_1024_1150", "micro_batch", crawl(1150, 10), 1024))
    print(line("crawl_12288", "micro_batch", crawl(98_304, 9)[:14_000], 12_288))
    print(line("crawl_64", "batch", crawl(512, 0), 64))
    for given in options.lengths:
        name, found, file = given.partition("=")
        if not found:
            parser.error(f"--lengths is {given!r}, must be NAME=FILE")
        for k, batch in zip(range(options.batches), recorded(Path(file)), strict=False):
            print(line(f"{name}_{k}", "batch", batch, 64))


if __name__ == "__main__":
    main()
