"""Which ranks share each sequence of a step: `plan()`, and the objects that it takes and gives. See docs/planner.md."""

from .._native import core
from ._plan import default_cost_model, plan

Cluster = core.Cluster
CostModel = core.CostModel
Group = core.Group
MicroBatch = core.MicroBatch
ModelShape = core.ModelShape
Plan = core.Plan
Sequence = core.Sequence
cost_model_from_model = core.cost_model_from_model
visible_pairs = core.visible_pairs

__all__ = [
    "Cluster",
    "CostModel",
    "Group",
    "MicroBatch",
    "ModelShape",
    "Plan",
    "Sequence",
    "cost_model_from_model",
    "default_cost_model",
    "plan",
    "visible_pairs",
]
