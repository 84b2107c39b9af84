"""Calls a native op so that its complaints arrive as hetsp_ext.errors."""

from typing import Any

import torch

from .. import _native as _native  # loads torch.ops.hetsp
from ..errors import InvalidArgument, NotArrived

_MARKS = {"hetsp: ": InvalidArgument, "hetsp, not arrived: ": NotArrived}  # set by csrc/torch_ops/at_edge.h


def call(op: Any, *args: Any) -> Any:
    """op(*args); an error of the core is raised as ours, whatever class and prefix torch has given it."""
    if torch.compiler.is_compiling():  # the traced call is checked when it runs
        return op(*args)
    try:
        return op(*args)
    except (ValueError, RuntimeError) as error:
        for mark, ours in _MARKS.items():
            _, found, message = str(error).partition(mark)
            if found:
                raise ours(message.splitlines()[0]) from None
        raise
