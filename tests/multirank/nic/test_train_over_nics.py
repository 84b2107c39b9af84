"""The main job over two hosts while a NIC comes and goes: one gradient, whatever the network does."""

import json
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Rank, Run
from tests.support.train_runs import write_documents


def train(rank: Rank, arguments: list[str]) -> int:
    from hetsp_ext import cli

    return cli.main(["train", *arguments])


class Flapping(threading.Thread):
    """Takes a NIC away for 0.3 s of every 0.6 s, from now until stopped."""

    def __init__(self, hosts: Hosts, nic: int) -> None:
        super().__init__(daemon=True)
        self.hosts, self.nic, self.flaps = hosts, nic, 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            self.hosts.link(self.flaps % 2, self.nic, up=False)
            time.sleep(0.3)
            self.hosts.link(self.flaps % 2, self.nic, up=True)
            self.flaps += 1
            time.sleep(0.3)


def test_the_gradient_stays_within_its_bound_while_a_nic_flaps(hosts: Hosts, hetsp: str, tmp_path: Path) -> None:
    arguments = write_documents(tmp_path)
    arguments += [
        "--steps",
        "3",
        "--dtype",
        "float64",
        "--verify",
        "--json",
        "--plan",
        "static",
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += ["--backend", hetsp]
    flapping = Flapping(hosts, 1)
    flapping.start()
    try:
        with Run(hosts, train, arguments, seconds=120) as run:
            assert run.results() == [0] * 8, run.output(0)
            records = [json.loads(line) for line in run.output(0).splitlines() if line.startswith("{")]
    finally:
        flapping.ended.set()
        flapping.join()
    assert flapping.flaps >= 2
    (verified,) = [record["verify"] for record in records if "verify" in record]
    assert verified["loss_relative_difference"] <= 1e-10
    assert verified["max_gradient_relative_difference"] <= 1e-10
    assert max(verified["degrees"]) == 8
    assert [record["step"] for record in records if "step" in record] == [1, 2, 3]
