"""Every failure that a caller can act on, as a type. Messages name the offending value and what was allowed."""

__all__ = ["HetspError", "InvalidArgument", "PeerLost", "PlanInfeasible", "PlanMismatch"]


class HetspError(Exception):
    """Base of all errors raised by hetsp_ext."""


class InvalidArgument(HetspError, ValueError):
    """An argument that no call can accept."""


class PlanInfeasible(HetspError, RuntimeError):
    """No plan can hold the workload on this cluster; the message says which sequence, and how much memory there is."""


class PlanMismatch(HetspError, RuntimeError):
    """Ranks of one group hold different plans; raised on every rank before the first message of the step."""


class PeerLost(HetspError, RuntimeError):
    """A rank of the group died or left; the message names it."""
