"""The two hosts as fixtures, and the backends that tests of their NICs run over."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.multirank.nic.hosts import Hosts, Unavailable
from tests.multirank.nic.traffic import why_no_backend

RATE = 200  # Mbit/s per NIC: two cores carry five times the sum of the NICs


@pytest.fixture(scope="module")
def module_hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(Hosts(nics=4, rate=RATE))
        except Unavailable as error:
            pytest.skip(f"no hosts for NIC tests here: {error}")
        yield hosts


@pytest.fixture
def hosts(module_hosts: Hosts) -> Iterator[Hosts]:
    """Two hosts with four NICs each, without a fault."""
    yield module_hosts
    module_hosts.heal()


@pytest.fixture(params=["gloo", "hetsp"])
def backend(request: pytest.FixtureRequest) -> str:
    """Plain Gloo, a rank on its NIC, and ours."""
    if reason := why_no_backend(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture
def hetsp() -> str:
    if reason := why_no_backend("hetsp"):
        pytest.skip(reason)
    return "hetsp"
