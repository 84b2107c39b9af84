"""The span table: which bytes of which memory make this rank's file, in which order. Built once, verified at every save.

Between two saves hardly anything moves, so a save costs one walk over the state, a comparison of identities, addresses and
shapes with the table, and one call that copies what is volatile; only where something differs is the table built anew.

Order of capture, and of the file: the fence groups as the optimizers take them - a parameter, then its moments -, then what no
optimizer owns, then one block of all that was copied in save(), sorted by element size so that each tensor is aligned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from . import _devices
from ._devices import HOST, Fetched, Taking
from ._items import LAZY, STAGED, VOLATILE, Item, dtensor_class, make_item, spans, tensors_in
from ._layout import Agreement, part
from ._shard import HeaderTemplate, ShardTensor
from ._state import kind_of, module_metadata, take
from ._tree import Leaf, path_text, unique

LARGEST_ELEMENT = 8  # bytes
SAMPLES = 16  # elements of a shared tensor that every holder takes at each save, to see whether they are still the same


@dataclass
class Gate:
    """The fence groups that an optimizer's step must wait for: `first` at once, groups[j] before its j-th parameter group."""

    first: set[int] = field(default_factory=set)
    groups: list[set[int]] = field(default_factory=list)

    @property
    def all(self) -> set[int]:
        """Every group that this optimizer writes to."""
        return self.first.union(*self.groups)


@dataclass
class Place:
    """This rank among those that save together; `rank_of` turns torch.distributed's number of a rank into ours."""

    rank: int = 0
    rank_of: Callable[[int], int] = lambda rank: rank
    # Called with the items whose holders are not known, at the first save of a job of several ranks.
    agree: Callable[[Sequence[Item]], Agreement] | None = None


class Table:
    """See the module.

    Attributes:
        names: of the leaves, in order; tied tensors have the name of the first.
        items: every tensor once.
        addresses, sizes, groups, devices: the spans of the file behind its header.
        eager: indices of the spans whose memory, on a device, the engine copies as it is when the capture begins.
        guarded: per fence group its lazy tensors.
        gates: per optimizer.
        rest: fence groups that no optimizer owns.
        eager_bytes: memory that the copies of one save take.
    """

    def __init__(self, objects: Mapping[str, Any], leaves: Sequence[Leaf], place: Place, uid_bytes: int) -> None:
        self.rank = place.rank
        self.objects = objects
        self.leaves = [leaf.tensor for leaf in leaves]
        self.kinds = {name: kind_of(thing) for name, thing in objects.items()}
        self.metadata = {name: module_metadata(take(thing)) for name, thing in objects.items() if self.kinds[name] == "model"}
        self._make_items(leaves, place)
        self._assign_groups()
        self._share(place)
        self._lay_out(uid_bytes)
        self._remember()

    # Building ---------------------------------------------------------------------------------------------------------------

    def _make_items(self, leaves: Sequence[Leaf], place: Place) -> None:
        self.items: list[Item] = []
        self.names: list[str] = []
        self.item_of_leaf: list[Item] = []
        taken: set[str] = set()
        at: dict[Any, Item] = {}
        for index, leaf in enumerate(leaves):
            own = unique(path_text(leaf.path), taken.__contains__)
            taken.add(own)
            root = _root(leaf)
            item = make_item(
                own,
                index,
                leaf.tensor,
                parameter=isinstance(leaf.tensor, torch.nn.Parameter),
                kind=self.kinds.get(root, "object"),
                rank=place.rank,
                rank_of=place.rank_of,
            )
            item.private = root not in self.kinds  # generators
            item = at.setdefault(_memory(item), item)
            if item.leaf == index:
                self.items.append(item)
            self.names.append(item.name)
            self.item_of_leaf.append(item)

    def _assign_groups(self) -> None:
        by_id = {id(tensor): item for tensor, item in zip(self.leaves, self.item_of_leaf, strict=True)}
        self.order: list[Item] = []
        self.owner: dict[str, str] = {}  # name of an optimizer's tensor -> of its parameter
        self.gates: dict[str, Gate] = {}
        self.membership = self._membership()
        groups = 0

        def assign(item: Item, group: int) -> set[int]:
            if item.kind != LAZY:
                return set()
            if item.group < 0:
                item.group = group
                self.order.append(item)
            return {item.group}

        for name, thing in self.objects.items():
            if self.kinds[name] != "optimizer":
                continue
            gate = self.gates[name] = Gate()
            for group in thing.param_groups:
                members: set[int] = set()
                for parameter in group["params"]:
                    item = by_id.get(id(parameter))
                    if item is not None:
                        members |= assign(item, groups)
                    for tensor in tensors_in(thing.state.get(parameter)):
                        moment = by_id.get(id(tensor))
                        if moment is not None:
                            members |= assign(moment, groups)
                            if item is not None:
                                self.owner[moment.name] = item.name
                gate.groups.append(members)
                groups += 1
            for item in self.items:
                if _root_of_name(item.name) == name and item.kind == LAZY and item.group < 0:
                    gate.first |= assign(item, groups)
            groups += 1
        self.rest = groups
        for item in self.items:
            assign(item, groups)

    def _share(self, place: Place) -> None:
        shared = [item for item in self.items if item.plain and item.kind != VOLATILE]
        if place.agree is not None:
            agreement = place.agree(shared)
            for name, owner in self.owner.items():
                agreement.same_as(name, owner)
            for item in shared:
                item.private = item.name not in agreement.holders
                item.holders = agreement.holders.get(item.name, (place.rank,))
        for item in self.items:
            rows = item.local.shape[0] if item.local.dim() else 1
            if item.kind == VOLATILE and item.plain:
                item.rows = (0, rows)
            elif item.holders and item.local.numel():
                item.rows = part(item.name, rows, item.local.nbytes, item.holders, place.rank)
            elif item.shape and 0 in item.shape and item.holders and item.holders[0] == place.rank and not any(item.offsets):
                item.rows = (0, rows)  # an empty tensor is in the file of one of its holders

    def _lay_out(self, uid_bytes: int) -> None:
        self.written = [item for item in self.order if item.rows is not None]
        self.addresses: list[int] = []
        self.sizes: list[int] = []
        self.groups: list[int] = []
        self.devices: list[int] = []
        self.eager: list[int] = []
        self._eager_items: list[Item] = []
        self._eager_sources: list[torch.Tensor] = []
        self._volatile_places: list[tuple[bool, int]] = []  # of each volatile item: on a device; its bytes
        self.span_names: list[str] = []
        for item in self.written:
            number = _devices.number_of(item.local)
            assert number is not None  # else it is not read in place
            for address, size in spans(item.written):
                self._add_span(address, size, item.group, item.name, number)
        self._copied: list[tuple[int, torch.Tensor | None, torch.Tensor]] = []  # leaf, source unless volatile, destination
        self._staged_copies = self._copy_block(STAGED)
        self._volatile_copies = self._copy_block(VOLATILE)
        self.eager_bytes = self._staged_copies.nbytes + self._volatile_copies.nbytes
        self.header = HeaderTemplate(
            [ShardTensor(item.name, item.dtype, tuple(item.written.shape)) for item in self.written],
            self.rank,
            {item.name: item.written_offsets for item in self.written if tuple(item.written.shape) != item.shape},
            uid_bytes,
        )

    def _add_span(self, address: int, size: int, group: int, name: str, device: int = HOST) -> None:
        self.addresses.append(address)
        self.sizes.append(size)
        self.groups.append(group)
        self.devices.append(device)
        self.span_names.append(name)

    def _copy_block(self, kind: str) -> torch.Tensor:
        """Memory of the host for the copies of all items of a kind; what is volatile on a device is copied by the engine.

        All are sorted together, so that each begins in the file at a multiple of its element size.
        """
        items = [item for item in self.items if item.kind == kind and item.rows is not None]
        items.sort(key=lambda item: -item.local.itemsize)  # stable
        on_device = {item.name for item in items if kind == VOLATILE and _devices.number_of(item.local) not in (None, HOST)}
        block = torch.empty(sum(item.written.nbytes for item in items if item.name not in on_device), dtype=torch.uint8)
        begin = end = 0  # of what lies in the block and in no span yet

        def close_span() -> None:
            if end > begin:
                self._add_span(block.data_ptr() + begin, end - begin, self.rest + 1, kind)

        for item in items:
            source = item.written
            if kind == VOLATILE:
                self._volatile_places.append((item.name in on_device, source.nbytes))
            if item.name not in on_device:
                view = block[end : end + source.nbytes].view(source.dtype).view(source.shape)
                self._copied.append((item.leaf, None if kind == VOLATILE else source, view))
                end += source.nbytes
            elif source.nbytes:
                close_span()
                begin = end
                self.eager.append(len(self.addresses))
                self._eager_items.append(item)
                number = _devices.number_of(source)
                self._add_span(source.data_ptr(), source.nbytes, self.rest + 1, item.name, HOST if number is None else number)
        close_span()
        self.written += items
        return block

    def _remember(self) -> None:
        """What verification compares."""
        lazy = [item for item in self.order if item.kind == LAZY]
        self._lazy = [item.local for item in lazy]
        self._where = [_where(tensor) for tensor in self._lazy]
        self._fresh = [item.kind == VOLATILE for item in self.item_of_leaf]
        still = [item for item in self.items if item.kind == STAGED]
        self._staged = [item.local for item in still]
        self._staged_where = [_where(tensor) for tensor in self._staged]
        kind = dtensor_class()
        self._wrapped = [
            (tensor, item.local)
            for tensor, item in zip(self.leaves, self.item_of_leaf, strict=True)
            if isinstance(tensor, kind) and item.kind != VOLATILE
        ]
        self.guarded: list[list[torch.Tensor]] = [[] for _ in range(self.rest + 1)]
        self.guarded_names: list[list[str]] = [[] for _ in range(self.rest + 1)]
        for item in lazy:
            # In-place maths on a DTensor raises the version of the wrapper, maths on its shard that of the shard.
            for tensor in {id(t): t for t in (item.local, self.leaves[item.leaf])}.values():
                self.guarded[item.group].append(tensor)
                self.guarded_names[item.group].append(item.name)
        self.captured = set(self.groups)  # groups that the engine has spans of
        shared = [item for item in lazy if len(item.holders) > 1 and item.local.is_contiguous() and item.local.numel()]
        self._sampled: list[torch.Tensor] = []
        self._sample_views: list[torch.Tensor] = []
        self._sample_blocks: list[torch.Tensor] = []  # one on each device
        self.sample_ranges: list[tuple[str, int, int]] = []  # what is sampled, bytes [begin, end) of what fetch() gives
        for device, items in itertools.groupby(sorted(shared, key=_device), _device):
            group = list(items)
            views = [item.local.detach().view(-1) for item in group]
            views = [view[:: max(1, view.numel() // SAMPLES)][:SAMPLES] for view in views]
            block = torch.empty(len(views) * SAMPLES * LARGEST_ELEMENT, dtype=torch.uint8, device=device)
            before = sum(other.nbytes for other in self._sample_blocks)
            for number, (item, view) in enumerate(zip(group, views, strict=True)):
                begin = number * SAMPLES * LARGEST_ELEMENT
                self._sample_views.append(block[begin : begin + view.nbytes].view(view.dtype))
                sampled = item.name if item.plain else f"{item.name} at {list(item.offsets)}"  # replicas of one shard
                self.sample_ranges.append((sampled, before + begin, before + begin + view.nbytes))
            self._sampled += views
            self._sample_blocks.append(block)

    def _membership(self) -> list[list[list[int]]]:
        return [
            [list(map(id, group["params"])) for group in thing.param_groups]
            for name, thing in self.objects.items()
            if self.kinds[name] == "optimizer"
        ]

    # Each save --------------------------------------------------------------------------------------------------------------

    def matches(self, leaves: Sequence[Leaf]) -> bool:
        """Whether the table still describes the state that a walk has just found."""
        if len(leaves) != len(self.leaves):
            return False
        for leaf, known, fresh in zip(leaves, self.leaves, self._fresh, strict=True):
            tensor = leaf.tensor
            if tensor is not known and not (
                fresh
                and tensor.shape == known.shape
                and tensor.dtype == known.dtype
                and type(tensor) is type(known)
                and tensor.device == known.device
            ):
                return False
        return (
            [_where(tensor) for tensor in self._lazy] == self._where
            and [_where(tensor) for tensor in self._staged] == self._staged_where
            and all(tensor._local_tensor is local for tensor, local in self._wrapped)
            and self._membership() == self.membership
        )

    def copy_now(self, leaves: Sequence[Leaf]) -> None:
        """Copies what is volatile or staged, and finds what is volatile on a device: its memory may be another at each save."""
        sources = [_local(leaves[index]) if source is None else source for index, source, _ in self._copied]
        with torch.no_grad():
            if sources:
                torch._foreach_copy_([destination for _, _, destination in self._copied], sources)
        self._eager_sources = [
            item.written_of(_local(leaves[item.leaf])).resolve_conj().resolve_neg().contiguous() for item in self._eager_items
        ]
        for span, tensor in zip(self.eager, self._eager_sources, strict=True):
            self.addresses[span] = tensor.data_ptr()

    def spans(self) -> tuple[Any, ...]:
        """What the engine is told of the file behind its header, and of the streams that have written what lies on devices."""
        return self.addresses, self.sizes, self.groups, self.devices, self.eager, _devices.producers(self.devices)

    def fetch(self) -> Taking:
        """What other ranks' state is compared with, as it is after copy_now. Devices are not waited for."""
        if self._sampled:
            with torch.no_grad():
                torch._foreach_copy_(self._sample_views, self._sampled)
        on_devices = itertools.groupby(self._eager_sources, _device_of)
        return Taking(
            Fetched([self._volatile_copies]),
            [Fetched(list(tensors)) for _, tensors in on_devices],
            [Fetched([block]) for block in self._sample_blocks],
            self._volatile_places,
        )

    def versions(self) -> list[list[int]]:
        """Per fence group the version counters; an inference tensor has none, and counts as 0."""
        return [[0 if tensor.is_inference() else tensor._version for tensor in group] for group in self.guarded]

    def hold(self) -> list[Any]:
        """References that keep the memory of the lazy tensors, whatever becomes of the tensors."""
        return [tensor.untyped_storage() for tensor in self._lazy]


def _local(leaf: Leaf) -> torch.Tensor:
    tensor: Any = leaf.tensor
    return tensor._local_tensor if isinstance(tensor, dtensor_class()) else tensor


def _device_of(tensor: torch.Tensor) -> str:
    return str(tensor.device)


def _device(item: Item) -> str:
    return _device_of(item.local)


def _where(tensor: torch.Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _memory(item: Item) -> Any:
    """Equal for two leaves that are one tensor: tied weights, or one object under two paths."""
    local = item.local
    if not local.numel():
        return id(local), item.shape
    return local.device, local.data_ptr(), local.dtype, item.shape, local.shape, local.stride(), item.offsets


def _root(leaf: Leaf) -> str:
    path = leaf.path
    while path[0] is not None:
        path = path[0]
    return str(path[1])


def _root_of_name(name: str) -> str:
    return name.partition(".")[0]
