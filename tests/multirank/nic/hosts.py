"""Two hosts on one machine: network namespaces joined by rate-limited NICs, whose faults a test injects.

Host h has NICs nic0 .. nic{k-1} (10.200.i.{h+1}) and an unlimited control network mgmt (10.255.0.{h+1}). A NIC is a veth pair
with a token bucket on either end. Inside a host every address is reached over loopback, never over a limited NIC. Everything is
named by a random prefix and removed on leaving the `with` block, together with the processes that still live in it.

A bucket holds 4 ms of its rate: what passes for free after a pause, per NIC. Compare runs that spread the same bytes alike.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

HOSTS = (0, 1)
PACKET_SHARE = 1448 / 1514  # payload of a full TCP segment in an Ethernet frame of MTU 1500, as the token bucket counts it
TABLE = "add table inet hetsp; add chain inet hetsp arriving { type filter hook input priority 0; }"


class Unavailable(RuntimeError):
    """This machine cannot make such hosts; the message says what is missing."""


def _do(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def why_not() -> str | None:
    """What keeps this machine from making hosts, before anything is tried."""
    if platform.system() != "Linux":
        return f"network namespaces need Linux, this is {platform.system()}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc", "nft") if shutil.which(tool) is None]
    return f"{', '.join(missing)} not found: install iproute2 and nftables" if missing else None


class Hosts:
    """`with Hosts(nics=4, rate=400) as hosts`: rates in Mbit/s. Raises Unavailable where the machine cannot."""

    def __init__(self, nics: int = 4, rate: int = 400) -> None:
        self.nics, self.mbit = nics, rate
        self.prefix = f"hetsp{secrets.token_hex(3)}"
        self._port = 20000 + secrets.randbelow(10000)

    def name(self, host: int) -> str:
        return f"{self.prefix}h{host}"

    def namespace(self, host: int) -> str:
        return f"/run/netns/{self.name(host)}"

    def __enter__(self) -> Hosts:
        if reason := why_not():
            raise Unavailable(reason)
        try:
            self._make()
        except BaseException as error:
            self.remove()
            if isinstance(error, RuntimeError):
                raise Unavailable(str(error)) from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _make(self) -> None:
        for host in HOSTS:
            _do("ip", "netns", "add", self.name(host))
            _do("ip", "-n", self.name(host), "link", "set", "lo", "up")
        for device, subnet in [("mgmt", "10.255.0"), *((f"nic{nic}", f"10.200.{nic}") for nic in range(self.nics))]:
            ends = [["name", device, "netns", self.name(host)] for host in HOSTS]
            _do("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
            for host in HOSTS:
                _do("ip", "-n", self.name(host), "addr", "add", f"{subnet}.{host + 1}/24", "dev", device)
                _do("ip", "-n", self.name(host), "link", "set", device, "up")
        for nic in range(self.nics):
            self.rate(nic, self.mbit)

    def remove(self) -> None:
        """Ends what lives in the hosts, then removes them; NICs and limits go with them."""
        for host in HOSTS:
            if not os.path.exists(self.namespace(host)):
                continue
            for _ in range(100):
                pids = [int(pid) for pid in _do("ip", "netns", "pids", self.name(host)).split()]
                if not pids:
                    break
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)
            _do("ip", "netns", "del", self.name(host))

    def next_port(self) -> int:
        """A port that no earlier run on these hosts has used."""
        self._port += 1
        return self._port

    def topology(self, ranks_per_host: int = 4, nics: int | None = None) -> dict[str, Any]:
        """As HETSP_TOPOLOGY's file says it."""
        return {
            "nodes": [
                {
                    "ranks": [host * ranks_per_host + rank for rank in range(ranks_per_host)],
                    "nics": [{"name": f"nic{nic}", "address": f"10.200.{nic}.{host + 1}"} for nic in range(nics or self.nics)],
                    "control": f"10.255.0.{host + 1}",
                }
                for host in HOSTS
            ]
        }

    # Faults. A NIC that is down on one side has no carrier on the other, as a pulled cable.

    def link(self, host: int, nic: int, *, up: bool) -> None:
        _do("ip", "-n", self.name(host), "link", "set", f"nic{nic}", "up" if up else "down")

    def rate(self, nic: int, mbit: int) -> None:
        """Limits a NIC at both ends: a token bucket only limits what leaves."""
        burst = max(16384, mbit * 1_000_000 // 8 // 250)  # 1/HZ of the rate; a smaller bucket starves TCP
        for host in HOSTS:
            limit = ["tbf", "rate", f"{mbit}mbit", "burst", str(burst), "latency", "20ms"]
            _do("tc", "-n", self.name(host), "qdisc", "replace", "dev", f"nic{nic}", "root", *limit)

    def loss(self, host: int, nic: int, per_mille: int) -> None:
        """Drops that share of the packets which arrive at this host's NIC, at random."""
        self._drop(host, f"iifname nic{nic} numgen random mod 1000 < {per_mille} drop")

    def black_hole(self, host: int, nic: int) -> None:
        """Drops whatever arrives at this host's NIC: its carrier stays, no reset is ever seen."""
        self._drop(host, f"iifname nic{nic} drop")

    def _drop(self, host: int, rule: str) -> None:
        _do("ip", "netns", "exec", self.name(host), "nft", f"{TABLE}; add rule inet hetsp arriving {rule}")

    def heal(self) -> None:
        """Ends every fault."""
        for host in HOSTS:
            _do("ip", "netns", "exec", self.name(host), "nft", f"{TABLE}; delete table inet hetsp")
            for nic in range(self.nics):
                self.link(host, nic, up=True)
        for nic in range(self.nics):
            self.rate(nic, self.mbit)
