"""Loads the two native modules: `_core` (objects) and `_torch_ops` (torch.ops.hetsp), each beside this file."""

import importlib
from pathlib import Path

import torch

try:
    core = importlib.import_module("hetsp_ext._core")  # by name: the checks must not need the built module
except ImportError as error:
    raise ImportError(
        f"hetsp_ext's native module is missing or does not load ({error}); build it with: pip install --no-build-isolation -e ."
    ) from error

torch.ops.load_library(str(Path(__file__).with_name("_torch_ops.so")))
ops = torch.ops.hetsp

__all__ = ["core", "ops"]
