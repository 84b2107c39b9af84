"""Reading a checkpoint into live tensors so that a fault, found however late, leaves them as they were.

Bytes are verified before they reach memory, but a fault in the last extent comes when all before it are in place. Therefore
the native reader keeps the old bytes of what it overwrites (`undo`), what took a detour is still in its temporaries, and
nothing counts until `place()` is called: on one rank when all has verified, on many when all has on every rank.

Where memory has no room for that, all is verified first and read again in portions. A fault that appears between the two
readings is the one case in which live tensors have changed, and the error says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .._native import core
from ..errors import CheckpointCorrupt, InvalidArgument
from ._boxes import Box
from ._opened import Fault, Opened, joined
from ._reads import Reads

__all__ = ["Pending", "Target", "read"]

RING_BYTES = 64 << 20  # memory that the reader streams files through
# Old bytes and temporaries may take this part of the memory that is free; whoever else runs wants some, too.
MEMORY_SHARE = 0.6


@dataclass(frozen=True)
class Target:
    """A live tensor to be filled from the stored tensor `name`, beginning at its element `offsets`; all of it if None.

    `box`, the offsets of a stored box, says that only that one has a part in it.
    """

    name: str
    tensor: torch.Tensor
    offsets: tuple[int, ...] | None = None
    box: tuple[int, ...] | None = None


class Pending:
    """What `read` has done: call place() to keep it, or rollback()."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.bytes = 0
        self._restoration: Any = None
        self._reads = Reads()
        self._portions: Iterator[int] = iter(())
        self._finish: Callable[[], list[Fault]] = list

    def rollback(self) -> None:
        """The live tensors are what they were before, if they were to be undone.

        Raises CheckpointCorrupt where they cannot: memory was too small to keep them, and what had verified did not again.
        """
        restoration, self._restoration = self._restoration, None
        if restoration is None or restoration.undo == "none":
            return
        try:
            restoration.rollback()
        except InvalidArgument as error:
            faults = "; ".join(map(str, self.faults[:3]))
            raise CheckpointCorrupt(
                f"{faults}; it had verified before, and live tensors have changed since ({error})"
            ) from None

    def place(self) -> None:
        """The live tensors are what the checkpoint holds.

        Raises CheckpointCorrupt where what was only verified so far does not verify again as it is copied.
        """
        for fault in self._finish():
            raise CheckpointCorrupt(f"{fault}, and live tensors have changed since")
        self._reads.place()
        self.bytes += sum(self._portions)
        if self._restoration is not None:
            self._restoration.forget()
            self._restoration = None


def _available_bytes() -> int:
    with open("/proc/meminfo") as text:
        for line in text:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _check(opened: Opened, target: Target, convert: bool) -> None:
    tensor = opened.manifest.tensors.get(target.name)
    if tensor is None:
        raise InvalidArgument(f"{opened.path} holds no tensor {target.name!r}; it has {len(opened.manifest.tensors)} others")
    shape, whole = tuple(target.tensor.shape), Box((0,) * len(tensor.shape), tensor.shape)
    if target.offsets is None:
        if shape != tensor.shape:
            raise InvalidArgument(f"{target.name!r} is stored with shape {list(tensor.shape)}, the live one has {list(shape)}")
    else:
        box = Box(tuple(target.offsets), shape)
        fits = len(box.offsets) == len(shape) == len(tensor.shape) and (not box.elements or whole.intersect(box) == box)
        if not fits:
            raise InvalidArgument(f"{target.name!r} is stored with shape {list(tensor.shape)}; the box {box} is not in it")
    stored = opened.dtype(target.name)
    if target.tensor.dtype != stored and not convert:
        raise InvalidArgument(f"{target.name!r} is stored as {stored}, the live one is {target.tensor.dtype}")


def _want(opened: Opened, reads: Reads, target: Target) -> None:
    offsets = (0,) * target.tensor.dim() if target.offsets is None else target.offsets
    reads.want(target.name, target.tensor, offsets, opened.stored(target.name, target.box), opened.dtype(target.name))


def _run(opened: Opened, reads: Reads, ring_bytes: int, undo: bool, hold: bool) -> tuple[Any, Callable[[], list[Fault]]]:
    """Reads the pieces of `reads`: what the native reader gives, and a call for its faults with the names of tensors."""
    files = sorted({piece[0] for piece in reads.pieces})
    place = {file: index for index, file in enumerate(files)}
    pieces = [(place[file], offset, size, address) for file, offset, size, address in reads.pieces]
    specs = [opened.file_spec(file) for file in files]
    restoration = core.verified_read(specs, pieces, ring_bytes, opened.manifest.checksum, undo, hold)

    def faults() -> list[Fault]:
        return [opened.fault(files[file], begin, end, what) for file, begin, end, what in joined(restoration.faults)]

    return restoration, faults


def read(
    opened: Opened,
    targets: Sequence[Target],
    *,
    convert: bool = False,
    ring_bytes: int = RING_BYTES,
    undo: bool = True,
    alone: bool = True,
    free_bytes: int | None = None,
) -> Pending:
    """Reads and verifies; returns what is left to decide.

    Args:
        convert: a target may have another dtype than what is stored.
        undo: rollback() shall be possible after all has been read.
        alone: no other rank's verdict is waited for, so rollback() will be called only if there are faults here.
        free_bytes: memory for old bytes and temporaries; None: a part of what the system has.

    Raises:
        InvalidArgument: a target that this checkpoint does not fit, by name; nothing was read.
        CheckpointCorrupt: a header that does not agree with the manifest; nothing was read.
    """
    for target in targets:
        _check(opened, target, convert)
    if free_bytes is None:
        free_bytes = int(_available_bytes() * MEMORY_SHARE)
    pending = Pending()
    host = sum(target.tensor.nbytes for target in targets if target.tensor.device.type == "cpu")
    elsewhere = sum(target.tensor.nbytes for target in targets) - host
    if elsewhere + (host if undo and not alone else 0) > free_bytes:
        files = {box.file for target in targets for box in opened.manifest.tensors[target.name].boxes}
        pending.faults = [fault for file in sorted(files) for fault in verify_file(opened, file)]
        pending._portions = _portions(opened, targets, free_bytes, ring_bytes)
        return pending
    for target in targets:
        _want(opened, pending._reads, target)
    # Where the verdicts of others are waited for, what the native reader has only verified must not be copied before them.
    restoration, faults = _run(opened, pending._reads, ring_bytes, undo, hold=undo and not alone)
    pending._restoration, pending.faults, pending.bytes = restoration, faults(), restoration.bytes

    def finish() -> list[Fault]:
        restoration.finish()
        return faults()

    pending._finish = finish
    return pending


def _portions(opened: Opened, targets: Sequence[Target], free_bytes: int, ring_bytes: int) -> Iterator[int]:
    """Fills targets whose files have verified before, as many at a time as memory has room for; yields the bytes of each."""
    waiting = list(targets)
    while waiting:
        reads = Reads()
        while waiting and (not reads.pieces or reads.detour_bytes + waiting[0].tensor.nbytes <= free_bytes):
            _want(opened, reads, waiting.pop(0))
        restoration, faults = _run(opened, reads, ring_bytes, undo=False, hold=False)
        for fault in faults():
            raise CheckpointCorrupt(f"{opened.path}: {fault}; it verified a moment ago, and live tensors have changed since")
        reads.place()
        yield restoration.bytes


def verify_file(opened: Opened, index: int) -> list[Fault]:
    """Reads a whole file and compares all of it with the manifest."""
    faults = []
    try:
        opened.header(index)
    except CheckpointCorrupt as error:
        name = opened.manifest.files[index].name
        faults.append(Fault(name, str(error).removeprefix(f"{opened.path / name}: ")))
    found = core.verify_files([opened.file_spec(index)], opened.manifest.checksum)
    return faults + [opened.fault(index, begin, end, what) for _, begin, end, what in joined(found)]
