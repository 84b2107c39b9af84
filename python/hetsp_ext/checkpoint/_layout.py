"""Who writes what: every box of every tensor once, spread over the ranks that hold it.

A rank holds a tensor as a box: all of it where it is not a DTensor, its shard where it is. The ranks that hold the same box are
its holders. A large box is cut along its first dimension into one part per holder, a small one goes to a single holder. Which
one depends on nothing but the tensor's name and its holders: ranks that know different sets of tensors still agree on each.

Which plain tensors are the same on which ranks is agreed once, by names, shapes and hashes of all bytes; see `agree`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# A part of its own costs a line in a header, a box in the manifest and some reads; below this one rank writes all of it.
SMALLEST_CUT = 1 << 18  # bytes of a box


@dataclass(frozen=True)
class Held:
    """A plain tensor as one rank tells the others of it."""

    dtype: str
    shape: tuple[int, ...]
    hash: str


@dataclass
class Agreement:
    """Of each plain tensor the ranks that hold the same one; a name that is missing here is a rank's own."""

    holders: dict[str, tuple[int, ...]] = field(default_factory=dict)
    separated: set[str] = field(default_factory=set)

    def same_as(self, name: str, other: str | None) -> None:
        """What came to be later, like an optimizer's state of a parameter, is held by whoever holds that."""
        if name not in self.holders and name not in self.separated and other in self.holders:
            self.holders[name] = self.holders[other]

    def separate(self, names: Sequence[str]) -> None:
        """These have become different on their holders: from now on each writes its own."""
        self.separated.update(names)
        for name in names:
            self.holders.pop(name, None)


def agree(told: Sequence[Mapping[str, Held]], rank: int) -> Agreement:
    """What all ranks conclude for rank `rank` from what each has told, by rank.

    A name that several ranks use for different tensors is private to each of them: it means different things there, as the
    stages of a pipeline do that all count their layers from 0.
    """
    holders = {}
    for name, own in told[rank].items():
        ranks = [other for other, tensors in enumerate(told) if name in tensors]
        if all(told[other][name] == own for other in ranks):
            holders[name] = tuple(ranks)
    return Agreement(holders)


def part(name: str, rows: int, bytes_: int, holders: Sequence[int], rank: int) -> tuple[int, int] | None:
    """The rows [begin, end) of a box that `rank` writes, None where it writes nothing of it.

    `rows` is the size of the box's first dimension, 1 where it has none.
    """
    count, index = len(holders), holders.index(rank)
    if rows < count or bytes_ < SMALLEST_CUT or count == 1:
        return (0, rows) if zlib.crc32(name.encode("utf-8", "surrogatepass")) % count == index else None
    return rows * index // count, rows * (index + 1) // count
