"""The instruction set of the kernels: forced by name, by the environment, and obeyed by both native modules."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hetsp_ext as hetsp
from hetsp_ext import doctor
from hetsp_ext._native import core, ops
from hetsp_ext.errors import InvalidArgument

LEVELS = hetsp.cpu_capabilities()
ALL = ["portable", "avx2", "avx512", "avx512_bf16", "amx"]
BEST = LEVELS[-1]  # what is used unless one is forced
BEFORE = hetsp.cpu_capability()  # what the environment forces, or the best


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    hetsp.set_cpu_capability(BEFORE)


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`code` in an interpreter that has imported nothing yet."""
    inherited = {name: value for name, value in os.environ.items() if name != "HETSP_CPU_CAPABILITY"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, timeout=120
    )


def test_levels_are_ordered_and_start_with_the_portable_one() -> None:
    assert [level for level in ALL if level in LEVELS] == LEVELS
    assert LEVELS[0] == "portable"


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_forced_in_both_modules_and_released(level: str) -> None:
    hetsp.set_cpu_capability(level)
    assert hetsp.cpu_capability() == level
    assert ops.force_cpu_capability(level) == level
    hetsp.set_cpu_capability(None)
    assert hetsp.cpu_capability() == BEST
    assert ops.force_cpu_capability(None) == BEST


@pytest.mark.skipif(len(LEVELS) == 1, reason=f"this machine has {LEVELS} alone")
def test_attention_obeys() -> None:
    """Widths of 4 and of 16 lanes add in another order: their results agree, but not to the last bit."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(300, 2, 40) for _ in range(3))
    cu = torch.tensor([0, 300])
    found = {}
    for level in LEVELS:
        hetsp.set_cpu_capability(level)
        found[level] = hetsp.varlen_attention(q, k, v, cu, cu, 300, 300)[0]
        torch.testing.assert_close(found[level], found["portable"], atol=1e-5, rtol=1e-5)
    assert not torch.equal(found["portable"], found[LEVELS[-1]])


@pytest.mark.parametrize("name", ["sse9", "", "AVX2", "avx512 ", *(level for level in ALL if level not in LEVELS)])
def test_a_name_that_is_not_here_is_refused_and_changes_nothing(name: str) -> None:
    hetsp.set_cpu_capability("portable")
    with pytest.raises(InvalidArgument, match=f'"{name}", must be one of {", ".join(LEVELS)}'):
        hetsp.set_cpu_capability(name)
    with pytest.raises((RuntimeError, ValueError), match=f'"{name}", must be one of'):
        ops.force_cpu_capability(name)
    assert hetsp.cpu_capability() == "portable"


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="is 2, must be None or one of portable"):
        hetsp.set_cpu_capability(2)  # type: ignore[arg-type]


def test_the_environment_forces_from_the_import_on() -> None:
    code = "import hetsp_ext; print(hetsp_ext.cpu_capability())"
    for level in (LEVELS[0], LEVELS[-1]):
        assert fresh(code, HETSP_CPU_CAPABILITY=level).stdout == f"{level}\n"
    assert fresh(code).stdout == f"{BEST}\n"
    assert fresh(code, HETSP_CPU_CAPABILITY="").stdout == f"{BEST}\n"


@pytest.mark.skipif("amx" in LEVELS, reason="this machine has AMX: test_attention_obeys and tests/python/attention run it")
def test_amx_says_whether_cpu_or_kernel_lacks_it() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    who = "the kernel gives no tile registers" if " amx_bf16" in flags else "the CPU has no AMX-BF16"
    with pytest.raises(InvalidArgument, match=f"what this machine has; .*{who}"):
        hetsp.set_cpu_capability("amx")
    assert hetsp.cpu_capability() == BEFORE
    run = fresh("import hetsp_ext", HETSP_CPU_CAPABILITY="amx")
    assert run.returncode != 0
    assert who in run.stderr


@pytest.mark.skipif(len(LEVELS) == 1, reason=f"this machine has {LEVELS} alone")
def test_the_environment_reaches_the_ops() -> None:
    code = """
import torch, hetsp_ext as hetsp
q, cu = torch.randn(300, 2, 40), torch.tensor([0, 300])
attend = lambda: hetsp.varlen_attention(q, q, q, cu, cu, 300, 300)[0]
by_environment = attend()
hetsp.set_cpu_capability("portable")
same = torch.equal(by_environment, attend())
hetsp.set_cpu_capability(None)
print(same, torch.equal(by_environment, attend()))
"""
    assert fresh(code, HETSP_CPU_CAPABILITY="portable").stdout == "True False\n"


def test_a_wrong_environment_stops_the_import_by_name() -> None:
    run = fresh("import hetsp_ext", HETSP_CPU_CAPABILITY="avx1024")
    assert run.returncode != 0
    assert f'HETSP_CPU_CAPABILITY: CPU capability is "avx1024", must be one of {", ".join(LEVELS)}' in run.stderr


def test_doctor_names_the_level_and_what_was_set_aside() -> None:
    hetsp.set_cpu_capability(None)
    (finding,) = [f for f in doctor.processor() if f.name == "CPU capability"]
    assert finding.present
    assert finding.detail == f"{BEST}, of {', '.join(LEVELS)}"
    if len(LEVELS) > 1:
        hetsp.set_cpu_capability("portable")
        assert not doctor.capability().present
        assert f"portable, forced by HETSP_CPU_CAPABILITY or set_cpu_capability(); this machine has {BEST}" in (
            doctor.capability().detail
        )


def test_doctor_says_that_amx_is_there_or_why_not() -> None:
    finding = doctor.amx()
    assert finding.present == (BEST == "amx")
    assert finding.detail == (core.missing_cpu_capability("amx") or finding.detail)
    if not finding.present:
        assert re.search("AMX-BF16|tile registers", finding.detail)
