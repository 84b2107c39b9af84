"""The network interfaces of this machine, or of the network namespace that the process lives in, and where they sit.

Read from the kernel by the calls that see the process's own namespace (ioctl, /proc/net); sysfs may show another one, so that
what it says (rate, bus, NUMA node) counts only where it names the same interface index.
"""

import ipaddress
import os
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Interface", "address_towards", "identity", "interfaces", "is_local", "location"]

SYSFS, PCI = Path("/sys/class/net"), Path("/sys/bus/pci/devices")
# linux/sockios.h and linux/if.h
SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK = 0x8913, 0x8915, 0x891B
IFF_UP, IFF_LOOPBACK, IFF_POINTOPOINT, IFF_RUNNING = 0x1, 0x8, 0x10, 0x40
GLOBAL_SCOPE = "00"  # of an IPv6 address in /proc/net/if_inet6


@dataclass(frozen=True)
class Interface:
    """One interface that has an address."""

    name: str
    address: str
    network: str  # "10.200.0.0/24"
    up: bool  # administratively, and with a carrier
    loopback: bool
    tunnel: bool  # point to point: the far end is no network of peers
    bridge: bool
    rate: float  # bytes/s that its link was negotiated for; 0: not known
    bus: str  # its place among the PCI devices, as sysfs writes it; "" for virtual ones
    numa: int  # its NUMA node; -1: not known


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts nic2 before nic10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def interfaces() -> list[Interface]:
    """Those with an address, in the natural order of their names."""
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:

        def ask(request: int, name: str) -> bytes:
            return fcntl.ioctl(probe, request, struct.pack("256s", name.encode()[:15]))

        for index, name in sorted(socket.if_nameindex(), key=lambda pair: natural(pair[1])):
            try:
                flags = struct.unpack_from("H", ask(SIOCGIFFLAGS, name), 16)[0]
            except OSError:  # gone since it was listed
                continue
            try:
                address = socket.inet_ntoa(ask(SIOCGIFADDR, name)[20:24])
                mask = socket.inet_ntoa(ask(SIOCGIFNETMASK, name)[20:24])
                network = str(ipaddress.ip_network(f"{address}/{mask}", strict=False))
            except OSError:  # no IPv4 address
                address, network = ipv6_of(name)
            if not address:
                continue
            rate, bus, numa, bridge = hardware(name, index)
            found.append(
                Interface(
                    name=name,
                    address=address,
                    network=network,
                    up=flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
                    loopback=bool(flags & IFF_LOOPBACK),
                    tunnel=bool(flags & IFF_POINTOPOINT),
                    bridge=bridge,
                    rate=rate,
                    bus=bus,
                    numa=numa,
                )
            )
    return found


def ipv6_of(name: str) -> tuple[str, str]:
    """The first global address of an interface and its network; empty strings where it has none."""
    for line in read(Path("/proc/net/if_inet6")).splitlines():
        digits, _, prefix, scope, _, device = line.split()
        if device == name and scope == GLOBAL_SCOPE:
            address = ipaddress.ip_address(bytes.fromhex(digits))
            return str(address), str(ipaddress.ip_network(f"{address}/{int(prefix, 16)}", strict=False))
    return "", ""


def hardware(name: str, index: int) -> tuple[float, str, int, bool]:
    """Rate, place on the bus, NUMA node, and whether it is a bridge, from sysfs where that shows this very interface."""
    folder = SYSFS / name
    if read(folder / "ifindex").strip() != str(index):
        return 0.0, "", -1, False
    speed = integer(read(folder / "speed"), -1)
    device = folder / "device"
    bus = os.path.realpath(device) if device.exists() else ""
    numa = integer(read(device / "numa_node"), -1)
    return max(speed, 0) * 1e6 / 8, bus, numa, (folder / "bridge").is_dir()


def identity() -> str:
    """Equal for two processes exactly if they share a machine and its network: host name, boot, network namespace."""
    boot = read(Path("/proc/sys/kernel/random/boot_id")).strip()
    try:
        namespace = str(os.stat("/proc/self/ns/net").st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


def location() -> dict[str, object]:
    """Where this process computes: the bus of its GPU if it has one in use, and its NUMA node if its cores lie in one."""
    import torch

    bus = ""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        properties: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
        if hasattr(properties, "pci_bus_id"):
            name = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
            path = PCI / name
            bus = os.path.realpath(path) if path.exists() else ""
    nodes = {node for core in os.sched_getaffinity(0) if (node := numa_of(core)) >= 0}
    return {"bus": bus, "numa": nodes.pop() if len(nodes) == 1 else -1}


def numa_of(core: int) -> int:
    folder = Path(f"/sys/devices/system/cpu/cpu{core}")
    return next((int(path.name[4:]) for path in folder.glob("node[0-9]*")), -1)


def address_towards(host: str) -> str:
    """The address that this machine would send from to reach `host`; "" where it has no way there, or no such name."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # of a datagram socket: nothing is sent
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def is_local(address: str) -> bool:
    """Whether sockets of this process may be bound to the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def integer(text: str, otherwise: int) -> int:
    try:
        return int(text)
    except ValueError:
        return otherwise


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # absent, or the link is down (EINVAL for its speed)
        return ""
