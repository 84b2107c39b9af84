"""Settings by name, and the cost model of a model on a described cluster. See docs/cost_model.md."""

from typing import Any

from .._native import core
from ..errors import InvalidArgument

__all__ = ["cost_model_on_network", "preset", "presets"]


def preset(name: str) -> Any:
    """The `Preset` of that name: `cost_model`, `cluster(ranks, max_length)`, `sequences(lengths)`.

    Raises:
        InvalidArgument: no preset has that name; the message lists those that exist.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"preset: name is {name!r}, must be of type str")
    return core.preset(name)


def presets() -> list[Any]:
    """All presets: FlexSP's, ByteScale's and Zeppelin's published settings, and Llama models on an H100 cluster."""
    return list(core.presets())


def cost_model_on_network(
    shape: Any,
    attention_flops: float,
    linear_flops: float,
    network: Any,
    ranks_per_node: int | None = None,
    recompute: bool = False,
) -> Any:
    """The `CostModel` of a model on a cluster, which knows heads, rings, all-gathers and the nodes that a group crosses.

    Args:
        shape: `ModelShape`.
        attention_flops, linear_flops: FLOP/s that a rank sustains over forward and backward.
        network: `Network((bytes/s, s), (bytes/s, s), nics_per_node)`: links inside a node, and its NICs.
        ranks_per_node: None for a single node.
        recompute: whether the forward runs again in the backward.

    Raises:
        InvalidArgument: a rate, a size or a count that is out of range; the message names it.
    """
    return core.cost_model_on_network(shape, attention_flops, linear_flops, network, ranks_per_node, recompute)
