"""Loads the two native modules: `_core` (objects) and `_torch_ops` (torch.ops.hetsp), each beside this file."""

from pathlib import Path

import torch

try:
    from . import _core as core
except ImportError as error:
    raise ImportError(
        f"hetsp_ext's native module is missing or does not load ({error}); build it with: pip install --no-build-isolation -e ."
    ) from error

torch.ops.load_library(str(Path(__file__).with_name("_torch_ops.so")))

__all__ = ["core"]
