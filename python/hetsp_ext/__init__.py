"""Plan, shard and run training steps over sequences of wildly different lengths. See docs/architecture.md."""

from . import errors
from ._native import core as _core

__version__ = "0.1.0"
__all__ = ["__version__", "errors"]
