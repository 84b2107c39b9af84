"""A save to a path that the caller fixes and may use again: who is at it, under which uid, and what a dead one left.

    PARENT/NAME/               the committed checkpoint
    PARENT/.saving-NAME        the uid of the save in progress; flock'ed by its first rank
    PARENT/.part-<uid>/        its files, until they change places with NAME

The lock is the kernel's and ends with the process, so a second writer is told from a dead one. The other ranks learn the uid
from the file and not from the plan: torch's planners may hand out the plan of an earlier save.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from pathlib import Path

from .._native import core
from ..errors import CheckpointBusy, CheckpointError, InvalidArgument
from ._manifest import Manifest
from ._opened import MANIFEST

APPEARS_SECONDS = 30.0  # a network file system shows other nodes' files late
UID_BYTES = 16


class Saving:
    """The right to save to `path`, and the directory to save into; held by the first rank from begin to commit.

    Raises:
        CheckpointBusy: another save to this path is under way.
        InvalidArgument: `path` holds something that is no checkpoint of ours, and would be lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = core.CheckpointDirectory(str(path.parent))
        self._marker = _marker(path)
        self._file = _locked(self._marker, path)
        try:
            if left := _read_uid(self._marker):
                self._directory.discard(left)
            _refuse_strangers(path)
            self.sequence = _last_sequence(path) + 1
            self.uid = secrets.token_hex(UID_BYTES // 2)
            self.part = Path(self._directory.begin(self.uid))
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, self.uid.encode(), 0)
        except BaseException:
            self._release()
            raise

    def commit(self, manifest: Manifest) -> None:
        """Puts the new checkpoint where the old one was, at one instant, and gives the path free."""
        try:
            self._directory.publish(
                self.uid,
                self.path.name,
                manifest.to_json(),
                checksum=manifest.checksum,
                replace=True,
                latest=False,
                lock=False,  # this object is it
            )
        except BaseException:
            self.abandon()
            raise
        self._release()

    def abandon(self) -> None:
        """Removes what was written; the committed checkpoint stays."""
        if self._file >= 0:
            try:
                self._directory.discard(self.uid)
            finally:
                self._release()

    def _release(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            self._marker.unlink(missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_UN)  # by name: a child that was forked meanwhile shares the lock
            os.close(file)


def _marker(path: Path) -> Path:
    return path.with_name(f".saving-{path.name}")


def _locked(marker: Path, path: Path) -> int:
    """A descriptor of the marker that holds its lock."""
    while True:
        file = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(marker) and os.path.samestat(os.fstat(file), os.stat(marker)):
                return file
        except BlockingIOError:
            os.close(file)
            raise CheckpointBusy(f"another save to {path} is under way; it holds {marker}") from None
        except FileNotFoundError:
            pass
        os.close(file)  # its holder has removed it since we opened it


def _read_uid(marker: Path) -> str | None:
    text = marker.read_text()
    return text if len(text) == UID_BYTES and set(text) <= set("0123456789abcdef") else None


def uid_of_saving(path: Path) -> str:
    """The uid of the save that the first rank has begun."""
    deadline = time.monotonic() + APPEARS_SECONDS
    while True:
        try:
            if uid := _read_uid(_marker(path)):
                return uid
        except FileNotFoundError:
            pass
        if time.monotonic() > deadline:
            seconds = f"{APPEARS_SECONDS:.0f} s"
            raise CheckpointError(f"the first rank's {_marker(path)} is not here after {seconds}; all ranks must see one disk")
        time.sleep(0.01)


def _refuse_strangers(path: Path) -> None:
    """Raises InvalidArgument where `path` holds what would be lost with the checkpoint that is replaced.

    The manifest is looked into, not read in full: with many tensors that takes longer than many a save.
    """
    if not path.exists():
        return
    held = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    if held and MANIFEST not in held:
        raise InvalidArgument(f"{path} exists and is no checkpoint of this library; move it away, or save elsewhere")
    try:
        names = {file["name"] for file in json.loads(core.read_sealed(str(path / MANIFEST)))["files"]} if held else set()
    except (RuntimeError, OSError, ValueError, TypeError, KeyError):
        return  # damaged: nothing is lost with it
    strangers = sorted(held - {MANIFEST, *names})
    if strangers:
        listed = ", ".join(strangers[:3])
        raise InvalidArgument(f"{path} holds {listed}, which no save put there and which would be lost with the old checkpoint")


def _last_sequence(path: Path) -> int:
    """The highest sequence number at `path` and beside it, under names that differ in numbers only; 0 where there is none.

    So of step-100 and step-200 in one directory the one that was saved last is the newest, also after a fallback.
    """
    alike = re.compile(r"\d+".join(map(re.escape, re.split(r"\d+", path.name))))
    last = 0
    for entry in path.parent.iterdir():
        if alike.fullmatch(entry.name.removeprefix(".old-")):
            try:
                with open(entry / MANIFEST, "rb") as stream:
                    found = re.search(rb'"sequence": ?(\d{1,18})\b', stream.read(4096))
            except OSError:
                continue
            last = max(last, int(found[1]) if found else 0)
    return last
