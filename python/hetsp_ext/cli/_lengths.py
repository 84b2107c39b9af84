"""Lengths of sequences from the command line or from a file."""

import argparse
import json
import os
import zipfile
from pathlib import Path

from ..errors import InvalidArgument

__all__ = ["MOST_TOKENS", "integer", "ranks", "read_lengths", "tokens"]

MOST_TOKENS = 1 << 40  # of a sequence, and of a rank's memory
MOST_RANKS = 1 << 20  # of a cluster


def integer(text: str) -> int:
    """A whole number that fits into 64 bits, for argparse."""
    return _within(text, -(1 << 63), (1 << 63) - 1)


def ranks(text: str) -> int:
    """A number of ranks, for argparse."""
    return _within(text, 1, MOST_RANKS)


def _within(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} must be in {least}..{most}")
    return value


def tokens(text: str) -> int:
    """A number of tokens such as 4096, 384K (384 x 1024) or 2M (2 x 1024 x 1024), for argparse."""
    factor = {"K": 1024, "M": 1024 * 1024}.get(text[-1:].upper(), 1)
    digits = text if factor == 1 else text[:-1]
    if not digits.isdecimal() or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, such as 4096, 384K or 2M")
    if int(digits) * factor > MOST_TOKENS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MOST_TOKENS} tokens")
    return int(digits) * factor


def read_lengths(text: str) -> list[int]:
    """Lengths from a comma-separated list, or from a file by its suffix. Raises InvalidArgument naming what is wrong."""
    path = Path(text)
    if not os.path.exists(path) or os.path.isdir(path):  # Path.is_file raises for a list longer than a file's name may be
        return _integers(text.split(","), f"--lengths {text!r} is no file, so it must be integers separated by commas")
    try:
        if path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in (".npz", ".npy"):
            data = _array(path)
        else:
            data = path.read_text(encoding="utf-8").replace(",", " ").split()
    except InvalidArgument:
        raise
    except (OSError, ValueError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        raise InvalidArgument(f"--lengths: {path} cannot be read: {error}") from None
    if not isinstance(data, list):
        raise InvalidArgument(f"--lengths: {path} must hold one array of integers, it holds a {type(data).__name__}")
    return _integers(data, f"--lengths: {path} must hold integers")


def _array(path: Path) -> list[object]:
    import numpy as np  # only where needed: a tenth of a second

    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded.tolist()
    with loaded as arrays:
        name = "lengths" if "lengths" in arrays.files else arrays.files[0] if len(arrays.files) == 1 else None
        if name is None:
            raise InvalidArgument(f"--lengths: {path} holds {', '.join(arrays.files)}; none is called 'lengths'")
        return arrays[name].tolist()


def _integers(items: list[object] | list[str], complaint: str) -> list[int]:
    lengths = []
    for item in items:
        if isinstance(item, (bool, float)) or not isinstance(item, (int, str)):
            raise InvalidArgument(f"{complaint}; {item!r} is none")
        try:
            lengths.append(int(item))
        except ValueError:
            raise InvalidArgument(f"{complaint}; {item!r} is none") from None
        if not 0 <= lengths[-1] <= MOST_TOKENS:
            raise InvalidArgument(f"--lengths: a length is {item}, must be in 0..{MOST_TOKENS}")
    return lengths
