"""From what each rank sees of its machine to one topology: nodes told apart, NICs chosen, ordered and matched.

node       ranks of one identity (host name, boot, network namespace)
NIC        an interface with an address that is up and not loopback. Left out: tunnels and bridges where others remain;
           addresses that two nodes claim (nobody can reach those); the interface towards MASTER_ADDR, if it is of another
           kind than the rest and slower than they are together: then it is a network of its own, for control. One that is
           down stays if another node has one in the same network that is up: it may come back.
its place  the i-th rank of a node uses its i-th NIC, so each rank in turn takes the NIC nearest to its GPU or cores that is
           left; where nothing is known of distances, the first by name. Other nodes follow the order of the first one, by
           network, so that a rail joins NICs that can reach each other.
"""

import ipaddress
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidArgument
from .interfaces import Interface
from .topology import Nic, Node, Topology

__all__ = ["Sight", "discover"]


@dataclass(frozen=True)
class Sight:
    """What one rank sees of its machine."""

    identity: str
    interfaces: tuple[Interface, ...]
    towards: str  # its address towards MASTER_ADDR; "": not known
    bus: str = ""  # of its GPU
    numa: int = -1  # of its cores

    @property
    def host(self) -> str:
        """The name that people know the machine by."""
        return self.identity.partition("/")[0]


def discover(sights: Sequence[Sight]) -> Topology:
    """The topology of ranks that see this, `sights` by rank. Raises InvalidArgument where a node has no NIC to reach others."""
    members: dict[str, list[int]] = {}
    for rank, sight in enumerate(sights):
        members.setdefault(sight.identity, []).append(rank)
    groups = list(members.values())
    nics = chosen([sights[ranks[0]] for ranks in groups])
    order: list[Interface] = []
    nodes = []
    for index, ranks in enumerate(groups):
        if len(groups) > 1 and not nics[index]:
            raise InvalidArgument(
                f"ranks {ranks} on {sights[ranks[0]].host} have no network interface to reach other nodes by; there are: "
                + (
                    ", ".join(
                        f"{each.name} {each.address}{'' if each.up else ' (down)'}" for each in sights[ranks[0]].interfaces
                    )
                    or "none"
                )
            )
        placed = nearest_first(nics[index], [sights[rank] for rank in ranks])
        placed = matched(placed, order) if index else placed
        order = order or placed
        towards = sights[ranks[0]].towards
        control = towards if len(groups) == 1 or not is_loopback(towards) else ""
        nodes.append(
            Node(
                tuple(ranks),
                tuple(Nic(each.name, each.address, each.rate) for each in placed),
                control or (placed[0].address if placed else ""),
            )
        )
    return Topology(tuple(nodes))


def chosen(sights: Sequence[Sight]) -> list[list[Interface]]:
    """Per node the interfaces that become its NICs, in the order in which the node lists them."""
    claims = Counter(address for sight in sights for address in {each.address for each in sight.interfaces})
    outside = [[each for each in sight.interfaces if not each.loopback and claims[each.address] == 1] for sight in sights]
    plain = [[each for each in own if not each.tunnel and not each.bridge] or own for own in outside]
    networks = Counter(network for own in plain for network in {each.network for each in own})
    present = [[each for each in own if each.up or networks[each.network] > 1] for own in plain]
    return [without_control(own, sight.towards) for own, sight in zip(present, sights, strict=True)]


def without_control(own: list[Interface], towards: str) -> list[Interface]:
    """Leaves out the interface that MASTER_ADDR is reached by, if the others look like the network for data."""
    control = [each for each in own if each.address == towards]
    others = [each for each in own if each.address != towards]
    if not control or not others:
        return own
    ours = control[0]
    if any(kind(each) == kind(ours) for each in others):
        return own
    return own if sum(each.rate for each in others) < ours.rate else others


def kind(interface: Interface) -> tuple[str, float]:
    return re.sub(r"\d+", "", interface.name), interface.rate


def nearest_first(nics: Sequence[Interface], ranks: Sequence[Sight]) -> list[Interface]:
    """The NICs in an order in which the i-th is the i-th rank's; NICs beyond the ranks follow."""
    left, placed = list(nics), []
    for sight in ranks:
        if not left:
            break
        best = min(left, key=lambda nic: distance(nic, sight))  # the first of equals
        left.remove(best)
        placed.append(best)
    return placed + left


def distance(nic: Interface, sight: Sight) -> tuple[int, int]:
    """Fewer shared bridges of the PCI tree is farther; then another NUMA node. Unknown places are all alike."""
    shared = len(os.path.commonpath([nic.bus, sight.bus]).split("/")) if nic.bus and sight.bus else 0
    remote = int(nic.numa >= 0 and sight.numa >= 0 and nic.numa != sight.numa)
    return -shared, remote


def matched(nics: Sequence[Interface], order: Sequence[Interface]) -> list[Interface]:
    """`nics` so that each stands where `order` has one of its network, as far as networks tell them apart."""
    networks = Counter(each.network for each in order)
    if any(count > 1 for count in networks.values()) or any(each.network not in networks for each in nics):
        return list(nics)
    place = {each.network: index for index, each in enumerate(order)}
    return sorted(nics, key=lambda each: place[each.network])


def is_loopback(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address.partition("%")[0]).is_loopback
