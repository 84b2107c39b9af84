"""torch.distributed.checkpoint's StorageWriter over the engine.

The protocol of dcp.save maps onto the commit of a checkpoint: `prepare_global_plan` begins it on the first rank, the return of
`write_data` is a rank's vote (its file is synced, its hashes are in the results), `finish` on the first rank, which torch calls
only if no rank raised, is the commit. Whatever fails before leaves the checkpoint that was at the path untouched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future
from torch.optim.optimizer import register_optimizer_step_pre_hook

from .._native import core
from ..errors import CheckpointError, CheckpointMutated, InvalidArgument
from . import _devices
from ._boxes import Box as Region
from ._boxes import tiling_fault
from ._dtypes import dtype_name
from ._manifest import Box, Extent, FileEntry, Manifest, TensorEntry
from ._planner_data import PlannerData
from ._saving import Saving, uid_of_saving
from ._shard import ShardTensor, build_header
from ._tree import unique
from ._window import SMALL_BYTES, Window

RING_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class _Written:
    """What a rank tells the first one of an item; `file` stands with the first item only."""

    uid: str
    key: str
    dtype: str
    sizes: tuple[int, ...]
    checksum: str
    file: FileEntry | None = None


class HetspStorageWriter(StorageWriter, AsyncStager):
    """Saves through the checkpoint engine: `dcp.save(state, storage_writer=HetspStorageWriter(path))`.

    Each rank writes one safetensors file, hashed while it is copied and synced; the directory appears at `path` whole, and
    where a checkpoint is there already, it changes places with the new one at one instant when that is durable.

    With `dcp.async_save` the writer is its own stager: it hands on the live tensors, and the next `step()` of any optimizer
    waits until they are copied. What is smaller than `small_bytes` is copied at once, since buffers change within a step.

    Args:
        path: where the checkpoint shall be; `checkpoint_id` of dcp.save replaces it.
        ring_bytes: memory that state is streamed through, per process.
        io: "auto", "io_uring", "direct" or "buffered".
        checksum: "auto", "xxh3-128" or "crc32c".
        small_bytes: tensors up to this size are copied in stage().
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ring_bytes: int = RING_BYTES,
        io: str = "auto",
        checksum: str = "auto",
        small_bytes: int = SMALL_BYTES,
    ) -> None:
        self.checkpoint_id: str | os.PathLike[str] = path
        self.stalled_seconds = 0.0
        self._options = {"ring_bytes": ring_bytes, "io": io, "checksum": checksum}
        self._small_bytes = small_bytes
        self._engine: Any = None
        self._saving: Saving | None = None
        self._window: Window | None = None
        self._hook: Any = None
        self._rank, self._world = 0, 1

    def __getstate__(self) -> Any:
        raise InvalidArgument("HetspStorageWriter cannot go to another process; allowed: AsyncCheckpointerType.THREAD")

    @property
    def path(self) -> Path:
        """Where the next checkpoint goes; links are followed, so that one stays what it is."""
        return Path(os.path.realpath(self.checkpoint_id))

    # What dcp.save calls, in order.

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A new save begins, to `checkpoint_id` if given."""
        if checkpoint_id is not None:
            self.checkpoint_id = checkpoint_id

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Local paths only: no "scheme://"."""
        return "://" not in os.fspath(checkpoint_id) and Path(checkpoint_id).name not in ("", "..")

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """All ranks: who am I."""
        if not kwargs.get("use_collectives", True):
            raise InvalidArgument("use_collectives=False makes every rank commit alone; allowed: True")
        if not self.validate_checkpoint_id(self.checkpoint_id):
            raise InvalidArgument(f"checkpoint_id {self.checkpoint_id!r} is no path of a directory")
        self._rank = kwargs.get("rank") or 0

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """All ranks: refuses what a checkpoint cannot hold, before anything is written."""
        for item in plan.items:
            if item.tensor_data is not None:
                dtype_name(item.tensor_data.properties.dtype, item.index.fqn)
        PlannerData.of_planner(frozenset(), plan.planner_data)
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """First rank: begins the save."""
        self._abandon()
        self._saving = Saving(self.path)
        self._finalizer = weakref.finalize(self, self._saving.abandon)
        self._world = len(plans)
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """All ranks: returns when this rank's file is on disk."""
        window = self._window if self._window is not None and not self._window.closed else None
        try:
            results = self._write(plan, planner, window) if plan.items else []
        except BaseException as error:
            if window is not None:
                window.close(error)
            raise
        if window is not None:
            window.close()
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """First rank: commits."""
        saving = self._saving
        if saving is None:
            raise CheckpointError("finish was called without a save under way")
        try:
            manifest = _manifest(saving, metadata, results, self._world, self._open_engine().checksum)
        except BaseException:
            self._abandon()
            raise
        self._saving = None
        self._finalizer.detach()
        saving.commit(manifest)

    def _abandon(self) -> None:
        """What is left of a save that some rank failed in."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            self._finalizer.detach()
            saving.abandon()

    # What dcp.async_save calls besides: this is an AsyncStager.

    _synchronize_after_execute = False

    def stage(self, state_dict: dict[str, Any]) -> Any:
        """Opens the window; a future of the live state, done when all of it is copied."""
        if self._window is not None:
            self._window.finished()
        if self._hook is None:
            myself = weakref.ref(self)  # a hook outlives whoever forgets to close

            def before_step(*_: Any) -> None:
                if (writer := myself()) is not None:
                    writer.fence()

            self._hook = register_optimizer_step_pre_hook(before_step)
            weakref.finalize(self, self._hook.remove)
        self._window = Window(state_dict, self._small_bytes)
        return self._window.future

    def fence(self) -> float:
        """Returns when the state given to the last async_save may change; seconds that took.

        The optimizers' hooks call it. Call it before whatever changes state without them: a captured graph's replay.
        """
        waited = self._window.wait() if self._window is not None else 0.0
        self.stalled_seconds += waited
        return waited

    def synchronize_staging(self) -> None:
        """The same, under the name that AsyncStager gives it."""
        self.fence()

    def close(self) -> None:
        """Waits for the save under way, and gives memory, threads and hooks back."""
        if self._window is not None:
            self._window.finished()
            self._window = None
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._abandon()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _open_engine(self) -> Any:
        if self._engine is None:
            self._engine = core.CheckpointEngine(**self._options)
        return self._engine

    def _write(self, plan: SavePlan, planner: SavePlanner, window: Window | None) -> list[WriteResult]:
        uid, name = uid_of_saving(self.path), f"rank-{self._rank:05d}.safetensors"
        engine, spans = self._open_engine(), _Spans()
        with window.devices() if window is not None else contextlib.nullcontext():
            for item in plan.items:
                spans.add(item, planner.resolve_data(item))
            header = build_header(spans.tensors, uid, self._rank, spans.offsets)
            part = self.path.with_name(f".part-{uid}")
            capture = engine.begin(
                str(part / name),
                header,
                spans.addresses,
                spans.sizes,
                [0] * len(spans.sizes),
                spans.devices,
                [],
                _devices.producers(spans.devices),
            )
        capture.wait_captured()
        changed = [spans.tensors[index].key for index in capture.changed]
        if window is not None:
            changed += window.changed()
            window.close(_mutated(changed) if changed else None)
        capture.wait_written()
        if changed:
            raise _mutated(changed)
        extents = tuple(Extent(*extent) for extent in capture.extents)
        file_bytes = len(header) + sum(spans.sizes)
        entry = FileEntry(name, file_bytes, len(header), capture.header_hash, extents)
        return [
            WriteResult(
                item.index,
                size,
                _Written(uid, tensor.key, tensor.dtype, tensor.shape, engine.checksum, entry if index == 0 else None),
            )
            for index, (item, tensor, size) in enumerate(zip(plan.items, spans.tensors, spans.sizes, strict=True))
        ]


class _Spans:
    """The memory that a file is written from, item by item."""

    def __init__(self) -> None:
        self.tensors: list[ShardTensor] = []
        self.offsets: dict[str, Sequence[int]] = {}
        self.addresses: list[int] = []
        self.sizes: list[int] = []
        self.devices: list[int] = []
        self._alive: list[torch.Tensor] = []

    def add(self, item: WriteItem, data: Any) -> None:
        """Adds what the planner resolved `item` to; copies only what does not lie in one piece where the engine reads it."""
        if isinstance(data, io.BytesIO):
            tensor = (
                torch.frombuffer(data.getbuffer(), dtype=torch.uint8)
                if data.getbuffer().nbytes
                else torch.empty(0, dtype=torch.uint8)
            )
        else:
            tensor = data.detach().resolve_conj().resolve_neg().contiguous()
            if _devices.number_of(tensor) is None:
                tensor = tensor.cpu()
        key = unique(item.index.fqn, self.offsets.__contains__)
        self.tensors.append(ShardTensor(key, dtype_name(tensor.dtype, item.index.fqn), tuple(tensor.shape)))
        self.offsets[key] = item.index.offset or (0,) * tensor.dim()
        self.addresses.append(tensor.data_ptr())
        self.sizes.append(tensor.nbytes)
        number = _devices.number_of(tensor)
        self.devices.append(_devices.HOST if number is None else number)
        self._alive.append(tensor)


def _mutated(names: Sequence[str]) -> CheckpointMutated:
    return CheckpointMutated(
        f"{', '.join(sorted(set(names))[:5])} changed in place while being copied; this checkpoint is not kept"
    )


def _step_of(name: str) -> int:
    """The step that a directory's name tells by its last number, as "step-1200" and "iter_0001200" do; else 0."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers and int(numbers[-1]) < 1 << 62 else 0


def _manifest(saving: Saving, metadata: Metadata, results: list[list[WriteResult]], world: int, checksum: str) -> Manifest:
    files: list[FileEntry] = []
    boxes: dict[str, list[Box]] = {}
    dtypes: dict[str, str] = {}
    checksums = {checksum}
    for rank, written in enumerate(results):
        for result in written:
            item: _Written = result.storage_data
            if item.uid != saving.uid:
                raise CheckpointError(f"rank {rank} wrote for the save {item.uid}, this one is {saving.uid}")
            if item.file is not None:
                files.append(item.file)
            checksums.add(item.checksum)
            name, index = result.index.fqn, result.index
            offsets = tuple(index.offset) if index.offset is not None else (0,) * len(item.sizes)
            if dtypes.setdefault(name, item.dtype) != item.dtype:
                raise CheckpointError(f"{name!r} is {dtypes[name]} on one rank and {item.dtype} on rank {rank}")
            boxes.setdefault(name, []).append(Box(len(files) - 1, item.key, offsets, item.sizes))
    if len(checksums) > 1:
        raise CheckpointError(f"ranks hash with {' and '.join(sorted(checksums))}; name one for all")
    tensors: dict[str, TensorEntry] = {}
    for name, entry in metadata.state_dict_metadata.items():
        held = boxes.get(name, [])
        shape = held[0].sizes if isinstance(entry, BytesStorageMetadata) and held else tuple(getattr(entry, "size", ()))
        if fault := tiling_fault(shape, [Region(box.offsets, box.sizes) for box in held]):
            raise CheckpointError(f"{name!r} was not written as a whole: {fault}")
        tensors[name] = TensorEntry(dtypes.get(name, "U8"), shape, tuple(held))
    bytes_ = frozenset(n for n, entry in metadata.state_dict_metadata.items() if isinstance(entry, BytesStorageMetadata))
    planner_data = PlannerData.of_planner(bytes_, metadata.planner_data).to_json()
    step, trees, ranks = _step_of(saving.path.name), (None,), (0,) * world
    return Manifest(saving.uid, step, saving.sequence, world, checksum, tuple(files), tensors, trees, ranks, planner_data)
