"""Where the tests of this folder have run: with which instruction sets, and whether on a GPU."""

import pytest

import hetsp_ext as hetsp
from tests.support.devices import cuda_runs, why_no_cuda


@pytest.mark.parametrize("wanted", ["portable", "avx2", "avx512", "avx512_bf16", "amx"])
def test_the_room_runs_with(wanted: str, level: str) -> None:
    if wanted not in hetsp.cpu_capabilities():
        pytest.skip(f"this machine lacks {wanted}: no test has run with it")
    if level != "cuda":
        assert hetsp.cpu_capability() == level


def test_the_room_runs_on_a_gpu(level: str) -> None:
    if not cuda_runs():
        pytest.skip(f"{why_no_cuda()}: no test of this room has run on a GPU")
