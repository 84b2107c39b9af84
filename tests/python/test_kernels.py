"""The family of CUDA kernels: bounded by name and by the environment, told by the doctor. What serves which call is decided by
csrc/hetsp/attention/cuda/selection.h and tested in C++."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import hetsp_ext as hetsp
from hetsp_ext import doctor, kernels
from hetsp_ext.errors import InvalidArgument

FAMILIES = ["scalar", "mma", "hopper"]
BEFORE = hetsp.cuda_kernels()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    hetsp.set_cuda_kernels(BEFORE)


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != kernels.VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_bounds_the_choice_until_it_is_free_again(name: str) -> None:
    hetsp.set_cuda_kernels(name)
    assert hetsp.cuda_kernels() == name
    hetsp.set_cuda_kernels(name, only=True)
    assert hetsp.cuda_kernels() == name
    hetsp.set_cuda_kernels(None)
    assert hetsp.cuda_kernels() == kernels.BEST == FAMILIES[-1]


@pytest.mark.parametrize("name", ["", "Hopper", "wgmma", "mma "])
def test_another_name_is_refused_and_changes_nothing(name: str) -> None:
    hetsp.set_cuda_kernels("mma")
    with pytest.raises(InvalidArgument, match=f'"{name}", must be scalar, mma or hopper'):
        hetsp.set_cuda_kernels(name)
    assert hetsp.cuda_kernels() == "mma"


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="are 3, must be None, scalar, mma or hopper"):
        hetsp.set_cuda_kernels(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("capability", "name"), [((9, 0), "hopper"), ((8, 0), "mma"), ((10, 0), "mma"), ((7, 5), "scalar")])
def test_what_a_device_runs(capability: tuple[int, int], name: str) -> None:
    assert kernels.kernels_of(*capability) == name


def test_the_environment_bounds_from_the_import_on() -> None:
    code = "import hetsp_ext; print(hetsp_ext.cuda_kernels())"
    assert fresh(code).stdout == "hopper\n"
    assert fresh(code, HETSP_CUDA_KERNELS="").stdout == "hopper\n"
    assert fresh(code, HETSP_CUDA_KERNELS="scalar").stdout == "scalar\n"
    refused = fresh(code, HETSP_CUDA_KERNELS="fast")
    assert refused.returncode == 1
    assert 'InvalidArgument: HETSP_CUDA_KERNELS: CUDA kernels are "fast", must be' in refused.stderr


def test_the_doctor_says_what_is_set_aside() -> None:
    def found() -> doctor.Finding:
        return next(finding for finding in doctor.cuda() if finding.name == "CUDA kernels")

    hetsp.set_cuda_kernels(None)
    compiled = found()
    hetsp.set_cuda_kernels("mma")
    if not torch.ops.hetsp.cuda_info()[0]:
        assert found() == compiled  # there are none, which is the greater news
        return
    assert compiled.present
    assert found() == doctor.Finding("CUDA kernels", False, "no better than mma, by HETSP_CUDA_KERNELS or set_cuda_kernels()")


def test_the_cpu_does_not_care() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(20, 2, 16, dtype=torch.bfloat16) for _ in range(3))
    cu = torch.tensor([0, 20])
    expected = hetsp.varlen_attention(q, k, v, cu, cu, 20, 20, return_lse=False)
    hetsp.set_cuda_kernels("hopper", only=True)
    assert torch.equal(hetsp.varlen_attention(q, k, v, cu, cu, 20, 20, return_lse=False), expected)
