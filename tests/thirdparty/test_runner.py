"""The runner on suites of two cases, written here in the manner of the real ones: what is right passes, what is wrong fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.thirdparty.__main__ import ROOT

TORCH = """
import torch
from torch.nn.attention.varlen import varlen_attn
from torch.testing._internal.common_cuda import PLATFORM_SUPPORTS_FLASH_ATTENTION

def test_rows_that_see_one_key():
    assert PLATFORM_SUPPORTS_FLASH_ATTENTION
    x = torch.randn(3, 2, 8, device="cuda")
    cu = torch.arange(4, dtype=torch.int32, device="cuda")
    assert torch.equal(varlen_attn(x, x, x, cu, cu, 1, 1), FACTOR * x)

def test_block_table():
    raise AssertionError("left out")
"""

FLASH = """
import pytest
import torch
from flash_attn_interface import flash_attn_varlen_func

def attention_ref(x, attention_chunk=0):
    return FACTOR * x

@pytest.mark.parametrize("seqlen", [1, 4096])
@pytest.mark.parametrize("has_qv", [False, True])
def test_varlen(seqlen, has_qv):
    assert torch.cuda.get_device_capability("cuda") == (9, 0)
    x = torch.randn(3, 2, 8, device="cuda")
    cu = torch.arange(4, dtype=torch.int32, device="cuda")
    out = flash_attn_varlen_func(x, x, x, cu, cu, seqlen, seqlen, attention_chunk=5)
    assert (out - attention_ref(x, attention_chunk=5)).abs().max().item() <= 0.0
"""

RING = """
import torch
import torch.distributed as dist
from flash_attn import flash_attn_qkvpacked_func
from utils import log, set_seed

if __name__ == "__main__":
    dist.init_process_group("nccl")
    set_seed(dist.get_rank())
    x = torch.randn(1, 4, 3, 2, 8, device=f"cuda:{dist.get_rank()}")
    dist.broadcast(x, src=0)
    out = flash_attn_qkvpacked_func(x)
    log("out", out)
    log("out diff", out - FACTOR * out)
"""


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.thirdparty", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("factor", [1, 2], ids=["right", "wrong"])
def test_torch(factor: int, tmp_path: Path) -> None:
    pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest, which is not installed")
    (tmp_path / "suite.py").write_text(TORCH.replace("FACTOR", str(factor)))
    done = run(["torch", str(tmp_path / "suite.py")])
    assert f"1 {'passed' if factor == 1 else 'failed'}, 1 deselected" in done.stdout
    assert "left out: 1 cases: block_table is refused by name" in done.stdout
    assert done.returncode == (0 if factor == 1 else 1)


@pytest.mark.parametrize("factor", [1, 2], ids=["right", "wrong"])
def test_flash_attention(factor: int, tmp_path: Path) -> None:
    (tmp_path / "hopper").mkdir()
    for name, text in (("test_flash_attn.py", FLASH), ("test_util.py", ""), ("padding.py", "")):
        (tmp_path / "hopper" / name).write_text(text.replace("FACTOR", str(factor)))
    done = run(["flash-attention", str(tmp_path)])
    assert f"1 {'passed' if factor == 1 else 'failed'}, 3 deselected" in done.stdout
    assert "left out: 2 cases: qv is refused by name" in done.stdout
    assert "left out: 1 cases: longer than 1024 tokens" in done.stdout
    assert done.returncode == (0 if factor == 1 else 1)


@pytest.mark.parametrize("factor", [1, 2], ids=["right", "wrong"])
def test_ring_flash_attention(factor: int, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_whole.py").write_text(RING.replace("FACTOR", str(factor)))
    done = run(["ring-flash-attention", str(tmp_path), "--ranks", "2"])
    assert f"{2 - factor} passed, {factor - 1} failed" in done.stdout
    assert ("AssertionError: rank 0: out diff is" in done.stdout) == (factor == 2)
    assert done.returncode == factor - 1


@pytest.mark.parametrize("suite", ["flash-attention", "torch", "ring-flash-attention"])
def test_a_checkout_that_is_none_is_named(suite: str, tmp_path: Path) -> None:
    done = run([suite, str(tmp_path)])
    assert done.returncode == 2
    assert f"{tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr
