"""Lengths of documents for a reproduction: files where they are given, log-normal stand-ins where not."""

from pathlib import Path

import numpy as np

from ...errors import InvalidArgument

__all__ = ["Lengths", "load"]

# Name -> median tokens, sigma of the logarithm: ours, by eye, for a reproduction without data. Wikipedia and code files after
# the shape of the public records; the crawl as in the study of FlexSP's instances; ArXiv an assumption.
STAND_INS = {
    "wikipedia": (450.0, 1.2),
    "github": (1500.0, 1.6),
    "commoncrawl": (1600.0, 1.5),
    "arxiv": (10000.0, 0.9),
}
FILES = {"wikipedia": "lengths_wikipedia.npz", "github": "lengths_github.npz", "commoncrawl": "lengths_synthetic_cc.npz"}
MOST = 1_000_000  # of a stand-in


class Lengths:
    """Tokens of documents in the order of their file, and where they come from."""

    def __init__(self, values: np.ndarray, origin: str) -> None:
        self.values = values
        self.origin = origin

    def batches(self, count: int, size: int, longest: int) -> list[list[int]]:
        """`count` batches of `size` lengths, longer ones than `longest` left out, from the beginning again at the end."""
        usable = self.values[(self.values >= 1) & (self.values <= longest)]
        if len(usable) == 0:
            raise InvalidArgument(f"{self.origin}: no length is at most {longest}")
        return [np.take(usable, range(at * size, (at + 1) * size), mode="wrap").tolist() for at in range(count)]

    def until(self, tokens: int, longest: int, seed: int) -> list[int]:
        """Lengths drawn at random, each at most `longest`, until they sum to `tokens`; the last is cut to fit."""
        generator = np.random.default_rng(seed)
        usable = self.values[(self.values >= 1) & (self.values <= longest)]
        if len(usable) == 0:
            raise InvalidArgument(f"{self.origin}: no length is at most {longest}")
        drawn: list[int] = []
        total = 0
        while total < tokens:
            length = min(int(generator.choice(usable)), tokens - total)
            drawn.append(length)
            total += length
        return drawn


def load(name: str, folder: Path | None) -> Lengths:
    """Lengths called `name` from `folder`, else its stand-in. Raises InvalidArgument if its file is there and unreadable."""
    path = folder / FILES[name] if folder is not None and name in FILES else None
    if folder is not None and not folder.is_dir():
        raise InvalidArgument(f"--data {folder} is no folder")
    if path is not None and path.is_file():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = arrays["lengths"]
        except (OSError, ValueError, KeyError) as error:
            raise InvalidArgument(f"--data: {path} cannot be read: {error}") from None
        return Lengths(values.astype(np.int64), f"{name}: {len(values)} lengths of {path.name}")
    median, sigma = STAND_INS[name]
    values = np.random.default_rng(0).lognormal(np.log(median), sigma, MOST).astype(np.int64)
    return Lengths(
        values, f"{name}: STAND-IN, log-normal, median {median:g} tokens, sigma {sigma:g}; --data names real lengths"
    )
