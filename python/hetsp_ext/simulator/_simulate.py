"""`simulate()`: a plan on a machine, and its timeline in a form to print and to draw."""

from collections.abc import Iterator
from typing import Any

from .._native import core
from ..errors import InvalidArgument

__all__ = ["ROUTINGS", "figures", "lanes", "simulate"]

ROUTINGS = ("own-nic", "all-nics", "all-nics-in-turn")


def simulate(
    plan: Any,
    cost_model: Any,
    *,
    ranks_per_node: int | None = None,
    overlap: bool = True,
    contention: bool = True,
    packed: bool = True,
    routing: str = "own-nic",
) -> Any:
    """Replays a plan on the cluster that a cost model describes, message by message.

    Args:
        plan: `Plan`.
        cost_model: `CostModel`. One with shape and network sends messages over links that groups share; a table has delays
            in their place, and one pass.
        ranks_per_node: None for a single node.
        overlap: whether the next hop of a ring travels while a rank computes.
        contention: whether messages share links (max-min fair); without it each group has the machine to itself.
        packed: whether the sequences of a group travel together and pay start-ups once, or each on its own.
        routing: "own-nic", or "all-nics": a ring's messages to another node go in equal parts over all NICs of the node,
            dispatched and combined inside the nodes by a pipeline, or with "all-nics-in-turn" one leg after the other.

    Returns:
        A `Timeline`: `makespan`, and per rank `busy`, `communication` (that nothing hides) and `wait`, in seconds, which add up
        to it; `spans` and `transfers`. Without overlap, contention and packing its makespan is the planner's prediction, for
        groups that share no rank.

    Raises:
        InvalidArgument: an argument of the wrong kind, or a plan that does not fit the cost model; the message says which.
    """
    if not isinstance(plan, core.Plan):
        raise InvalidArgument(f"simulate: plan is {plan!r}, must be of type Plan")
    if not isinstance(cost_model, core.CostModel):
        raise InvalidArgument(f"simulate: cost_model is {cost_model!r}, must be of type CostModel")
    if routing not in ROUTINGS:
        raise InvalidArgument(f"simulate: routing {routing!r} is unknown; allowed: {', '.join(ROUTINGS)}")
    if ranks_per_node is not None and (isinstance(ranks_per_node, bool) or not isinstance(ranks_per_node, int)):
        raise InvalidArgument(f"simulate: ranks_per_node is {ranks_per_node!r}, must be an integer")
    return core.simulate(
        plan,
        cost_model,
        ranks_per_node=ranks_per_node,
        overlap=overlap,
        contention=contention,
        packed=packed,
        routing=routing,
    )


def figures(timeline: Any) -> dict[str, float]:
    """Makespan in seconds, network_bytes, and the mean fractions of it that a rank is busy, communicates or waits."""
    ranks = max(1, len(timeline.busy))
    whole = timeline.makespan * ranks or 1.0
    return {
        "makespan": timeline.makespan,
        "busy": sum(timeline.busy) / whole,
        "communication": sum(timeline.communication) / whole,
        "wait": sum(timeline.wait) / whole,
        "network_bytes": timeline.network_bytes,
    }


def lanes(timeline: Any, plan: Any) -> list[list[tuple[str, str, float, float]]]:
    """[ranks] of (name, kind, begin, end): what a rank computes, and the messages of its groups, in seconds."""
    result: list[list[tuple[str, str, float, float]]] = [[] for _ in timeline.busy]
    for rank, work, micro_batch, group, begin, end in timeline.spans:
        where = f"{micro_batch}" if group < 0 else f"{micro_batch}.{group}"
        result[rank].append((f"{work} {where}", work, begin, end))
    for ranks, event in _messages(timeline, plan):
        for rank in ranks:
            result[rank].append(event)
    return result


def _messages(timeline: Any, plan: Any) -> Iterator[tuple[list[int], tuple[str, str, float, float]]]:
    ranks = [[group.ranks for group in micro_batch.groups] for micro_batch in plan.micro_batches]
    for micro_batch, group, begin, end, _ in timeline.transfers:
        yield ranks[micro_batch][group], (f"communication {micro_batch}.{group}", "communication", begin, end)
