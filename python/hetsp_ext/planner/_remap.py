"""`remap()`: the transfers between attention's layout, whose ranks hold unequal tokens, and equal tokens."""

import operator
from collections.abc import Iterable
from typing import Any

from .._native import core
from ..errors import InvalidArgument

__all__ = ["remap"]


def remap(
    tokens: Iterable[Any],
    targets: Iterable[Any] | None = None,
    *,
    ranks_per_node: int | None = None,
    intra_seconds_per_token: float = 1.0,
    inter_seconds_per_token: float = 1.0,
) -> Any:
    """Which rank sends how many tokens to which, so that every rank holds its target.

    A transportation problem over two tiers of links, solved exactly and in whole tokens: ranks of a node match among themselves
    and only a node's net surplus crosses, which makes the sum of all seconds least; and who sends across is shared so that the
    slowest sender and the slowest receiver are as fast as they can be.

    Args:
        tokens: (ranks,) tokens that each rank holds, at least 0; `Plan.rank_tokens(micro_batch)` gives them.
        targets: (ranks,) tokens afterwards, of the same sum; None for equal tokens, where the remainder goes to the ranks that
            make the transfer cheapest.
        ranks_per_node: ranks on one node, counted from rank 0; None for a single node.
        intra_seconds_per_token, inter_seconds_per_token: inside a node and between nodes, 0 <= intra <= inter.

    Returns:
        A `Remap`: `targets`, `transfers` [(from, to, tokens), ...], `moved` and `crossing` in tokens, `sum_seconds` and
        `worst_seconds`.

    Raises:
        InvalidArgument: negative tokens, sums that differ, inter below intra; the message names the value.
    """
    nodes = 0 if ranks_per_node is None else _integer(ranks_per_node, "ranks_per_node")
    if ranks_per_node is not None and nodes < 1:
        raise InvalidArgument(f"remap: ranks_per_node is {ranks_per_node!r}, must be at least 1")
    return core.remap(
        _tokens(tokens, "tokens"),
        None if targets is None else _tokens(targets, "targets"),
        nodes,
        float(intra_seconds_per_token),
        float(inter_seconds_per_token),
    )


def _tokens(values: Any, name: str) -> list[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidArgument(f"remap: {name} is {values!r}, must be an iterable of token counts")
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(items, list):
        raise InvalidArgument(f"remap: {name} must have one dimension")
    return [_integer(item, f"{name}[{index}]") for index, item in enumerate(items)]


def _integer(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument(f"remap: {name} is {value!r}, must be an integer") from None
    if not -(2**31) <= number < 2**31 and name == "ranks_per_node":
        raise InvalidArgument(f"remap: {name} is {value!r}, must be below 2**31")
    if not -(2**62) <= number < 2**62:
        raise InvalidArgument(f"remap: {name} is {value!r}, must be below 2**62")
    return number
