"""The whole room runs once per instruction set that this machine has, and on its GPU once for each family of kernels that it
runs; test_levels.py says what is lacking.

HETSP_CPU_CAPABILITY=avx2 pytest tests/python/attention     # that one, and the GPU
pytest -k "cuda" tests/python/attention                     # the GPU alone
pytest -k "cuda and not cuda_" tests/python/attention       # ... with the kernels that calls have by themselves
"""

import os
from collections.abc import Iterator

import pytest

import hetsp_ext as hetsp
from hetsp_ext.capability import VARIABLE
from tests.support.devices import cuda_places, default_device, prefer_kernels

LEVELS = [hetsp.cpu_capability()] if os.environ.get(VARIABLE) else hetsp.cpu_capabilities()


@pytest.fixture(
    scope="session", params=[*LEVELS, *cuda_places()], autouse=True
)  # of the session: pytest runs place after place
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param.startswith("cuda"):
        prefer_kernels(request.param)
        yield request.param
        prefer_kernels("any")
        return
    before = hetsp.cpu_capability()
    hetsp.set_cpu_capability(request.param)
    yield request.param
    hetsp.set_cpu_capability(before)


@pytest.fixture(autouse=True)
def device(level: str) -> Iterator[str]:
    """Where tensors are made."""
    name = "cuda" if level.startswith("cuda") else "cpu"
    with default_device(name):
        yield name
