"""What a user would save checkpoints with, each behind the same five calls, set up as its own documentation says.

A saver lives in one process and owns what it keeps between saves. `absent` says why one cannot run here.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

import hetsp_ext

from .training import Training

COPY_BLOCK = 4 << 20  # bytes of one memcpy; large enough that Python's part does not show
WRITE_BLOCK = 8 << 20  # bytes of one write


class Saver:
    """One way of saving. `save` returns when training may go on; `fence` when the optimizer may change the tensors."""

    name: str
    fsyncs = True  # whether `done` means that a power cut loses nothing

    def __init__(self, training: Training, place: Path) -> None:
        """Called in the process that will save, with an empty folder."""
        self.training, self.place, self.count = training, place, 0

    @classmethod
    def absent(cls) -> str | None:
        return None

    def save(self) -> None:
        raise NotImplementedError

    def fence(self) -> None:
        """Blocking savers have nothing to wait for."""

    def waited_in_hooks(self) -> float:
        """Seconds of the last save's waits that happen inside `optimizer.step`, where `fence` cannot see them."""
        return 0.0

    def done(self) -> bool:
        return True

    def finish(self) -> None:
        """Waits for the last save."""

    def extra(self) -> dict[str, float]:
        """Further figures of the last save."""
        return {}

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        """These tensors out of the last checkpoint."""
        raise NotImplementedError

    def clear(self) -> None:
        """Removes earlier checkpoints, between turns: no saver's time holds another's deletions."""
        for entry in list(self.place.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def next_path(self) -> Path:
        self.count += 1
        return self.place / f"checkpoint-{self.count}"

    @property
    def path(self) -> Path:
        return self.place / f"checkpoint-{self.count}"


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class TorchSave(Saver):
    name = "torch.save + fsync"

    def save(self) -> None:
        path = self.next_path()
        torch.save(self.training.state(), path)
        fsync(path)

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        loaded = torch.load(self.path, mmap=True)
        return {name: loaded[name] for name in names}


class Safetensors(Saver):
    name = "safetensors + fsync"

    @classmethod
    def absent(cls) -> str | None:
        return None if importlib.util.find_spec("safetensors") else "safetensors is not installed"

    def save(self) -> None:
        from safetensors.torch import save_file

        path = self.next_path()
        save_file(self.training.state(), path)
        fsync(path)

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}


class Dcp(Saver):
    """torch.distributed.checkpoint; its writer fsyncs files, not the directory."""

    name = "dcp.save"

    def __init__(self, training: Training, place: Path) -> None:
        super().__init__(training, place)
        self.files = place.with_suffix(".store")
        dist.init_process_group("gloo", init_method=f"file://{self.files}", rank=0, world_size=1)

    def writer(self) -> Any:
        return dcp.FileSystemWriter(self.next_path())

    def save(self) -> None:
        dcp.save(self.training.state(), storage_writer=self.writer())

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        targets = {name: torch.empty_like(self.training.state()[name]) for name in names}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of loading in one process, which is what is meant
            dcp.load(targets, checkpoint_id=self.path, no_dist=True)
        return targets


class DcpAsync(Dcp):
    """The default: stages in the call, into memory that it allocates each time."""

    name = "dcp.async_save"
    upload: Any = None

    def stager(self) -> Any:
        return None

    def save(self) -> None:
        answer = dcp.async_save(self.training.state(), storage_writer=self.writer(), async_stager=self.stager())
        self.upload = getattr(answer, "upload_completion", answer)

    def done(self) -> bool:
        return self.upload is None or self.upload.done()

    def finish(self) -> None:
        if self.upload is not None:
            self.upload.result()


class DcpAsyncStager(DcpAsync):
    """One DefaultStager for all saves, whose buffers are allocated once; pinned memory needs CUDA."""

    name = "dcp.async_save + DefaultStager"

    def __init__(self, training: Training, place: Path) -> None:
        super().__init__(training, place)
        options = {"use_pinned_memory": False, "use_shared_memory": False, "use_non_blocking_copy": False}
        self.persistent = DefaultStager(StagingOptions(use_async_staging=False, **options))

    def stager(self) -> Any:
        return self.persistent


class TorchCheckpointing(Saver):
    """torch_checkpointing: stages into shared memory in a thread, writes from a process of its own, without fsync."""

    name = "torch_checkpointing, no fsync"
    fsyncs = False

    def __init__(self, training: Training, place: Path) -> None:
        super().__init__(training, place)
        from torch_checkpointing import CheckpointManager
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        config = CheckpointManager.Config.with_async_save()
        config.storage_config = LocalFileSystemStorageConfig(use_direct_io=False)  # version 0.1.1 gets EINVAL with it on ext4
        self.manager = CheckpointManager(config)
        self.write: Any = None

    @classmethod
    def absent(cls) -> str | None:
        found = importlib.util.find_spec("torch_checkpointing")
        return None if found else "torch_checkpointing is not installed (pip install torch_checkpointing)"

    def save(self) -> None:
        self.write = self.manager.save(str(self.next_path()), {"state": self.training.state()})

    def fence(self) -> None:
        staging = self.manager._staging_future  # its lock() waits for the same
        if staging is not None:
            staging.result()

    def done(self) -> bool:
        return self.write is None or self.write.done()

    def finish(self) -> None:
        if self.write is not None:
            self.write.result()

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        targets = {name: torch.empty_like(self.training.state()[name]) for name in names}
        return dict(self.manager.load(str(self.path), into={"state": targets})["state"])


class PlainCopy(Saver):
    """No saver: a thread that only copies, by memcpy, into a buffer of `ring` bytes. What any copy in the window must cost."""

    name = "memcpy thread (saves nothing)"

    def __init__(self, training: Training, place: Path) -> None:
        super().__init__(training, place)
        self.buffer = torch.zeros(64 << 20, dtype=torch.uint8)
        self.thread: threading.Thread | None = None

    def save(self) -> None:
        self.thread = threading.Thread(target=self.copy, daemon=True)
        self.thread.start()

    def copy(self) -> None:
        room, offset = self.buffer.numel(), 0
        for tensor in self.training.state().values():
            address, size = tensor.data_ptr(), tensor.nbytes
            for begin in range(0, size, COPY_BLOCK):
                count = min(COPY_BLOCK, size - begin)
                if offset + count > room:
                    offset = 0
                ctypes.memmove(self.buffer.data_ptr() + offset, address + begin, count)  # without the interpreter lock
                offset += count

    def fence(self) -> None:
        self.finish()

    def done(self) -> bool:
        return self.thread is None or not self.thread.is_alive()

    def finish(self) -> None:
        if self.thread is not None:
            self.thread.join()

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        return {}


class PlainWrite(PlainCopy):
    """The same thread, which also writes what it copied past the page cache: no checksum, no commit, no fsync. What any saver
    takes from the training beside it whose bytes reach a disk."""

    name = "memcpy thread that writes (no checkpoint)"
    fsyncs = False

    def __init__(self, training: Training, place: Path) -> None:
        super().__init__(training, place)
        self.block = mmap.mmap(-1, WRITE_BLOCK)  # O_DIRECT wants whole pages
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.block))

    def copy(self) -> None:
        file = os.open(self.next_path(), os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
        try:
            os.posix_fallocate(file, 0, self.training.shape.bytes)
            for tensor in self.training.state().values():
                for begin in range(0, tensor.nbytes, WRITE_BLOCK):
                    count = min(WRITE_BLOCK, tensor.nbytes - begin)
                    ctypes.memmove(self.address, tensor.data_ptr() + begin, count)
                    os.write(file, memoryview(self.block)[:count])
        finally:
            os.close(file)


class Hetsp(Saver):
    """hetsp.LazyCheckpointer; its hooks wait inside the step, and it removes older checkpoints itself."""

    name = "hetsp, ring of 64 MiB"
    ring = 64 << 20

    def __init__(self, training: Training, place: Path) -> None:
        super().__init__(training, place)
        parts = {"model": training.model, "optimizer": training.optimizer}
        self.lazy = hetsp_ext.LazyCheckpointer(place, ring_bytes=self.ring, **parts)

    def save(self) -> None:
        self.count += 1
        self.lazy.save(self.count)

    @property
    def last(self) -> Any:
        return self.lazy.stats.saves[-1]

    def waited_in_hooks(self) -> float:
        return self.last.stall

    def done(self) -> bool:
        return not self.lazy.stats.saves or self.last.durable is not None or self.last.error is not None

    def finish(self) -> None:
        self.lazy.wait()

    def extra(self) -> dict[str, float]:
        return {"durable": self.last.durable, "ring full": self.last.ring_full, "capture": self.last.capture}

    def read(self, names: list[str]) -> dict[str, torch.Tensor]:
        from safetensors import safe_open

        (path,) = self.place.glob(f"step-{self.count:010d}-*")
        order = [name for name, _ in self.training.model.named_parameters()]
        found = {}
        with safe_open(path / "rank-00000.safetensors", "pt") as file:
            for name in names:
                kind, _, parameter = name.partition(".")
                moment = {"m": "exp_avg", "v": "exp_avg_sq"}.get(kind)
                ours = f"optimizer.state.{order.index(parameter)}.{moment}" if moment else f"model.{parameter}"
                found[name] = file.get_tensor(ours)
        return found

    def clear(self) -> None:
        """The two newest stay, as a user would have it; removing the third newest is a part of its save."""


class HetspLargeRing(Hetsp):
    """Holds a large part of the state: for disks that do not keep up with the window."""

    name = "hetsp, ring of 1 GiB"
    ring = 1 << 30


SAVERS: list[type[Saver]] = [
    Dcp,
    TorchSave,
    Safetensors,
    DcpAsync,
    DcpAsyncStager,
    TorchCheckpointing,
    PlainCopy,
    PlainWrite,
    Hetsp,
    HetspLargeRing,
]
