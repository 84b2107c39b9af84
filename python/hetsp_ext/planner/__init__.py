"""Which ranks share each sequence of a step: `plan()`, and the objects that it takes and gives. See docs/planner.md."""

from .._native import core
from ._ahead import PlanAhead
from ._plan import default_cost_model, plan
from ._presets import cost_model_on_network, preset, presets
from ._record import plan_record, read_plans, write_plans
from ._remap import remap

Cancellation = core.Cancellation
Cluster = core.Cluster
CostModel = core.CostModel
Group = core.Group
MicroBatch = core.MicroBatch
ModelShape = core.ModelShape
Network = core.Network
Plan = core.Plan
Preset = core.Preset
Remap = core.Remap
Sequence = core.Sequence
cost_model_from_model = core.cost_model_from_model
strategy_names = core.strategy_names
visible_pairs = core.visible_pairs

__all__ = [
    "Cancellation",
    "Cluster",
    "CostModel",
    "Group",
    "MicroBatch",
    "ModelShape",
    "Network",
    "Plan",
    "PlanAhead",
    "Preset",
    "Remap",
    "Sequence",
    "cost_model_from_model",
    "cost_model_on_network",
    "default_cost_model",
    "plan",
    "plan_record",
    "preset",
    "presets",
    "read_plans",
    "remap",
    "strategy_names",
    "visible_pairs",
    "write_plans",
]
