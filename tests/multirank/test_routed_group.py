"""The backend `hetsp` by its names in torch.distributed, over two nodes that are addresses of loopback."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from hetsp_ext.distributed import backend
from hetsp_ext.errors import InvalidArgument
from tests.support.ranks import run_ranks
from tests.support.train_runs import write_documents

pytestmark = pytest.mark.skipif(bool(backend.missing()), reason=f"no group of backend hetsp here: {backend.missing()}")

MIB = 1 << 20
TIMEOUT = timedelta(seconds=60)


def nodes(ranks: list[list[int]], nics: int) -> dict[str, Any]:
    return {
        "nodes": [
            {"ranks": own, "nics": [{"name": f"nic{k}", "address": f"127.0.{n + 1}.{k + 1}"} for k in range(nics)]}
            for n, own in enumerate(ranks)
        ]
    }


def sent(rank: int, size: int, topology: dict[str, Any], name: str) -> dict[str, Any]:
    group = dist.new_group(backend=name, timeout=TIMEOUT, pg_options={"topology": topology})
    message = torch.arange(8 * MIB // 4, dtype=torch.int32)
    if rank == 0:
        dist.send(message, 3, group=group)
    if rank == 3:
        found = torch.zeros_like(message)
        dist.recv(found, 0, group=group)
        assert torch.equal(found, message)
    total = torch.full((3,), float(rank))
    dist.all_reduce(total, group=group)
    assert total.tolist() == [6.0] * 3
    dist.barrier(group=group)
    found = hetsp.distributed.statistics(group)
    dist.barrier()
    dist.destroy_process_group(group)
    return found


@pytest.mark.parametrize("name", ["hetsp", "cpu:hetsp", "cpu:hetsp,cuda:hetsp"])
def test_a_hot_pair_is_spread_and_statistics_say_so(name: str) -> None:
    ranks = run_ranks(4, sent, nodes([[0, 1], [2, 3]], 2), name)
    assert [[nic["name"] for nic in rank["nics"]] for rank in ranks] == [["nic0"], ["nic1"]] * 2
    assert ranks[0]["routes"]["spread"] == 1
    assert sum(nic["bytes_sent"] for rank in ranks[:2] for nic in rank["nics"]) >= 8 * MIB
    assert sum(nic["bytes_received"] for rank in ranks[2:] for nic in rank["nics"]) >= 8 * MIB
    assert {rank["lanes_down"] for rank in ranks} == {0}
    assert ranks[0]["lanes"][0] | {"node": 1, "rail": 0, "nic": "nic0", "rank": 2, "up": True} == ranks[0]["lanes"][0]


def subgroup(rank: int, size: int, topology: dict[str, Any]) -> list[float] | None:
    group = dist.new_group([1, 3, 4], backend="hetsp", timeout=TIMEOUT, pg_options={"topology": topology})
    if rank not in (1, 3, 4):
        return None
    found = [torch.zeros(2) for _ in range(3)]
    dist.all_gather(found, torch.full((2,), float(rank)), group=group)
    return [float(each[0]) for each in found]


def test_a_subgroup_takes_its_part_of_the_topology() -> None:
    assert run_ranks(5, subgroup, nodes([[0, 1], [2, 3], [4]], 2)) == [None, [1.0, 3.0, 4.0]] * 2 + [[1.0, 3.0, 4.0]]


def refused(rank: int, size: int, topology: dict[str, Any]) -> str:
    with pytest.raises(InvalidArgument) as caught:
        dist.new_group(backend="hetsp", timeout=TIMEOUT, pg_options={"topology": topology if rank else nodes([[0], [1]], 1)})
    return str(caught.value)


def test_a_topology_that_differs_is_the_same_error_on_all() -> None:
    (message,) = set(run_ranks(2, refused, nodes([[0], [1]], 2)))
    assert "nodes[0].nics has 2 entries there and 1 on rank 0" in message


def test_the_main_job_runs_on_it_unchanged(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    documents = write_documents(tmp_path)
    (tmp_path / "topology.json").write_text(json.dumps(nodes([[0, 2], [1]], 2)))
    job = ["train", "--ranks", "3", "--steps", "2", "--dtype", "float64", "--verify", "--json", "--backend", "hetsp"]
    run = subprocess.run(
        [sys.executable, "-m", "hetsp_ext", *job, *documents],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=os.environ | {"HETSP_TOPOLOGY": str(tmp_path / "topology.json")},
    )
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in run.stdout.splitlines()]
    (verified,) = [record["verify"] for record in records if "verify" in record]
    assert verified["max_gradient_relative_difference"] < 1e-12
    assert max(verified["degrees"]) > 1
    assert [record["run"]["backend"] for record in records if "run" in record] == ["hetsp"]
