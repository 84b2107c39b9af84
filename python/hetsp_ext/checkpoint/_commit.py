"""From a capture to a committed checkpoint, off the training thread: one save after the other, in order.

Rank 0 gathers the votes of all ranks to a deadline, writes the manifest and publishes, by the protocol of CheckpointDirectory;
the others wait for the outcome, which is the published name or a file that says why there is none. Whatever goes wrong fails
this one save: it is logged when it happens, kept for whoever asks, and nothing that was committed before is touched.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._native import core
from ..errors import CheckpointCorrupt, CheckpointError, CheckpointMutated
from ._drain import drain
from ._fence import SaveWindow, list_names
from ._manifest import Manifest
from ._votes import Diverged, Taken, manifest_of, vote

logger = logging.getLogger("hetsp_ext.checkpoint")

OUTCOME = "outcome.json"
# Seconds between two looks for a file of another rank: short at first, since most votes come together.
SHORTEST_POLL, LONGEST_POLL = 0.002, 0.1
GIVEN_UP_SECONDS = 10.0  # that a rank waits for rank 0's reason, once it is clear that there is no checkpoint
# Failed saves whose outcome file is kept for ranks that are slow to look.
OUTCOMES_KEPT = 2


@dataclass
class Progress:
    """What a `progress` callback is told: `phase` of the save of `step`, and bytes of this rank's file.

    Phases in order: "captured", "written", then on rank 0 "manifest", "synced", "renamed", "committed", "latest", on the others
    "committed"; with a staging path "drained" when it is committed at the final one, too. A save that fails ends with "failed".
    """

    step: int
    phase: str
    bytes: int
    path: str


@dataclass
class Save:
    """One save on its way; `error` is set, and then `done`, when it has ended."""

    step: int
    uid: str
    taken: Taken | None
    window: SaveWindow | None
    capture: Any
    begin: float
    stats: Any
    error: BaseException | None = None
    reported: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class Level:
    """One directory that checkpoints are committed to: this rank's handle, and on rank 0 what it holds."""

    def __init__(self, path: str, rank: int) -> None:
        self.path = path
        self.rank = rank
        self.directory = core.CheckpointDirectory(path)
        self.committed: list[str] = []  # rank 0: names, the oldest first
        self.failed: list[str] = []  # rank 0: uids whose outcome files are still there

    def part(self, uid: str) -> Path:
        """The directory of a checkpoint in progress."""
        return Path(self.path) / f".part-{uid}"

    def published(self, name: str) -> bool:
        """Whether a checkpoint is committed."""
        return (Path(self.path) / name).is_dir()

    def prune(self, keep: int) -> None:
        """Removes all but the newest `keep`."""
        old = self.committed[: max(0, len(self.committed) - keep)]
        if old:
            removed = set(self.directory.prune(old))
            self.committed = [name for name in self.committed if name not in removed]

    def put_away(self, keep: int = 0) -> None:
        """Removes what is left of failed saves, except for the last `keep`."""
        while len(self.failed) > keep:
            uid = self.failed.pop(0)
            try:
                self.directory.discard(uid)
            except OSError as error:  # a rank that is late writes into it; whoever saves here next removes it
                logger.info("%s is left for now: %s", self.part(uid), error)


def checkpoint_name(step: int, uid: str) -> str:
    """The directory name of a committed checkpoint."""
    return f"step-{step:010d}-{uid}"


class Committer:
    """Takes saves from the training thread and commits them, in order, on a thread of its own."""

    def __init__(
        self,
        levels: list[Level],
        *,
        rank: int,
        world: int,
        keep: int,
        timeout: float,
        checksum: str,
        sequence: int,
        progress: Callable[[Progress], None] | None,
        diverged: weakref.WeakMethod[Callable[[Sequence[str]], None]],
    ) -> None:
        self.levels = levels
        self.rank = rank
        self.world = world
        self.keep = keep
        self.timeout = timeout
        self.checksum = checksum
        self.sequence = sequence  # of the last commit
        self._progress = progress
        self._diverged = diverged
        self._queue: queue.SimpleQueue[Save | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hetsp-checkpoint", daemon=True)
        self._thread.start()

    def submit(self, save: Save) -> None:
        """Commits the save later; its `done` is set when that has succeeded or failed."""
        self._queue.put(save)

    def stop(self) -> None:
        """Returns when everything submitted has ended."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (save := self._queue.get()) is not None:
            try:
                self._commit(save)
            except BaseException as error:
                self._fail(save, error)
            finally:
                save.taken = save.capture = save.window = None
                save.done.set()

    def _tell(self, save: Save, phase: str, path: str | None = None) -> None:
        if phase == "committed":
            save.stats.durable = time.perf_counter() - save.begin
        if self._progress is not None:
            try:
                self._progress(Progress(save.step, phase, save.stats.bytes, path or self.levels[0].path))
            except Exception:
                logger.exception("the progress callback failed at %r of step %d", phase, save.step)

    def _fail(self, save: Save, error: BaseException) -> None:
        save.error = error
        save.stats.error = f"{type(error).__name__}: {error}"
        logger.warning("the checkpoint of step %d is not kept: %s", save.step, error)
        if isinstance(error, Diverged) and (separate := self._diverged()) is not None:
            separate(error.names)
        self._tell(save, "failed")

    def _commit(self, save: Save) -> None:
        level, error = self.levels[0], None
        told: dict[str, Any] = {}
        try:
            if save.error is not None:  # what save() itself found
                raise save.error
            told = self._own_vote(save)
        except Exception as raised:
            error = raised
        if self.world == 1:
            if error is not None:
                level.directory.discard(save.uid)
                raise error
            self._publish(save, level, [told])
        elif self.rank == 0:
            self._lead(save, level, told, error)
        else:
            self._follow(save, level, told, error)
        if len(self.levels) > 1:
            self._drain(save)

    def _own_vote(self, save: Save) -> dict[str, Any]:
        """Waits until this rank's file is durable, and says what is in it."""
        capture, window, taken = save.capture, save.window, save.taken
        assert window is not None
        assert taken is not None
        capture.wait_captured()
        window.close(count=False)
        self._tell(save, "captured")
        capture.wait_written()
        window.report(taken.table.span_names[span] for span in capture.changed)
        save.stats.written(capture)
        self._tell(save, "written")
        if window.mutated:
            raise CheckpointMutated(
                f"{list_names(window.mutated)} changed in place while step {save.step} was captured; what is to change between "
                "a save and the next optimizer step must be a buffer, or wait for fence()"
            )
        return vote(taken, capture, save.step, self.world)

    def _publish(self, save: Save, level: Level, votes: list[dict[str, Any]]) -> None:
        manifest = manifest_of(votes, save.uid, save.step, self.sequence + 1, self.checksum)
        self._publish_manifest(save, level, manifest, lambda phase: self._tell(save, phase))

    def _publish_manifest(self, save: Save, level: Level, manifest: Manifest, told: Callable[[str], None]) -> None:
        name = checkpoint_name(save.step, save.uid)
        try:
            behind = level.directory.publish(save.uid, name, manifest.to_json(), told, checksum=self.checksum)
        except BaseException:
            if not level.published(name):
                level.directory.discard(save.uid)
            raise
        self.sequence = max(self.sequence, manifest.sequence)
        level.committed.append(name)
        if behind:
            logger.warning("checkpoint %s is committed, but latest does not name it: %s", name, behind)
        try:
            level.prune(self.keep)
        except Exception as error:  # the new one is durable: what is left over costs room, no checkpoint
            logger.warning("old checkpoints in %s could not be removed: %s", level.path, error)

    # Several ranks ----------------------------------------------------------------------------------------------------------

    def _write_vote(self, level: Level, save: Save, told: dict[str, Any], error: BaseException | None) -> None:
        if error is not None:
            kind = "mutated" if isinstance(error, CheckpointMutated) else "other"
            told = {"rank": self.rank, "step": save.step, "ok": False, "error": f"{error}", "kind": kind}
        level.directory.write(save.uid, f"vote-{self.rank:05d}.json", _sealed(told))

    def _lead(self, save: Save, level: Level, told: dict[str, Any], error: BaseException | None) -> None:
        try:
            votes = self._gather(save, level, told, error)
            self._publish(save, level, votes)
        except Exception as raised:
            kind = "mutated" if isinstance(raised, CheckpointMutated) else "other"
            names = raised.names if isinstance(raised, Diverged) else []
            self._announce_failure(save, level, {"error": str(raised), "kind": kind, "diverged": names})
            raise
        level.put_away()

    def _announce_failure(self, save: Save, level: Level, outcome: dict[str, Any]) -> None:
        try:
            level.directory.begin(save.uid)
            # The directory stays: other ranks may be writing into it. The large files go first, for the disk may be full.
            for file in level.part(save.uid).glob("rank-*"):
                file.unlink(missing_ok=True)
            level.directory.write(save.uid, OUTCOME, _sealed(outcome))
            level.failed.append(save.uid)
            level.put_away(OUTCOMES_KEPT)
        except Exception as error:
            logger.warning("the other ranks could not be told that step %d failed: %s", save.step, error)

    def _gather(self, save: Save, level: Level, told: dict[str, Any], error: BaseException | None) -> list[dict[str, Any]]:
        votes: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + self.timeout
        poll = SHORTEST_POLL
        if error is not None:
            raise error
        votes[0] = told
        while len(votes) < self.world:
            for rank in range(1, self.world):
                if rank in votes:
                    continue
                file = level.part(save.uid) / f"vote-{rank:05d}.json"
                if file.exists():
                    votes[rank] = _read(file)
                    if not votes[rank].get("ok"):
                        kind = CheckpointMutated if votes[rank].get("kind") == "mutated" else CheckpointError
                        raise kind(f"rank {rank}: {votes[rank].get('error')}")
            if len(votes) == self.world:
                break
            if time.monotonic() > deadline:
                missing = [rank for rank in range(self.world) if rank not in votes]
                raise CheckpointError(
                    f"no vote for step {save.step} from rank{'s' if len(missing) > 1 else ''} "
                    f"{', '.join(map(str, missing))} within {self.timeout:g} s: dead, stuck, or on another file system"
                )
            time.sleep(poll)
            poll = min(2 * poll, LONGEST_POLL)
        return [votes[rank] for rank in range(self.world)]

    def _follow(self, save: Save, level: Level, told: dict[str, Any], error: BaseException | None) -> None:
        try:
            self._write_vote(level, save, told, error)
        except Exception as raised:
            error = error or raised
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            # Rank 0 has given up and removed the directory under our hands: what counts is its reason, which comes at once.
            self._await_outcome(save, level, min(self.timeout, GIVEN_UP_SECONDS), error)
        if error is not None:
            raise error
        self._await_outcome(save, level, 2 * self.timeout)  # rank 0 itself waits that long for votes, and then publishes
        self._tell(save, "committed")

    def _await_outcome(self, save: Save, level: Level, timeout: float, otherwise: Exception | None = None) -> None:
        """Returns when rank 0 has published the checkpoint; raises its error where it has not, `otherwise` if it is silent."""
        name = checkpoint_name(save.step, save.uid)
        outcome = level.part(save.uid) / OUTCOME
        deadline = time.monotonic() + timeout
        poll = SHORTEST_POLL
        # The directory goes when rank 0 gives up, and comes back with the reason; a second level's has yet to come.
        seen = time.monotonic() if level is self.levels[0] else None
        while True:
            if level.published(name):
                return
            if outcome.exists():
                told = _read(outcome)
                if told.get("diverged"):
                    raise Diverged(told["error"], told["diverged"])
                raise (CheckpointMutated if told.get("kind") == "mutated" else CheckpointError)(told["error"])
            if self._newer_committed(level, save.uid):
                return  # committed and pruned between two looks: commits are in order, and a failure leaves its outcome
            now = time.monotonic()
            if level.part(save.uid).exists():
                seen = now
            elif seen is not None and now - seen > GIVEN_UP_SECONDS:
                raise otherwise or CheckpointError(f"{level.part(save.uid)} is gone, and rank 0 could not say why")
            if now > deadline:
                raise otherwise or CheckpointError(f"rank 0 did not say within {timeout:g} s what became of step {save.step}")
            time.sleep(poll)
            poll = min(2 * poll, LONGEST_POLL)

    def _newer_committed(self, level: Level, uid: str) -> bool:
        run, _, number = uid.rpartition("-")
        return any(
            name.rpartition("-")[0].endswith(run) and name.rpartition("-")[2] > number for name in level.directory.names()
        )

    # The second level -------------------------------------------------------------------------------------------------------

    def _drain(self, save: Save) -> None:
        """Copies the committed checkpoint from the staging level to the final one, verifies the copy, and commits it there."""
        source, level = self.levels
        name = checkpoint_name(save.step, save.uid)
        if self.rank != 0:  # staging is shared by the ranks of a machine; rank 0 drains, and the others hear of it
            self._await_outcome(save, level, 2 * self.timeout)
        else:
            try:
                manifest = drain(Path(source.path) / name, level, save.uid)
                self._publish_manifest(save, level, manifest, lambda phase: None)
            except Exception as error:
                if self.world > 1:
                    self._announce_failure(save, level, {"error": str(error), "kind": "other"})
                else:
                    level.directory.discard(save.uid)
                raise
        self._tell(save, "drained", level.path)


def _sealed(body: dict[str, Any]) -> bytes:
    return core.seal(json.dumps(body, separators=(",", ":")).encode("ascii") + b"\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(core.read_sealed(os.fspath(path)))
    except ValueError as error:
        raise CheckpointCorrupt(f"{path}: no JSON: {error}") from None
    if not isinstance(body, dict):
        raise CheckpointCorrupt(f"{path}: holds a {type(body).__name__}, must be an object")
    return body
