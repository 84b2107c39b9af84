"""The whole room runs once per instruction set that this machine has; test_levels.py says which it lacks.

HETSP_CPU_CAPABILITY=avx2 pytest tests/python/attention     # that one alone
"""

import os
from collections.abc import Iterator

import pytest

import hetsp_ext as hetsp
from hetsp_ext.capability import VARIABLE

LEVELS = [hetsp.cpu_capability()] if os.environ.get(VARIABLE) else hetsp.cpu_capabilities()


@pytest.fixture(scope="session", params=LEVELS, autouse=True)  # of the session: pytest runs level after level
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = hetsp.cpu_capability()
    hetsp.set_cpu_capability(request.param)
    yield request.param
    hetsp.set_cpu_capability(before)
