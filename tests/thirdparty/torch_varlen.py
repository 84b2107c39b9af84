"""torch's own test/test_varlen_attention.py on the CPU, with hetsp_ext.integrations.torch_attention active. A pytest plugin.

Changed in the test:
- the device, by rewrite.py, and torch.testing's opinion that the platform has flash attention;
- with --floor, the least that the tolerances may be: they are those of flash-attention's tests, see flash_attention.py;
- our implementation is active before each case, also after one that restores torch's.
Left out, by name: block tables, which are refused; arguments that the installed torch's varlen_attn does not have; and what
compiles under a dispatch mode, where the installed torch compiles nothing under one, whatever the kernel.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

from hetsp_ext.integrations import torch_attention
from tests.thirdparty.rewrite import rewritten
from tests.thirdparty.selection import select


def pytest_configure(config: pytest.Config) -> None:
    from torch.testing._internal import common_cuda  # which needs expecttest, as the tests do: not to say what a checkout lacks

    common_cuda.PLATFORM_SUPPORTS_FLASH_ATTENTION = True


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch_attention.activate()


class PassingOn(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@functools.cache
def compiles_under_a_dispatch_mode() -> bool:
    try:
        with PassingOn():
            torch.compile(lambda x: x + 1, backend="eager", fullgraph=True)(torch.zeros(1))
    except RuntimeError:
        return False
    return True


def why_not(item: pytest.Item) -> str | None:
    if "block_table" in item.name:
        return "block_table is refused by name"
    if "test_custom_op_registration" in item.name and not compiles_under_a_dispatch_mode():
        return "the installed torch compiles nothing under a dispatch mode"
    if "test_kv_cache" in item.name and "k_cache" not in inspect.signature(varlen.varlen_attn).parameters:
        return "the installed torch's varlen_attn has no argument k_cache"
    return None


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    select(config, items, why_not)


def prepare(checkout: Path, folder: Path, floor: float) -> list[str]:
    """Fills `folder` with what runs; `checkout` is one of pytorch, or the file itself."""
    source = checkout / "test/test_varlen_attention.py" if checkout.is_dir() else checkout
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; name a checkout of pytorch, or its test_varlen_attention.py")
    (folder / source.name).write_text(rewritten(source.read_text(), floor))
    return [source.name]
