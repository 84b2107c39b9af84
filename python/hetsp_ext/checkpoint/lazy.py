"""LazyCheckpointer: checkpoints of live objects that a training loop hardly notices. See docs/checkpoint.md."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Integral
from types import TracebackType
from typing import Any

import torch

from .._native import core
from ..errors import CheckpointBusy, CheckpointError, CheckpointMutated, InvalidArgument
from ._apply import Plan
from ._commit import Committer, Level, Progress, Save
from ._fence import Fence, SaveWindow, hash_tensors
from ._items import Item
from ._layout import Agreement, Held, agree
from ._ranks import Ranks
from ._state import Walker, named, walk_all
from ._stats import SaveStats, Stats
from ._table import Table
from ._votes import Taken, file_name
from .store import list_checkpoints, restore_newest

__all__ = ["LazyCheckpointer", "Progress", "SaveStats", "Stats"]

logger = logging.getLogger("hetsp_ext.checkpoint")

RING_BYTES = 64 << 20
SMALLEST_RING = 1 << 20


class LazyCheckpointer:
    """Saves live objects while training goes on, and restores the newest checkpoint that verifies.

    `save(step)` is called straight after `optimizer.step()`. It copies what may change at any moment - buffers, step counts,
    generators, positions -, and returns; parameters and optimizer state, which stand still until the next step, are copied to
    the disk meanwhile, and that step waits, group by group, for what is not copied yet. A checkpoint counts when it is
    committed: whole, checksummed, synced, under a name of its own.

    Args:
        path: directory of the checkpoints; made with its parents. All ranks must see it.
        *stateful: modules, optimizers, schedulers, scalers, anything with state_dict and load_state_dict. Named "model",
            "optimizer", "scheduler", "scaler" or after their class; a second one of a name gets a number.
        keep: committed checkpoints that are left; older ones are removed after a new one is durable.
        ring_bytes: memory that the engine streams through; on a slow disk more of it lets training wait less.
        every: save(step) does nothing unless step is a multiple, and, on one rank, while an earlier capture still runs.
        staging_path: commit here first, on fast storage, then copy to `path` and commit again.
        timeout: seconds that rank 0 waits for the votes of the others.
        progress: called with a Progress at each phase of each save, on a background thread.
        process_group: ranks that save together; None: all, where torch.distributed is initialised.
        io: "auto", "io_uring", "direct" or "buffered"; what is refused falls back.
        checksum: "auto", "xxh3-128" or "crc32c".
        debug: hash all state at save() and again when it is released; finds every mutation, and costs its time.
        **named_stateful: more objects, by name.

    Raises:
        InvalidArgument: an argument that cannot be; the message names it.
        CheckpointBusy: another process saves to this directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *stateful: Any,
        keep: int = 2,
        ring_bytes: int = RING_BYTES,
        every: int | None = None,
        staging_path: str | os.PathLike[str] | None = None,
        timeout: float = 600.0,
        progress: Callable[[Progress], None] | None = None,
        process_group: Any = None,
        io: str = "auto",
        checksum: str = "auto",
        debug: bool = False,
        **named_stateful: Any,
    ) -> None:
        self._closed = True  # until everything stands
        _require_natural("keep", keep, 1)
        _require_natural("ring_bytes", ring_bytes, SMALLEST_RING)
        if every is not None:
            _require_natural("every", every, 1)
        if not timeout > 0:
            raise InvalidArgument(f"timeout is {timeout!r} s; it must be positive")
        if progress is not None and not callable(progress):
            raise InvalidArgument(f"progress is {progress!r}; it must be callable")
        self._objects = named(stateful, named_stateful)
        log_back_pressure(self._objects, ring_bytes)
        self.path = os.fspath(path)
        self.stats = Stats()
        self._every, self._debug, self._pid = every, debug, os.getpid()
        self._ranks = Ranks(process_group, timeout)
        if self._ranks.rank == 0:
            self._engine = core.CheckpointEngine(ring_bytes, slot_bytes(ring_bytes), io=io, checksum=checksum)
        agreed = self._ranks.from_first(lambda: self._engine.checksum)
        if self._ranks.rank != 0:
            self._engine = core.CheckpointEngine(ring_bytes, slot_bytes(ring_bytes), io=io, checksum=agreed)
        self._levels = self._open_levels(None if staging_path is None else os.fspath(staging_path))
        self._run = self._ranks.from_first(lambda: secrets.token_hex(6))
        self._walk = Walker(self._objects)
        self._table: Table | None = None
        if self._ranks.size == 1:  # several ranks agree on it at the first save, when their parameters are sure to be equal
            self._table = Table(self._objects, self._walk()[1], self._ranks.place(None), len(self._uid(0)))
        self._agreement: Agreement | None = None
        self._counter = 0
        self._last: Save | None = None
        self._last_window: SaveWindow | None = None
        self._pending: list[Save] = []  # not done, or done and not reported
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="hetsp-checkpoint-part")
        self._part: Future[str] = self._maker.submit(self._levels[0].directory.begin, self._uid(0))
        optimizers = {name: thing for name, thing in self._objects.items() if isinstance(thing, torch.optim.Optimizer)}
        self._fence = Fence(optimizers)
        self._committer = Committer(
            self._levels,
            rank=self._ranks.rank,
            world=self._ranks.size,
            keep=keep,
            timeout=timeout,
            checksum=self._engine.checksum,
            sequence=self._read_sequence(),
            progress=progress,
            diverged=weakref.WeakMethod(self._separate),
        )
        self._closed = False
        self._at_exit = _close_at_exit(self)

    # Construction -----------------------------------------------------------------------------------------------------------

    def _open_levels(self, staging_path: str | None) -> list[Level]:
        paths = [self.path] if staging_path is None else [staging_path, self.path]
        if len(set(map(os.path.abspath, paths))) != len(paths):
            raise InvalidArgument(f"staging_path is {staging_path!r}, the same as path; it must be another directory")

        def open_first() -> list[Level]:
            levels = [Level(path, 0) for path in paths]
            for level in levels:
                if not level.directory.lock():
                    raise CheckpointBusy(f"another process saves to {level.path}; one directory has one writer")
                if gone := level.directory.clean():
                    logger.info("%s: removed what an earlier run left unfinished: %s", level.path, ", ".join(gone))
            return levels

        first: list[list[Level]] = []
        self._ranks.from_first(lambda: first.append(open_first()))
        return first[0] if first else [Level(path, self._ranks.rank) for path in paths]

    def _read_sequence(self) -> int:
        """The highest sequence number that is taken; on rank 0 the levels learn what they hold, oldest first."""
        highest = 0
        if self._ranks.rank == 0:
            for level in self._levels:
                found = [info for info in list_checkpoints(level.path) if info.sequence is not None]
                level.committed = [info.path.name for info in reversed(found)]
                highest = max([highest, *(info.sequence or 0 for info in found)])
        return highest

    def _uid(self, counter: int) -> str:
        return f"{self._run}-{counter:08d}"

    # Saving -----------------------------------------------------------------------------------------------------------------

    def save(self, step: int) -> bool:
        """Starts a checkpoint of the state as it is now, and returns; True if it did, False where `every` says no.

        Call it straight after `optimizer.step()`. An earlier capture that still runs is waited for. An I/O error fails this
        checkpoint alone: it is logged when it happens, and raised by wait() or close(), never here.

        Raises:
            CheckpointMutated: an earlier save failed because state changed while it was captured; raised once. This save
                has been started all the same.
            InvalidArgument: a step that is no integer >= 0, or state that a checkpoint cannot hold; nothing was started.
            CheckpointError: the checkpointer is closed, or belongs to another process.
        """
        begin = time.perf_counter()
        self._require_open()
        step = _require_natural("step", step, 0)
        if self._every is not None:
            if step % self._every:
                return False
            if self._ranks.size == 1 and self._last_window is not None and not self._last_window.capture.captured:
                self.stats.skipped += 1
                return False
        waited = self._finish_capture()
        stats = SaveStats(step)
        save = Save(step, self._uid(self._counter), None, None, None, begin, stats)
        self._start(save)
        self._counter += 1
        self.stats.started += 1
        self.stats.saves.append(stats)
        self._part = self._maker.submit(self._levels[0].directory.begin, self._uid(self._counter))
        self._last = save
        unreported = next((e for e in self._pending if isinstance(e.error, CheckpointMutated) and not e.reported), None)
        self._pending = [earlier for earlier in self._pending if not earlier.done.is_set()]
        self._pending.append(save)
        self._committer.submit(save)
        stats.blocked = time.perf_counter() - begin - waited
        if unreported is not None and unreported.error is not None:
            unreported.reported = True
            raise unreported.error
        return True

    def _finish_capture(self) -> float:
        """Waits for the capture of the save before; seconds, which are counted as its stall."""
        window = self._last_window
        if window is None:
            return 0.0
        begin = time.perf_counter()
        self._fence.close_window()
        window.close()
        window.capture.wait_captured()
        self._last_window = None
        return time.perf_counter() - begin

    def _start(self, save: Save) -> None:
        """Takes everything and begins the capture. What fails for want of a file is the save's error, not the caller's."""
        with self._ranks.telling(self._agreement is None):
            trees, leaves = self._walk()
            table = self._table
            if table is None or not table.matches(leaves):
                self._table = None
                table = self._table = Table(self._objects, leaves, self._ranks.place(self._agree_once), len(save.uid))
        versions = table.versions()
        hashes = [hash_tensors(group) for group in table.guarded] if self._debug else None
        table.copy_now(leaves)
        save.taken = Taken(table, trees, leaves, table.fetch() if self._ranks.size > 1 else None)
        save.stats.bytes = table.header.file_bytes
        try:
            file = os.path.join(self._part.result(), file_name(self._ranks.rank))
            save.capture = self._engine.begin(file, table.header.render(save.uid), *table.spans())
        except (OSError, CheckpointError) as error:
            save.error = error
            return
        save.window = self._last_window = SaveWindow(table, save.capture, save.step, versions, hashes, save.stats)
        self._fence.arm(save.window)

    def _agree_once(self, items: Sequence[Item]) -> Agreement:
        """Which plain tensors are the same on which ranks: found out at the first save, by all ranks together."""
        if self._agreement is None:
            own = {
                item.name: Held(item.dtype, item.shape, digest)
                for item, digest in zip(items, hash_tensors([item.local for item in items]), strict=True)
            }
            self._agreement = agree(self._ranks.gather_or_raise(own), self._ranks.rank)
        return self._agreement

    def _separate(self, names: Sequence[str]) -> None:
        """Called on the commit thread: these tensors are no longer the same on all ranks."""
        if self._agreement is not None:
            self._agreement.separate(names)
            self._table = None  # the next save builds it anew; it holds nothing that a capture needs

    def fence(self) -> None:
        """Returns when nothing of the live state is read any more. Steps of optimizers call it by themselves; call it before
        state is written in other ways: a replayed CUDA graph, a hand-written update, loading other weights."""
        if self._pid == os.getpid():
            self._fence.close_window()

    def wait(self) -> None:
        """Returns when the last save is committed, and raises its error where it was not."""
        self._require_open()
        self._wait_all()
        self._raise_last()

    def _wait_all(self) -> None:
        for save in self._pending:
            save.done.wait()

    def _raise_last(self) -> None:
        last = self._last
        if last is not None and last.error is not None:
            last.reported = True
            raise last.error

    def close(self) -> None:
        """Commits what is on its way, and lets go of the directory; raises the error of the last save, unless wait() has."""
        if self._closed or self._pid != os.getpid():
            return
        unreported = self._last is not None and not self._last.reported
        self._shut_down()
        if unreported:
            self._raise_last()

    def _shut_down(self) -> None:
        self._closed = True
        atexit.unregister(self._at_exit)
        self._fence.close()
        self._committer.stop()
        self._maker.shutdown()
        self._engine.close()
        for level in self._levels:
            level.directory.discard(self._uid(self._counter))  # made for a save that did not come
            if self._ranks.rank == 0:
                level.put_away()
                level.directory.unlock()
        self._table = self._last_window = None

    def _require_open(self) -> None:
        if self._pid != os.getpid():
            raise CheckpointError(f"this checkpointer belongs to process {self._pid}; process {os.getpid()} was forked from it")
        if self._closed:
            raise CheckpointError("the checkpointer is closed")

    def __enter__(self) -> LazyCheckpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif not self._closed and self._pid == os.getpid():
            self._shut_down()  # the error on its way says more than a checkpoint's

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._pid == os.getpid():
            self._shut_down()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._objects)} objects, io {self._engine.io}, {self._engine.checksum}"
        return f"<LazyCheckpointer {self.path}, {state}, {self.stats!r}>"

    # Restoring --------------------------------------------------------------------------------------------------------------

    def restore(self, step: int | None = None) -> int | None:
        """Loads the newest checkpoint that verifies, or that of `step`, into the live objects; all ranks call it together.

        Returns its step, None where the directory holds no checkpoint. What is skipped is logged with its reason.

        Raises:
            CheckpointCorrupt: there are checkpoints, and none verifies. The live objects are as they were.
            InvalidArgument: no checkpoint of `step`, or one of other objects or shapes. The live objects are as they were.
        """
        self._require_open()
        if step is not None:
            step = _require_natural("step", step, 0)
        self.fence()
        self._wait_all()
        plan = Plan(self._objects, self._ranks.rank, self._ranks.place(None).rank_of)
        paths = [level.path for level in self._levels]
        restored = restore_newest(paths, plan.targets, step=step, group=self._ranks.group)
        if restored is None:
            return None
        plan.apply()
        self._table = None
        for level in self._levels:  # what does not verify is the first to be pruned
            faulty = {skip.path.name for skip in restored.skipped}
            level.committed.sort(key=lambda name: name not in faulty)
        return restored.step


def log_back_pressure(objects: Mapping[str, Any], ring_bytes: int) -> None:
    """Says, once, where a step may wait for the disk: nowhere iff ring >= state - disk rate * time between steps."""
    _, leaves = walk_all(objects)
    state = sum(getattr(leaf.tensor, "_local_tensor", leaf.tensor).nbytes for leaf in leaves)
    beyond = state - ring_bytes
    if beyond > 0:
        logger.info(
            "state of %.3g GB, ring of %.3g GB: a step waits for the disk where %.3g GB take longer to write than forward and "
            "backward do (%.3g s at 1 GB/s); ring_bytes >= state - disk rate * that time avoids it",
            state / 1e9,
            ring_bytes / 1e9,
            beyond / 1e9,
            beyond / 1e9,
        )


def slot_bytes(ring_bytes: int) -> int:
    """Bytes of one write: 8 MiB reach the disk's rate; a small ring has at least four slots, so that copy and write overlap."""
    return min(8 << 20, ring_bytes // 4 // 4096 * 4096)


def _require_natural(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InvalidArgument(f"{name} is {value!r}; it must be an integer >= {least}")
    return int(value)


def _close_at_exit(checkpointer: LazyCheckpointer) -> Callable[[], None]:
    """At interpreter exit saves on their way are still committed: daemon threads would be stopped in the middle."""
    reference = weakref.ref(checkpointer)

    def close() -> None:
        alive = reference()
        if alive is not None and not alive._closed and alive._pid == os.getpid():
            alive._shut_down()

    atexit.register(close)
    return close
