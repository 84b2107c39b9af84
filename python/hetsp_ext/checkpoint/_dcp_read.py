"""torch.distributed.checkpoint's StorageReader over verified reads."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from ..errors import CheckpointCorrupt, InvalidArgument
from ._opened import MANIFEST, Opened
from ._restore import RING_BYTES, Target, read
from .store import list_checkpoints

__all__ = ["HetspStorageReader"]


class HetspStorageReader(StorageReader):
    """Loads what HetspStorageWriter or LazyCheckpointer saved: `dcp.load(state, storage_reader=HetspStorageReader(path))`.

    Only the byte runs that a rank needs are read, by any number of ranks and for any boxes; every extent they touch is
    verified before its bytes are placed, straight into the tensors of the planner where those are contiguous on the host. A
    fault is a CheckpointCorrupt in the CheckpointException that torch raises, and leaves the tensors of that rank unchanged.

    Args:
        path: a checkpoint, or a directory of checkpoints: then the newest whose manifest is whole.
        ring_bytes: memory that files are streamed through, per process.
        undo: keep what is overwritten until all has verified.
    """

    def __init__(self, path: str | os.PathLike[str], *, ring_bytes: int = RING_BYTES, undo: bool = True) -> None:
        self.checkpoint_id: str | os.PathLike[str] = path
        self._ring_bytes, self._undo = ring_bytes, undo
        self._opened: Opened | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A new load begins, from `checkpoint_id` if given."""
        self._opened = None
        if checkpoint_id is not None:
            self.checkpoint_id = checkpoint_id

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Local paths that hold a checkpoint."""
        return "://" not in os.fspath(checkpoint_id) and bool(list_checkpoints(checkpoint_id))

    def read_metadata(self) -> Metadata:
        """All ranks: what there is to load."""
        self._opened = opened = self._open(Path(self.checkpoint_id))
        items: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        places: dict[MetadataIndex, str] = {}
        for name, tensor in opened.manifest.tensors.items():
            if name in opened.planner_data.bytes:
                items[name] = BytesStorageMetadata()
                places.update({MetadataIndex(name): opened.manifest.files[box.file].name for box in tensor.boxes})
                continue
            chunks = [ChunkStorageMetadata(torch.Size(box.offsets), torch.Size(box.sizes)) for box in tensor.boxes]
            items[name] = TensorStorageMetadata(TensorProperties(opened.dtype(name)), torch.Size(tensor.shape), chunks)
            for box in tensor.boxes:
                places[MetadataIndex(name, box.offsets)] = opened.manifest.files[box.file].name
        meta = StorageMeta(checkpoint_id=self.checkpoint_id, save_id=opened.manifest.uid)
        return Metadata(items, opened.planner_data.paths, places, meta)

    @staticmethod
    def _open(path: Path) -> Opened:
        """The checkpoint at `path`, or of those in it the newest whose manifest is whole."""
        if (path / MANIFEST).exists():
            return Opened(path)
        found = list_checkpoints(path)
        if not found:
            raise InvalidArgument(f"{path} holds no checkpoint")
        whole = next((info for info in found if info.fault is None), None)
        if whole is None:
            raise CheckpointCorrupt("; ".join(str(info.fault) for info in found[:3]))
        return Opened(whole.path)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """All ranks; read_metadata has done it."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """All ranks: tells the first one which checkpoint this rank sees."""
        assert self._opened is not None
        plan.storage_data = self._opened.manifest.uid
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """First rank: all must load the same checkpoint, also where another one is committed meanwhile."""
        uids = [plan.storage_data for plan in plans]
        for rank, uid in enumerate(uids):
            if uid != uids[0]:
                raise CheckpointCorrupt(f"rank {rank} sees checkpoint {uid} at {self.checkpoint_id}, rank 0 sees {uids[0]}")
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """All ranks: returns when everything is verified and in place."""
        opened = self._opened
        assert opened is not None
        tensors: list[tuple[ReadItem, torch.Tensor]] = []
        targets: list[Target] = []
        for item in plan.items:
            name = item.storage_index.fqn
            if item.type == LoadItemType.BYTE_IO:
                tensor = torch.empty(opened.manifest.tensors[name].shape, dtype=torch.uint8)
                targets.append(Target(name, tensor))
            else:
                tensor = planner.resolve_tensor(item).detach()
                if tensor.size() != item.lengths:
                    raise InvalidArgument(f"{name!r}: the planner has {list(tensor.size())} for {list(item.lengths)} stored")
                assert item.storage_index.offset is not None
                box = tuple(item.storage_index.offset)
                offsets = tuple(a + b for a, b in zip(box, item.storage_offsets, strict=True))
                targets.append(Target(name, tensor, offsets, box))
            tensors.append((item, tensor))
        pending = read(opened, targets, convert=True, ring_bytes=self._ring_bytes, undo=self._undo)
        if pending.faults:
            pending.rollback()
            raise CheckpointCorrupt(f"{opened.path}: " + "; ".join(map(str, pending.faults[:3])))
        pending.place()
        for item, tensor in tensors:
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, io.BytesIO(tensor.numpy().tobytes()))
            else:
                planner.commit_tensor(item, tensor)
        done: Future[None] = Future()
        done.set_result(None)
        return done
