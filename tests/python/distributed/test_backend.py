"""The name `hetsp` in torch.distributed, and what is said where it cannot be served; the native part has tests of its own."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

import hetsp_ext
from hetsp_ext import doctor
from hetsp_ext.distributed import backend
from hetsp_ext.distributed.interfaces import interfaces
from hetsp_ext.distributed.topology import parse
from hetsp_ext.errors import HetspError, InvalidArgument


def test_importing_the_package_makes_the_name_known() -> None:
    assert dist.is_backend_available("hetsp")
    assert dist.Backend.backend_capability["hetsp"] == ["cpu", "cuda"]
    assert dist.Backend.default_device_backend_map["cpu"] == "gloo", "nobody's default has changed"


def test_nothing_of_a_group_is_imported_before_there_is_one() -> None:
    code = (
        "import sys, hetsp_ext; print([each for each in sys.modules if each.startswith('hetsp_ext.distributed.') and "
        "each.rpartition('.')[2] in ('lanes', 'group', 'meeting', 'agreement', 'discovery', 'bench')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stderr


def test_without_torch_distributed_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert backend.register() is False
    assert "built without torch.distributed" in backend.missing()


@pytest.mark.parametrize(
    ("built", "words"),
    [
        ("", ["built without its extension", f"this is torch {torch.__version__}"]),
        ("2.99.1+cu999", ["built for torch 2.99.1+cu999", f"this is torch {torch.__version__}"]),
    ],
)
def test_an_absent_or_foreign_extension_is_a_clear_error(built: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "built_for", lambda: built)
    with pytest.raises(HetspError) as caught:
        dist.init_process_group("hetsp", store=dist.HashStore(), rank=0, world_size=1)
    assert not dist.is_initialized()
    for word in ["backend hetsp", *words]:
        assert word in str(caught.value)


def test_an_extension_that_does_not_load_says_which_torch_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "built_for", lambda: torch.__version__)
    monkeypatch.setitem(sys.modules, "hetsp_ext._c10d", None)
    with pytest.raises(HetspError, match=r"its extension for torch .* does not load under torch"):
        backend.require()


def test_the_torch_that_it_was_built_for_stands_beside_it() -> None:
    folder = Path(backend.__file__).parents[1]
    assert backend.built_for() == ((folder / "_c10d.torch").read_text().strip() if (folder / "_c10d.torch").exists() else "")


@pytest.mark.parametrize("built", ["", torch.__version__])
def test_the_doctor_has_a_row(built: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "built_for", lambda: built)
    native = SimpleNamespace(nccl=lambda asked, bundled: {"why": "no NCCL: none"})
    monkeypatch.setitem(sys.modules, "hetsp_ext._c10d", native)
    monkeypatch.setattr(hetsp_ext, "_c10d", native, raising=False)
    found = doctor.examine()
    (row,) = [finding for finding in found if finding.name == "backend hetsp"]
    (gpus,) = [finding for finding in found if finding.name == "lanes of GPUs"]
    assert not gpus.present
    assert gpus.detail.endswith("no NCCL: none" if built else "build with HETSP_C10D=ON beside it")
    assert row.present == bool(built)
    if built:
        assert all(each.name in row.detail for each in interfaces() if each.up and not each.loopback)
    else:
        assert "HETSP_C10D=ON" in row.detail


class Native:
    """Stands for the native object of rank 1 of a group that has sent something."""

    job = 77

    def name(self) -> str:
        return "hetsp"

    def rank(self) -> int:
        return 1

    def statistics(self) -> dict:
        lane = {"generation": 1, "times_down": 0}
        return {
            "rails": [
                lane | {"node": 1, "rail": 1, "up": True, "bytes_sent": 100, "bytes_received": 7, "frames_resent": 0},
                lane | {"node": 2, "rail": 1, "up": False, "bytes_sent": 20, "bytes_received": 5, "frames_resent": 3},
            ],
            "eager": 1, "direct": 2, "spread": 3, "local": 4, "chunks_sent": 50, "chunks_resent": 3,
        }  # fmt: skip

    def lane_statistics(self) -> dict:
        return {"chunks_sent": 9, "bytes_sent": 900}


def test_statistics_name_nics_lanes_and_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"ranks": [2 * n, 2 * n + 1], "nics": [{"name": f"nic{k}", "address": f"10.{k}.0.{n}"} for k in (0, 1)]}
        for n in range(3)
    ]
    monkeypatch.setitem(backend.topologies, 77, parse({"nodes": nodes}, 6, "T"))
    monkeypatch.setitem(backend.without_gpu_lanes, 77, "because")
    monkeypatch.setitem(backend.loopback, 77, ["rank 1 was told not to", "", ""])
    group = SimpleNamespace(_get_backend=lambda device: Native())
    found = hetsp_ext.distributed.statistics(group)
    assert found["nics"] == [
        {
            "name": "nic1", "address": "10.1.0.0", "bytes_sent": 120, "bytes_received": 12, "frames_resent": 3, "lanes": 2,
            "lanes_down": 1,
        }
    ]  # fmt: skip
    assert [(lane["nic"], lane["rank"], lane["up"]) for lane in found["lanes"]] == [("nic1", 3, True), ("nic1", 5, False)]
    assert found["lanes_down"] == 1
    assert found["routes"] == {"eager": 1, "direct": 2, "spread": 3, "local": 4}
    assert found["chunks_resent"] == 3
    assert found["gpu"] == {"why": "because", "chunks_sent": 9, "bytes_sent": 900}
    assert found["inside"] == "loopback: rank 1 was told not to"


def test_statistics_of_another_backend_are_refused() -> None:
    other = SimpleNamespace(_get_backend=lambda device: SimpleNamespace(name=lambda: "gloo"))
    with pytest.raises(InvalidArgument, match="cpu:gloo, cuda:gloo; statistics are of backend hetsp"):
        hetsp_ext.distributed.statistics(other)
    with pytest.raises(InvalidArgument, match="has the backends none"):
        hetsp_ext.distributed.statistics(None)
