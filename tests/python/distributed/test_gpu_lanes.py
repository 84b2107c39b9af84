"""Why a group has no lanes for the memory of GPUs, in words; what finds NCCL is tested in C++ (nccl_library_test.cc)."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsp_ext.distributed import backend, gpu_lanes
from hetsp_ext.distributed.options import Options
from hetsp_ext.distributed.topology import Node, Topology
from hetsp_ext.errors import InvalidArgument
from tests.support.hetsp_groups import needs_extension


class Native:
    """An extension that finds this."""

    def __init__(self, **found: str) -> None:
        self.looked_for: list[tuple[str, str]] = []
        self.answer = {"why": "", **found}

    def nccl(self, asked: str, bundled: str) -> dict[str, str]:
        self.looked_for.append((asked, bundled))
        return self.answer


def test_lanes_are_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HETSP_GPU_LANES", raising=False)
    assert not Options.of(None).gpu_lanes
    assert Options.of({"gpu_lanes": True}).gpu_lanes
    monkeypatch.setenv("HETSP_GPU_LANES", "1")
    assert Options.of(None).gpu_lanes
    assert not Options.of({"gpu_lanes": False}).gpu_lanes
    native = Native()
    assert gpu_lanes.absent(False, native) == gpu_lanes.NOT_ASKED
    assert native.looked_for == []


def test_a_wrong_option_names_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="gpu_lanes is 1; True or False is needed"):
        Options.of({"gpu_lanes": 1})
    monkeypatch.setenv("HETSP_GPU_LANES", "yes")
    with pytest.raises(InvalidArgument, match="HETSP_GPU_LANES is 'yes'; allowed are 0 and 1"):
        Options.of(None)


def test_every_reason_of_a_rank_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETSP_NCCL_LIBRARY", "/some/libnccl.so.2")
    native = Native(why="no NCCL: x")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_lanes.absent(True, native) == f"torch {torch.__version__} sees no GPU; no NCCL: x"
    assert [asked for asked, _ in native.looked_for] == ["/some/libnccl.so.2"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_lanes.absent(True, native) == "no NCCL: x"
    assert gpu_lanes.absent(True, Native()) == ""


@pytest.mark.parametrize(
    ("given", "lanes", "words"),
    [
        (None, 3, ""),
        (None, 4, "4 lanes need 10 queues to the GPU, and CUDA_DEVICE_MAX_CONNECTIONS is 8 by default"),
        ("1", 1, "need 4 queues to the GPU, and CUDA_DEVICE_MAX_CONNECTIONS is 1: set it"),
        ("32", 15, ""),
        ("64", 16, "16 lanes need 34 queues to the GPU, and CUDA has at most 32"),
        ("many", 3, ""),
    ],
)
def test_lanes_need_queues(given: str | None, lanes: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_MAX_CONNECTIONS", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", given)
    why = gpu_lanes.too_few_queues(lanes)
    assert words in why
    assert bool(why) == bool(words)


class Lanes:
    """A backend whose lanes come to this; rank 0 of 1."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.calls: list[str] = []

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 1

    def lanes_settled(self) -> str:
        return self.why

    def turn_lanes_off(self) -> None:
        self.calls.append("off")

    def use_lanes(self, collectives: object) -> None:
        self.calls.append(f"on, {collectives}")


@pytest.mark.parametrize("why", ["", "the lane between this rank and rank 1: no route"])
def test_lanes_are_used_by_all_or_none(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lanes, "collectives", lambda *given: "torch's NCCL")
    native, store = Lanes(why), torch.distributed.HashStore()
    topology = Topology((Node((0,), (), ""),))
    assert backend.settled(native, store, timedelta(seconds=20), topology) == (f"rank 0: {why}" if why else "")
    assert native.calls == (["off"] if why else ["on, torch's NCCL"])


def test_one_rank_without_them_is_enough() -> None:
    assert gpu_lanes.chosen(["", ""]) == ""
    assert gpu_lanes.chosen(["", "no NCCL"]) == "rank 1: no NCCL"
    assert gpu_lanes.chosen([gpu_lanes.NOT_ASKED] * 3) == gpu_lanes.NOT_ASKED
    assert gpu_lanes.chosen(["", gpu_lanes.NOT_ASKED]) == f"rank 1: {gpu_lanes.NOT_ASKED}"


def test_the_wheel_of_nccl_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "nvidia/nccl/lib/libnccl.so.2"
    library.parent.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    assert gpu_lanes.bundled() == ""
    library.touch()
    assert gpu_lanes.bundled() == str(library)
    sys.modules.pop("nvidia", None)  # the made-up one


@needs_extension
def test_a_group_of_lanes_says_what_its_library_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    native: Any = backend.native()
    wrong = native.nccl("libm.so.6", "")
    assert "libm.so.6 has no function ncclGetVersion" in wrong["why"]
    monkeypatch.setenv("HETSP_NCCL_LIBRARY", "/nowhere/libnccl.so.2")
    assert "/nowhere/libnccl.so.2: " in backend.gpu_lanes_missing()
