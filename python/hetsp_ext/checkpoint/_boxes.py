"""Boxes of a tensor, and the byte runs by which one stored box fills another in memory.

A sharded tensor is a set of boxes: box b covers the elements o_d <= i_d < o_d + s_d in each dimension d. Restoring on other
ranks is geometry: the part that a wanted box shares with a stored one is a box again, and it lies in both memories as a grid
of runs. With strides a (source) and b (destination), dimensions merge from the inside out as long as
a_d = s_{d+1} a_{d+1} and b_d = s_{d+1} b_{d+1}; what is left outside the innermost run is the grid.

A tensor without dimensions is one box without dimensions and has one element; a box with a zero size has none.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Box", "Runs", "contiguous_strides", "run_elements", "runs", "tiling_fault"]


@dataclass(frozen=True)
class Box:
    """The elements offsets[d] <= i[d] < offsets[d] + sizes[d] of a tensor."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements it holds: 1 without dimensions, 0 where a size is zero."""
        return math.prod(self.sizes)

    def intersect(self, other: Box) -> Box | None:
        """What both hold, or None where that is nothing."""
        begins = tuple(max(a, b) for a, b in zip(self.offsets, other.offsets, strict=True))
        ends = (min(a + n, b + m) for a, n, b, m in zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True))
        sizes = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
        return Box(begins, sizes) if all(size > 0 for size in sizes) else None

    def relative_to(self, origin: Sequence[int]) -> Box:
        """The same box, counted from another element."""
        return Box(tuple(a - b for a, b in zip(self.offsets, origin, strict=True)), self.sizes)

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{a + n}" for a, n in zip(self.offsets, self.sizes, strict=True)) + "]"


@dataclass(frozen=True)
class Runs:
    """`elements` elements each, from source[i] to destination[i]; all counted in elements."""

    elements: int
    source: torch.Tensor  # int64 [runs]
    destination: torch.Tensor  # int64 [runs]

    def __len__(self) -> int:
        return self.source.numel()


def contiguous_strides(sizes: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a row-major tensor."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _grid(
    sizes: Sequence[int], source_strides: Sequence[int], destination_strides: Sequence[int]
) -> tuple[int, list[tuple[int, int, int]]]:
    """Elements of a run, and the dimensions (size, source stride, destination stride) around it, outermost first."""
    merged: list[tuple[int, int, int]] = []  # innermost first
    for size, a, b in reversed(list(zip(sizes, source_strides, destination_strides, strict=True))):
        if size == 1:
            continue
        if merged and a == merged[-1][0] * merged[-1][1] and b == merged[-1][0] * merged[-1][2]:
            merged[-1] = (size * merged[-1][0], merged[-1][1], merged[-1][2])
        else:
            merged.append((size, a, b))
    elements = merged.pop(0)[0] if merged and merged[0][1:] == (1, 1) else 1
    return elements, merged[::-1]


def run_elements(sizes: Sequence[int], source_strides: Sequence[int], destination_strides: Sequence[int]) -> int:
    """How long the runs of `runs` are, without listing them."""
    return 0 if 0 in sizes else _grid(sizes, source_strides, destination_strides)[0]


def runs(sizes: Sequence[int], source_strides: Sequence[int], destination_strides: Sequence[int]) -> Runs:
    """The runs that copy a box of `sizes`; strides in elements, offsets from the box's own first element, in source order."""
    if 0 in sizes:
        return Runs(0, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    elements, grid = _grid(sizes, source_strides, destination_strides)
    source = destination = torch.zeros(1, dtype=torch.int64)
    for size, a, b in grid:
        index = torch.arange(size)
        source = (source[:, None] + index * a).flatten()
        destination = (destination[:, None] + index * b).flatten()
    return Runs(elements, source, destination)


def tiling_fault(shape: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """What keeps the boxes from covering a tensor of `shape` exactly once, in words; None where they do.

    Boxes without elements tile nothing and are only held to the bounds. Overlaps are looked for with a sweep along the
    dimension in which the boxes begin at the most places, among the boxes that are open there.
    """
    for box in boxes:
        if len(box.sizes) != len(shape) or len(box.offsets) != len(shape):
            return f"box {box} has {len(box.sizes)} dimensions, the tensor has {len(shape)}"
        if any(a < 0 or n < 0 or a + n > size for a, n, size in zip(box.offsets, box.sizes, shape, strict=True)):
            return f"box {box} leaves the shape {list(shape)}"
    full = [box for box in boxes if box.elements > 0]
    covered, total = sum(box.elements for box in full), math.prod(shape)
    if covered < total:
        return f"the boxes hold {covered} of {total} elements"
    sweep = max(range(len(shape)), default=0, key=lambda d: len({box.offsets[d] for box in full}))
    begin = [(box.offsets[sweep] if shape else 0) for box in full]
    open_boxes: list[tuple[int, int]] = []  # (end, index), by end
    for index in sorted(range(len(full)), key=begin.__getitem__):
        del open_boxes[: bisect_right(open_boxes, (begin[index], len(full)))]
        for _, other in open_boxes:
            if full[index].intersect(full[other]):
                return f"boxes {full[other]} and {full[index]} overlap"
        insort(open_boxes, (begin[index] + (full[index].sizes[sweep] if shape else 1), index))
    return None
