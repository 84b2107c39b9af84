"""From what ranks see of their machines to nodes, NICs and their order, without any network."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hetsp_ext.distributed import interfaces as sight
from hetsp_ext.distributed.discovery import Sight, discover
from hetsp_ext.distributed.interfaces import Interface, identity, interfaces, natural
from hetsp_ext.errors import InvalidArgument


def nic(name: str, address: str, up: bool = True, rate: float = 0.0, **more) -> Interface:
    network = address.rpartition(".")[0] + ".0/24"
    fields = {"loopback": False, "tunnel": False, "bridge": False, "bus": "", "numa": -1} | more
    return Interface(name, address, network, up, rate=rate, **fields)


LO = nic("lo", "127.0.0.1", loopback=True)


def host(number: int, *extra: Interface, nics: int = 4) -> Sight:
    own = tuple(nic(f"nic{i}", f"10.200.{i}.{number}") for i in range(nics))
    return Sight(f"host{number}/boot/1", (LO, *own, *extra), "")


def names(topology, node: int) -> list[str]:
    return [each.name for each in topology.nodes[node].nics]


def test_ranks_of_one_identity_are_a_node_whatever_their_order() -> None:
    topology = discover([host(1), host(2), host(1), host(2), host(3)])
    assert [node.ranks for node in topology.nodes] == [(0, 2), (1, 3), (4,)]
    assert names(topology, 0) == ["nic0", "nic1", "nic2", "nic3"]
    assert topology.nodes[1].nics[2].address == "10.200.2.2"


def test_host_boot_and_namespace_tell_nodes_apart() -> None:
    sights = [replace(host(1), identity=each) for each in ("a/b/1", "a/b/2", "a/c/1", "d/b/1", "a/b/1")]
    topology = discover([replace(each, interfaces=(LO, nic("n", f"10.0.0.{i}"))) for i, each in enumerate(sights)])
    assert [node.ranks for node in topology.nodes] == [(0, 4), (1,), (2,), (3,)]


def test_control_is_the_address_towards_the_master() -> None:
    mgmt = [nic("mgmt", f"10.255.0.{number}") for number in (1, 2)]
    topology = discover([replace(host(n, mgmt[n - 1]), towards=f"10.255.0.{n}") for n in (1, 2)])
    assert [node.control for node in topology.nodes] == ["10.255.0.1", "10.255.0.2"]
    assert names(topology, 0) == ["nic0", "nic1", "nic2", "nic3"], "a network of another kind is left to control"


def test_without_a_way_to_the_master_control_is_the_first_nic() -> None:
    assert [node.control for node in discover([host(1), host(2)]).nodes] == ["10.200.0.1", "10.200.0.2"]
    loop = [replace(host(n), towards="127.0.0.1") for n in (1, 2)]
    assert [node.control for node in discover(loop).nodes] == ["10.200.0.1", "10.200.0.2"]


def test_a_master_on_one_of_equal_nics_takes_nothing_away() -> None:
    topology = discover([replace(host(n), towards=f"10.200.0.{n}") for n in (1, 2)])
    assert names(topology, 0) == ["nic0", "nic1", "nic2", "nic3"]
    assert topology.nodes[0].control == "10.200.0.1"


@pytest.mark.parametrize(("others", "kept"), [(1e6, ["eth0", "wlan0"]), (1e10, ["wlan0"])])
def test_the_masters_interface_stays_where_the_others_are_slower(others: float, kept: list[str]) -> None:
    pair = [
        Sight(f"{n}", (nic("eth0", f"10.1.0.{n}", rate=1e8), nic("wlan0", f"10.2.0.{n}", rate=others)), f"10.1.0.{n}")
        for n in (1, 2)
    ]
    assert names(discover(pair), 0) == kept


def test_bridges_tunnels_and_addresses_that_two_nodes_claim_are_left_out() -> None:
    extra = (nic("docker0", "172.17.0.1"), nic("virbr0", "192.168.122.1"))
    topology = discover(
        [host(n, *extra, nic("br0", f"10.9.0.{n}", bridge=True), nic("tun0", f"10.8.0.{n}", tunnel=True)) for n in (1, 2)]
    )
    assert names(topology, 0) == ["nic0", "nic1", "nic2", "nic3"]


def test_a_bridge_alone_is_a_nic() -> None:
    topology = discover([Sight(f"{n}", (LO, nic("br0", f"10.9.0.{n}", bridge=True)), "") for n in (1, 2)])
    assert names(topology, 0) == ["br0"]


def down(sight: Sight, name: str) -> Sight:
    return replace(sight, interfaces=tuple(replace(each, up=each.up and each.name != name) for each in sight.interfaces))


@pytest.mark.parametrize("sides", [(1,), (2,), (1, 2)])
def test_a_nic_that_is_down_keeps_its_place(sides: tuple[int, ...]) -> None:
    """The carrier of the other end of a cable goes with it."""
    topology = discover([down(host(n), "nic2") if n in sides else host(n) for n in (1, 2)])
    assert names(topology, 0) == names(topology, 1) == ["nic0", "nic1", "nic2", "nic3"]


def test_a_nic_that_is_down_and_leads_to_no_other_node_is_none() -> None:
    topology = discover([down(host(1, nic("nic9", "10.99.0.1")), "nic9"), host(2)])
    assert names(topology, 0) == ["nic0", "nic1", "nic2", "nic3"]


def test_rails_join_nics_of_one_network() -> None:
    other = Sight("2", (LO, *(nic(f"eth{3 - i}", f"10.200.{i}.2") for i in (3, 2, 1, 0))), "")
    topology = discover([host(1), other])
    assert [each.address for each in topology.nodes[1].nics] == [f"10.200.{i}.2" for i in range(4)]


def test_each_rank_gets_the_nic_nearest_to_it() -> None:
    root = "/sys/devices/pci0000:00"
    nics = (
        nic("eth0", "10.0.0.1", bus=f"{root}/0000:00:01.0/0000:01:00.0"),
        nic("eth1", "10.0.1.1", bus=f"{root}/0000:00:02.0/0000:02:00.0"),
    )
    far = [Sight("a", nics, "", bus=f"{root}/0000:00:0{3 - i}.0/0000:0{9 - i}:00.0") for i in (1, 2)]
    assert names(discover(far), 0) == ["eth1", "eth0"]
    cores = (nic("eth0", "10.0.0.1", numa=0), nic("eth1", "10.0.1.1", numa=1))
    assert names(discover([Sight("a", cores, "", numa=1), Sight("a", cores, "", numa=0)]), 0) == ["eth1", "eth0"]
    assert names(discover([Sight("a", cores, ""), Sight("a", cores, "")]), 0) == ["eth0", "eth1"]


def test_a_node_that_cannot_be_reached_by_anything_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"ranks \[1\] on host2 have no network interface .* lo 127\.0\.0\.1"):
        discover([host(1), host(2, nics=0)])
    assert names(discover([host(1, nics=0), host(1, nics=0)]), 0) == []


def test_names_sort_as_people_count() -> None:
    assert sorted(["nic10", "nic2", "eth0", "nic2b"], key=natural) == ["eth0", "nic2", "nic2b", "nic10"]


def test_hardware_is_read_where_sysfs_shows_the_same_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a network namespace of its own a process may see the sysfs of another one."""
    monkeypatch.setattr(sight, "SYSFS", tmp_path / "net")
    device = tmp_path / "pci0000:00" / "0000:03:00.0"
    device.mkdir(parents=True)
    (device / "numa_node").write_text("1\n")
    folder = tmp_path / "net" / "eth0"
    folder.mkdir(parents=True)
    (folder / "ifindex").write_text("7\n")
    (folder / "speed").write_text("25000\n")
    (folder / "device").symlink_to(device)
    assert sight.hardware("eth0", 7) == (25e9 / 8, str(device), 1, False)
    assert sight.hardware("eth0", 8) == sight.hardware("eth1", 7) == (0.0, "", -1, False)
    (folder / "speed").write_text("-1\n")  # a virtual one
    (folder / "bridge").mkdir()
    assert sight.hardware("eth0", 7) == (0.0, str(device), 1, True)


def test_a_gpu_in_use_says_where_the_rank_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "root" / "0000:9a:00.0"
    device.mkdir(parents=True)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "0000:9a:00.0").symlink_to(device)
    monkeypatch.setattr(sight, "PCI", tmp_path / "devices")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    places = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x9A, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", {3: places}.get)
    assert sight.location()["bus"] == str(device)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert sight.location()["bus"] == "", "nobody's CUDA is started for this"


def test_cores_of_one_numa_node_say_where_the_rank_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    monkeypatch.setattr(sight, "numa_of", {4: 1, 5: 1}.get)
    assert sight.location()["numa"] == 1
    monkeypatch.setattr(sight, "numa_of", {4: 1, 5: 0}.get)
    assert sight.location()["numa"] == -1


def test_the_way_to_an_address_is_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sight.address_towards("127.0.0.1") == "127.0.0.1"
    assert sight.is_local("127.0.0.1")
    assert not sight.is_local("192.0.2.199")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert sight.address_towards("elsewhere") == ""


def test_this_machine_has_a_loopback_and_an_identity() -> None:
    assert any(each.loopback and each.address == "127.0.0.1" and each.network == "127.0.0.0/8" for each in interfaces())
    assert identity() == identity() != ""
    assert identity().count("/") == 2
