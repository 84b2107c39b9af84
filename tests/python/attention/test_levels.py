"""Which instruction sets the tests of this folder have run with."""

import pytest

import hetsp_ext as hetsp


@pytest.mark.parametrize("wanted", ["portable", "avx2", "avx512", "avx512_bf16"])
def test_the_room_runs_with(wanted: str, level: str) -> None:
    if wanted not in hetsp.cpu_capabilities():
        pytest.skip(f"this machine lacks {wanted}: no test has run with it")
    assert hetsp.cpu_capability() == level
