"""Checkpoints on disk: which there are, whether they are whole, and the newest that is, in live tensors.

A directory that cannot be trusted is read like this: manifests by falling sequence number, since steps repeat after a
fallback, clocks err and `latest` is a hint; of the newest the sizes, headers and every byte that is wanted; on the first fault
the one before it. What is skipped is said, with its reason, and where checkpoints exist none of which verifies, that is an
error: a training run that silently begins at step 0 has lost what the checkpoints were kept for.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..errors import CheckpointCorrupt, HetspError, InvalidArgument
from ._apply import decode_parts
from ._export import export
from ._manifest import Manifest
from ._opened import MANIFEST, Fault, Opened
from ._restore import RING_BYTES, Pending, Target, read, verify_file
from ._tree import decode

__all__ = [
    "MANIFEST",
    "CheckpointInfo",
    "Fault",
    "Restored",
    "Skipped",
    "Target",
    "export",
    "list_checkpoints",
    "read_values",
    "restore_newest",
    "verify_checkpoint",
]

logger = logging.getLogger("hetsp_ext.checkpoint")


@dataclass(frozen=True)
class CheckpointInfo:
    """A committed checkpoint, as far as its manifest tells; where that cannot be read, `fault` says why."""

    path: Path
    step: int | None = None
    sequence: int | None = None
    world: int | None = None
    bytes: int | None = None
    uid: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was passed over, and why."""

    path: Path
    step: int | None
    reason: str


@dataclass(frozen=True)
class Restored:
    """What restore_newest did."""

    path: Path
    step: int
    manifest: Manifest = field(repr=False)
    skipped: tuple[Skipped, ...]
    bytes: int  # read by this rank
    seconds: float


def list_checkpoints(path: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """The committed checkpoints of a directory, the newest first; those whose manifest cannot be read come last.

    A directory that is itself a checkpoint is a list of one. No data is read: see verify_checkpoint.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        return [_describe(path)]
    if not path.is_dir():
        replaced = path.with_name(f".old-{path.name}")  # a save at this path died between its two renames
        return [_describe(replaced)] if (replaced / MANIFEST).exists() else []
    found = [_describe(entry) for entry in sorted(path.glob("step-*")) if entry.is_dir()]
    return newest_first(found)


def newest_first(found: Iterable[CheckpointInfo]) -> list[CheckpointInfo]:
    """By falling sequence number; those without come last, equal ones stay in order."""
    return sorted(found, key=lambda info: 0 if info.sequence is None else -1 - info.sequence)


def _describe(path: Path) -> CheckpointInfo:
    try:
        opened = Opened(path)
    except CheckpointCorrupt as error:
        return CheckpointInfo(path, fault=str(error))
    manifest = opened.manifest
    return CheckpointInfo(path, manifest.step, manifest.sequence, manifest.world, opened.bytes, manifest.uid)


def read_values(path: str | os.PathLike[str], name: str, rank: int = 0) -> Any:
    """The state of object `name` as rank `rank` of the saving job gave it to a LazyCheckpointer, without reading tensors.

    Raises:
        CheckpointCorrupt: the manifest of checkpoint `path` cannot be read.
        InvalidArgument: it holds no such rank or object, or one that is not of plain values alone.
    """
    manifest = Opened(path).manifest
    if not 0 <= rank < manifest.world:
        raise InvalidArgument(f"rank is {rank}; {path} was saved by {manifest.world}")
    try:
        return decode(decode_parts(manifest.tree(rank))["states"][name], {}, name)
    except (CheckpointCorrupt, KeyError):
        raise InvalidArgument(f"{path} holds no object {name!r} of plain values") from None


def verify_checkpoint(path: str | os.PathLike[str]) -> list[Fault]:
    """Reads all of one checkpoint and returns what is not as it was committed; nothing where it is whole."""
    try:
        opened = Opened(path)
    except CheckpointCorrupt as error:
        return [Fault(MANIFEST, str(error).removeprefix(str(Path(path) / MANIFEST)).lstrip(": "))]
    return [fault for index in range(len(opened.manifest.files)) for fault in verify_file(opened, index)]


class _Ranks:
    """What the ranks of a group tell each other; a program without torch.distributed is one rank."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.alone = group is None
        self.rank = 0 if self.alone else dist.get_rank(group)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank."""
        if self.alone:
            return [value]
        values = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(values, value, group=self.group)
        return values

    def first(self, function: Callable[[], Any]) -> Any:
        """What `function` gives on the first rank, or its error, on every rank."""
        outcome: tuple[Any, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                outcome = (function(), None)
            except Exception as raised:  # the other ranks wait for it
                outcome = (None, raised)
        value, error = self.gather(outcome)[0]
        if error is not None:
            raise error
        return value


def restore_newest(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    targets: Callable[[Manifest], Sequence[Target]],
    *,
    step: int | None = None,
    group: Any = None,
    ring_bytes: int = RING_BYTES,
    undo: bool = True,
) -> Restored | None:
    """Reads the newest checkpoint that verifies into live tensors; None where the directory holds none.

    Args:
        path: a directory of checkpoints, or one checkpoint; or several, of which of equal ones the first is tried first.
        targets: told the manifest of the checkpoint that is tried, gives the tensors to fill. Called again for each that
            is tried; CheckpointCorrupt raised in it counts as a fault, any other error ends the call.
        step: only a checkpoint of this step will do.
        group: process group over whose ranks verdicts are gathered; all restore the same checkpoint. All must see `path`.
        ring_bytes: memory that files are streamed through.
        undo: keep what is overwritten until all has verified, so that a fault leaves live tensors as they were.

    Raises:
        CheckpointCorrupt: there are checkpoints, and none verifies; each with its reason. Live tensors are as they were.
        InvalidArgument: no checkpoint of `step`, or live tensors that the checkpoint does not fit. They are as they were.
    """
    ranks, begin = _Ranks(group), time.perf_counter()
    skipped: list[Skipped] = []
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    where = " and ".join(map(str, paths))

    def choose() -> CheckpointInfo | None:
        # Listed anew each time: what a process that trains on has pruned meanwhile is gone, what it has added is there.
        # Where a manifest cannot be read its checkpoint may be the newest: it comes first, and is told as skipped.
        found = newest_first(info for level in paths for info in list_checkpoints(level))
        found.sort(key=lambda info: info.fault is None)
        if step is not None:
            steps = sorted({info.step for info in found if info.step is not None})
            found = [info for info in found if info.step in (step, None)]
            if not any(info.step == step for info in found) and not skipped:
                raise InvalidArgument(f"{where} holds no readable checkpoint of step {step}; it has {steps}")
        passed = {skip.path for skip in skipped}
        return next((info for info in found if info.path not in passed), None)

    while (info := ranks.first(choose)) is not None:
        pending, opened, verdict = Pending(), None, _Verdict(fault=info.fault)
        if verdict.fault is None:
            try:
                opened = Opened(info.path)
                if opened.manifest.uid != info.uid:
                    raise CheckpointCorrupt(f"{info.path}: is {opened.manifest.uid} here, {info.uid} on the first rank")
                pending = read(opened, targets(opened.manifest), ring_bytes=ring_bytes, undo=undo, alone=ranks.alone)
                verdict.fault = "; ".join(map(str, pending.faults[:3])) or None
            except CheckpointCorrupt as error:
                verdict.fault = str(error)
            except Exception as error:  # the other ranks must hear of it before it ends the call
                verdict.error = error
        verdicts = ranks.gather(verdict.told())
        failed = [(rank, text) for rank, (_, text) in enumerate(verdicts) if text is not None]
        faults = [(rank, text) for rank, (text, _) in enumerate(verdicts) if text is not None]
        if failed or faults:
            pending.rollback()
        if verdict.error is not None:
            raise verdict.error
        if failed:
            raise InvalidArgument(f"restoring {info.path} failed on rank {failed[0][0]}: {failed[0][1]}")
        if not faults:
            assert opened is not None
            pending.place()
            seconds = time.perf_counter() - begin
            return Restored(info.path, opened.manifest.step, opened.manifest, tuple(skipped), pending.bytes, seconds)
        reason = faults[0][1] if ranks.alone else f"rank {faults[0][0]}: {faults[0][1]}"
        skipped.append(Skipped(info.path, info.step, reason))
        if ranks.rank == 0:
            logger.warning("checkpoint %s skipped: %s", info.path, reason)
    if skipped:
        reasons = "".join(f"\n  {skip.path.name}: {skip.reason}" for skip in skipped)
        raise CheckpointCorrupt(f"none of the {len(skipped)} checkpoints in {where} verifies:{reasons}")
    return None


@dataclass
class _Verdict:
    """How one rank fared with one checkpoint."""

    fault: str | None = None
    error: Exception | None = None

    def told(self) -> tuple[str | None, str | None]:
        """As the other ranks are told: errors as text, since not all of them can be sent."""
        if self.error is None:
            return self.fault, None
        kind = "" if isinstance(self.error, HetspError) else f"{type(self.error).__name__}: "
        return self.fault, f"{kind}{self.error}"
