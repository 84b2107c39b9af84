"""The whole room runs once per instruction set that this machine has, and once on its GPU; test_levels.py says what it lacks.

HETSP_CPU_CAPABILITY=avx2 pytest tests/python/attention     # that one, and the GPU
pytest -k "cuda-" tests/python/attention                    # the GPU alone; -k "not cuda-": without it
"""

import os
from collections.abc import Iterator

import pytest

import hetsp_ext as hetsp
from hetsp_ext.capability import VARIABLE
from tests.support.devices import cuda_runs, default_device

LEVELS = [hetsp.cpu_capability()] if os.environ.get(VARIABLE) else hetsp.cpu_capabilities()
PLACES = [*LEVELS, *(["cuda"] if cuda_runs() else [])]


@pytest.fixture(scope="session", params=PLACES, autouse=True)  # of the session: pytest runs place after place
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cuda":
        yield "cuda"
        return
    before = hetsp.cpu_capability()
    hetsp.set_cpu_capability(request.param)
    yield request.param
    hetsp.set_cpu_capability(before)


@pytest.fixture(autouse=True)
def device(level: str) -> Iterator[str]:
    """Where tensors are made."""
    name = "cuda" if level == "cuda" else "cpu"
    with default_device(name):
        yield name
