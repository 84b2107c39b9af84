"""Which ranks share each sequence of a step: `plan()`, and the objects that it takes and gives. See docs/planner.md."""

from .._native import core
from ._plan import default_cost_model, plan
from ._presets import cost_model_on_network, preset, presets

Cluster = core.Cluster
CostModel = core.CostModel
Group = core.Group
MicroBatch = core.MicroBatch
ModelShape = core.ModelShape
Network = core.Network
Plan = core.Plan
Preset = core.Preset
Sequence = core.Sequence
cost_model_from_model = core.cost_model_from_model
visible_pairs = core.visible_pairs

__all__ = [
    "Cluster",
    "CostModel",
    "Group",
    "MicroBatch",
    "ModelShape",
    "Network",
    "Plan",
    "Preset",
    "Sequence",
    "cost_model_from_model",
    "cost_model_on_network",
    "default_cost_model",
    "plan",
    "preset",
    "presets",
    "visible_pairs",
]
