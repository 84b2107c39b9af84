"""Every failure that a caller can act on, as a type. Messages name the offending value and what was allowed."""

__all__ = [
    "CheckpointBusy",
    "CheckpointCorrupt",
    "CheckpointError",
    "CheckpointMutated",
    "CheckpointWriteError",
    "HetspError",
    "InvalidArgument",
    "NotArrived",
    "PeerLost",
    "PlanInfeasible",
    "PlanMismatch",
]


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


class NotArrived(HetspError, RuntimeError):
    """A piece of the keys did not come while a call waited for it; the message names the piece, its flag and the epoch."""


class CheckpointError(HetspError, RuntimeError):
    """A save that failed; the checkpoints committed before it are as they were, and training may go on."""


class CheckpointWriteError(CheckpointError, OSError):
    """The file system refused a save; `errno` and `filename` say what and where."""


class CheckpointMutated(CheckpointError):
    """State changed in place while it was being captured; the message names the tensors, and the checkpoint is not kept."""


class CheckpointCorrupt(HetspError, RuntimeError):
    """A checkpoint's files are not what was committed; the message names the file, the tensor and the bytes."""


class CheckpointBusy(HetspError, RuntimeError):
    """Another process writes to the checkpoint directory; the message names the directory."""
