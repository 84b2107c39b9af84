"""Groups of backend hetsp for tests on one machine: nodes are addresses of loopback, so that rails are real connections."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from typing import Any

import pytest

needs_extension = pytest.mark.skipif(
    importlib.util.find_spec("hetsp_ext._c10d") is None, reason="hetsp_ext was built without hetsp_ext._c10d (HETSP_C10D=OFF)"
)


def topology(*counts: int, nics: int = 2) -> dict[str, Any]:
    """Nodes of so many ranks, in the order of the ranks, with `nics` NICs each."""
    first = [sum(counts[:index]) for index in range(len(counts))]
    return {
        "nodes": [
            {
                "ranks": list(range(first[index], first[index] + count)),
                "nics": [{"name": f"rail{nic}", "address": f"127.0.{index + 1}.{nic + 1}"} for nic in range(nics)],
                "control": "127.0.0.1",
            }
            for index, count in enumerate(counts)
        ]
    }


def new_group(*counts: int, nics: int = 2, seconds: float = 60.0, **options: Any) -> Any:
    """A group of all ranks, on nodes of so many ranks; without counts all on one node, as discovered."""
    import torch.distributed as dist

    given = {"topology": topology(*counts, nics=nics), **options} if counts else options
    return dist.new_group(backend="hetsp", timeout=timedelta(seconds=seconds), pg_options=given or None)
