"""Plan, shard and run training steps over sequences of wildly different lengths. See docs/architecture.md."""

from . import _native as _native
from . import errors

__version__ = "0.1.0"
__all__ = ["__version__", "errors"]
