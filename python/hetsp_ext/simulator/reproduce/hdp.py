"""The rungs of ByteScale's ladder as plans: static rings, naive and balanced hybrid data parallelism (arXiv 2502.21231)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...planner import Plan

__all__ = ["Unit", "balanced_plan", "naive_plan", "plan_of", "ranks_by_memory", "static_plan", "units_of"]


@dataclass
class Unit:
    """What one micro-batch of some ranks holds: a long sequence on `ranks` of them, or a pack of short ones on one."""

    ranks: int
    sequences: list[int]  # numbers


def units_of(lengths: list[int], room: int, ranks_of: Any) -> list[Unit]:
    """A unit per sequence of `room` tokens or more, on ranks_of(length) ranks, in the order given; the shorter ones packed best
    fit, longest first, to at most `room`."""
    long = [Unit(ranks_of(length), [i]) for i, length in enumerate(lengths) if length >= room]
    packs: list[tuple[int, list[int]]] = []  # tokens, numbers
    short = sorted((i for i, length in enumerate(lengths) if length < room), key=lambda i: -lengths[i])
    for i in short:
        fitting = [at for at, (tokens, _) in enumerate(packs) if tokens + lengths[i] <= room]
        if fitting:
            at = max(fitting, key=lambda at: packs[at][0])
            packs[at] = (packs[at][0] + lengths[i], [*packs[at][1], i])
        else:
            packs.append((lengths[i], [i]))
    return sorted(long + [Unit(1, numbers) for _, numbers in packs], key=lambda unit: min(unit.sequences))


def static_plan(lengths: list[int], sequences: Iterable[Any], ranks: int, ring: int, room: int) -> Any:
    """Sequences packed in the order they come to ring x room tokens; the packs dealt out to ranks / ring rings."""
    packs: list[list[int]] = [[]]
    held = 0
    for i, length in enumerate(lengths):
        if packs[-1] and held + length > ring * room:
            packs.append([])
            held = 0
        packs[-1].append(i)
        held += length
    rings = ranks // ring
    micro_batches = [
        [(range(at * ring, (at + 1) * ring), pack) for at, pack in enumerate(packs[first : first + rings])]
        for first in range(0, len(packs), rings)
    ]
    return plan_of(sequences, micro_batches, ranks, "static", exclusive=True)


def naive_plan(units: list[Unit], sequences: Iterable[Any], ranks: int) -> Any:
    """Units onto ranks in the order they come; a new micro-batch where too few ranks are left."""
    micro_batches: list[list[tuple[range, list[int]]]] = [[]]
    used = 0
    for unit in units:
        if used + unit.ranks > ranks:
            micro_batches.append([])
            used = 0
        micro_batches[-1].append((range(used, used + unit.ranks), unit.sequences))
        used += unit.ranks
    return plan_of(sequences, micro_batches, ranks, "naive-hdp", exclusive=True)


def balanced_plan(units: list[Unit], sequences: list[Any], cost_model: Any, ranks: int) -> Any:
    """Its balance scheduler without pipeline: the longest unit left goes to the ranks that have the least to do.

    That is DP-balance with buckets of one unit and delta 0. Ranks may have different counts of micro-batches.
    """
    seconds = [sum(cost_model.seconds(sequences[i], unit.ranks) for i in unit.sequences) for unit in units]
    busy, depth = [0.0] * ranks, [0] * ranks
    micro_batches: list[list[tuple[list[int], list[int]]]] = []
    for at in sorted(range(len(units)), key=lambda at: -seconds[at]):
        chosen = sorted(range(ranks), key=lambda rank: (busy[rank], rank))[: units[at].ranks]
        level, begin = max(depth[rank] for rank in chosen), max(busy[rank] for rank in chosen)
        while len(micro_batches) <= level:
            micro_batches.append([])
        micro_batches[level].append((sorted(chosen), units[at].sequences))
        for rank in chosen:
            busy[rank], depth[rank] = begin + seconds[at], level + 1
    return plan_of(sequences, micro_batches, ranks, "balanced-hdp", exclusive=True)


def plan_of(sequences: Iterable[Any], micro_batches: Any, ranks: int, strategy: str, *, exclusive: bool) -> Any:
    """The plan whose micro-batches are lists of (ranks, sequence numbers): rings in zigzag cut, replicated parameters.

    exclusive: the groups of a micro-batch are disjoint, so that each rank has a count of micro-batches of its own.
    """
    return Plan.from_dict(
        {
            "version": 1,
            "ranks": ranks,
            "strategy": strategy,
            "synchronisation": "step",
            "exclusive": exclusive,
            "makespan": 0.0,
            "lower_bound": 0.0,
            "rank_seconds": [0.0] * ranks,
            "compute_seconds": [0.0] * ranks,
            "sequences": [[s.tokens, s.visible_pairs, s.fixed_cost] for s in sequences],
            "micro_batches": [[_group(where, numbers) for where, numbers in groups] for groups in micro_batches],
        }
    )


def _group(where: Iterable[int], numbers: list[int]) -> dict[str, Any]:
    ranks = list(where)
    return {
        "sequences": numbers,
        "ranks": ranks,
        "head_degree": 1,
        "ring_degree": len(ranks),
        "gather_kv": False,
        "cut": "zigzag" if len(ranks) > 1 else "whole",
        "activations": "keep",
    }


def ranks_by_memory(room: int) -> Any:
    """ceil(tokens / room)."""
    return lambda length: math.ceil(length / room)
