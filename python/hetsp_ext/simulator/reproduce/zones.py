"""Zeppelin's partition in zones (arXiv 2509.21841), reconstructed: its pseudo-code is not public in readable form.

Sequences of at least `s1` tokens are cut over ceil(s / s1) nodes, the least loaded ones; the others go whole to the least
loaded node. Inside a node the same with `s0` over its ranks. Load is the sum of tokens squared; what would exceed the memory of
a node or rank lowers the threshold to the next length and starts again. A rank works in all zones of one micro-batch: messages
between nodes, inside the node, and sequences of its own.
"""

import math
from typing import Any

from .hdp import plan_of

__all__ = ["zones_plan"]


class _Full(Exception):
    """A sequence found no room under the threshold at hand."""


def zones_plan(lengths: list[int], sequences: list[Any], ranks: int, node: int, room: int, s1: float, s0: float) -> Any:
    """One micro-batch on `ranks` ranks, `node` a node, each with room for `room` tokens.

    `s1`, `s0`: tokens from which a sequence is cut over nodes, and over the ranks of a node.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    placed = _lowering(longest_first, lengths, ranks // node, node * room, s1)
    groups = []
    for whole in range(ranks // node):
        inside = [i for i in longest_first if placed[i] == [whole]]
        parts = {i: lengths[i] for i in inside}
        spread = _lowering(inside, parts, node, room, s0)
        groups += [([whole * node + rank for rank in spread[i]], i) for i in inside]
    for i in longest_first:
        if len(placed[i]) > 1:
            groups.append(([at * node + rank for at in placed[i] for rank in range(node)], i))
    merged: dict[tuple[int, ...], list[int]] = {}
    for where, i in groups:
        merged.setdefault(tuple(sorted(where)), []).append(i)
    return plan_of(sequences, [list(merged.items())], ranks, "zones", exclusive=False)


def _lowering(order: list[int], lengths: Any, places: int, room: int, threshold: float) -> dict[int, list[int]]:
    """Places of each sequence under the largest threshold, of `threshold` and the lengths below it, that finds room."""
    lower = sorted({lengths[i] for i in order if lengths[i] < threshold}, reverse=True)
    for at in [threshold, *lower]:
        try:
            return _spread(order, lengths, places, room, at)
        except _Full:
            continue
    return {i: list(range(places)) for i in order}  # all over all: the caller's room is checked with the plan


def _spread(order: list[int], lengths: Any, places: int, room: int, threshold: float) -> dict[int, list[int]]:
    load, held = [0.0] * places, [0.0] * places
    result = {}
    for i in order:
        count = min(places, math.ceil(lengths[i] / threshold)) if lengths[i] >= threshold else 1
        count = max(count, 2 if lengths[i] >= threshold and places > 1 else 1)
        each = lengths[i] / count
        fitting = sorted((at for at in range(places) if held[at] + each <= room), key=lambda at: (load[at], at))
        if len(fitting) < count:
            raise _Full
        result[i] = sorted(fitting[:count])
        for at in result[i]:
            load[at] += lengths[i] ** 2 / count
            held[at] += each
    return result
