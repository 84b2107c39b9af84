"""flash-attention's own tests of its functions, versions 2 and 3, on hetsp_ext.integrations: a pytest plugin.

Changed in their tests:
- the device, by rewrite.py; torch.cuda answers as a Hopper GPU with 80 GB would, so that no case hides itself;
- with --floor 2e-3, the least that their tolerances may be: they allow twice the error of plain PyTorch in the same dtype,
  version 3 also what `x + 0.3 - 0.3` loses; both are zero where PyTorch happens to be exact, and one rounding to 16 bits is
  more than that. Without it, theirs stand.
Left out, by name: dropout, ALiBi, paged keys, qv, 8-bit types and attention_chunk, which hetsp_ext refuses; the version 3 test
mixes attention_chunk into each case, so it and the reference both get 0 there, and what remains is the case without.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from hetsp_ext.integrations import flash_attn, flash_attn_interface
from tests.thirdparty.rewrite import rewritten
from tests.thirdparty.selection import parameters, select

# Imported by the tests, called only by cases that are left out.
ABSENT = ("flash_attn_with_kvcache", "flash_attn_combine", "get_scheduler_metadata", "apply_rotary_emb", "_get_block_size_n")
REFUSED = {
    "dropout_p": "dropout is refused by name",
    "alibi": "alibi_slopes is refused by name",
    "paged_kv_block_size": "block_table is refused by name",
    "has_qv": "qv is refused by name",
}
OTHERS = ("kvcache", "combine", "splitkv", "paged", "cluster", "bw_compatibility", "generator_arg")


def absent(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{name} is not offered by hetsp_ext")

    return function


def stand_in(name: str, of: ModuleType | None = None, **others: Any) -> ModuleType:
    """A module with the public functions of ours, and names that the tests import beside them."""
    module = ModuleType(name)
    for source in [of] if of is not None else []:
        module.__dict__.update({key: getattr(source, key) for key in source.__all__})
    module.__dict__.update({key: absent(key) for key in ABSENT}, **others)
    sys.modules[name] = module
    return module


def without_chunks(function: Any) -> Any:
    def call(*args: Any, attention_chunk: int = 0, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def pretend_a_gpu() -> None:
    torch.cuda.get_device_capability = lambda *_: (9, 0)  # type: ignore[assignment]
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(total_memory=80 << 30, multi_processor_count=132)  # type: ignore[assignment]
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]


def pytest_configure(config: pytest.Config) -> None:
    """Before the tests are imported: their imports find ours. pytest runs in the folder that prepare() has filled."""
    pretend_a_gpu()
    package = stand_in("flash_attn", flash_attn, __path__=[])
    stand_in("flash_attn.flash_attn_interface", flash_attn, USE_TRITON_ROCM=False)
    stand_in("flash_attn.layers", __path__=[])
    stand_in("flash_attn.layers.rotary")
    interface = stand_in("flash_attn_interface", flash_attn_interface)
    interface.flash_attn_varlen_func = without_chunks(flash_attn_interface.flash_attn_varlen_func)  # type: ignore[attr-defined]
    interface.flash_attn_func = without_chunks(flash_attn_interface.flash_attn_func)  # type: ignore[attr-defined]
    padding = Path("bert_padding.py")
    if padding.exists():
        spec = importlib.util.spec_from_file_location("flash_attn.bert_padding", padding)
        assert spec is not None
        assert spec.loader is not None
        package.bert_padding = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # type: ignore[attr-defined]
        spec.loader.exec_module(package.bert_padding)


def why_not(item: pytest.Item) -> str | None:
    for name, reason in REFUSED.items():
        if parameters(item).get(name):
            return reason
    if parameters(item).get("dtype") == torch.float8_e4m3fn:
        return "8-bit types are not offered"
    if any(word in item.name.partition("[")[0] for word in OTHERS):
        return "tests functions that hetsp_ext does not offer"
    return None


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for module in {item.module for item in items}:  # type: ignore[attr-defined]
        if "attention_chunk" in (Path(module.__file__).read_text()):
            module.attention_ref = without_chunks(module.attention_ref)
    select(config, items, why_not)


def prepare(checkout: Path, folder: Path, floor: float, version: int) -> list[str]:
    """Fills `folder` with what runs; returns the test files."""
    suite, helpers = {
        2: ("tests/test_flash_attn.py", ["flash_attn/bert_padding.py"]),
        3: ("hopper/test_flash_attn.py", ["hopper/test_util.py", "hopper/padding.py"]),
    }[version]
    for name in (suite, *helpers):
        source = checkout / name
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist; name a checkout of Dao-AILab/flash-attention")
        (folder / source.name).write_text(rewritten(source.read_text(), floor))
    return [Path(suite).name]
