"""Where the tests of this folder have run: with which instruction sets, and whether on a GPU."""

import pytest
import torch

import hetsp_ext as hetsp
from tests.support.devices import cuda_places, cuda_runs, why_no_cuda


@pytest.mark.parametrize("wanted", ["portable", "avx2", "avx512", "avx512_bf16", "amx"])
def test_the_room_runs_with(wanted: str, level: str) -> None:
    if wanted not in hetsp.cpu_capabilities():
        pytest.skip(f"this machine lacks {wanted}: no test has run with it")
    if not level.startswith("cuda"):
        assert hetsp.cpu_capability() == level


@pytest.mark.parametrize("family", ["scalar", "mma", "hopper"])
def test_the_room_runs_on_a_gpu_with(family: str, level: str) -> None:
    if not cuda_runs():
        pytest.skip(f"{why_no_cuda()}: no test of this room has run on a GPU")
    if family not in [hetsp.kernels.kernels_of(*torch.cuda.get_device_capability()), *(p[5:] for p in cuda_places())]:
        pytest.skip(f"{torch.cuda.get_device_name()} does not run these kernels")
    if level == f"cuda_{family}":
        assert hetsp.cuda_kernels() == family
